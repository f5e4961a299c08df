"""Download one file over HTTP: resume after any break, and never mix two versions.

NAME.part is the growing file. NAME.part.json holds the length and the ETag or Last-Modified that
the server stated. A download is continued only if these are unchanged.
"""

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from atrous import __version__
from atrous.data.fetch.archives import file_name
from atrous.data.fetch.unpack import free_space
from atrous.errors import InputError
from atrous.files import replacing
from atrous.progress import Notify, Progress, Track
from atrous.text import one_line

TIMEOUT = 30.0
"""Seconds without a byte until a connection counts as stalled."""
PAUSE = 1.0
"""Seconds before the second try; each further pause is twice as long."""
TRIES = 6
"""Tries in a row that bring less than `_STEP` bytes before the download is given up."""

_STEP = 1 << 16
_CHUNK = 1 << 18
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class _Remote(NamedTuple):
    """Length and version of a file, as a server states them."""

    size: int | None
    """Bytes of the whole file."""
    version: str
    """Strong ETag or Last-Modified; empty if there is none."""


class _BrokenError(Exception):
    """A failure that another try may fix."""


class UnreachableError(InputError):
    """No server answers, or not now."""


class StatusError(InputError):
    """A server answers that it does not give a file."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__(f"{url}: {_answer(status)}; if it has moved, give --mirror")
        self.status = status


class Stated(NamedTuple):
    """What a hub says of a file before it is downloaded."""

    size: int | None
    """Bytes."""
    etag: str
    """Without quotes; of the hub's own answer, not of the storage that it redirects to."""


def read_remote(url: str, most: int, timeout: float, token: str = "") -> bytes:
    """Return a small document of `most` bytes at most, by one request."""
    content = b""
    try:
        with _opened(url, {}, timeout, token) as response:
            for chunk in _chunks(response):
                content += chunk
                if len(content) > most:
                    raise InputError(f"{url}: over {most:,} bytes, where a short answer is due")
    except _BrokenError as error:
        raise UnreachableError(f"{url}: {error}; try again later") from None
    return content


def stated(url: str, timeout: float, token: str = "") -> Stated:
    """Ask a hub for the size and the ETag of a file, by a request of its first byte."""
    try:
        with _opened(url, {"Range": "bytes=0-0"}, timeout, token) as response:
            size = _remote(response, url, None)[1].size
            etag = response.headers.get("X-Linked-Etag") or response.headers.get("ETag") or ""
    except _BrokenError as error:
        raise UnreachableError(f"{url}: {error}; try again later") from None
    return Stated(size, etag.removeprefix("W/").strip('"'))


def remote_size(url: str, size: int | None, timeout: float | None = None) -> int | None:
    """Return the size of a remote file, by a request of its first byte: some answer no HEAD.

    Args:
        url: http or https.
        size: bytes that the file must have, if known.
        timeout: seconds until a silent server counts as out of reach; None: `TIMEOUT`.

    Returns:
        Bytes; None if neither the server nor `size` states them.
    """
    try:
        with _opened(url, {"Range": "bytes=0-0"}, timeout) as response:
            return _remote(response, url, size)[1].size or size
    except _BrokenError as error:
        raise InputError(f"{url}: {error}; try again later, or give --mirror") from None


def download(
    url: str, part: Path, size: int | None, track: Track, notify: Notify, token: str = ""
) -> None:
    """Download `url` to `part`, after the bytes that are there.

    Args:
        url: http or https.
        part: the file to write.
        size: bytes that the file must have, if known.
        track: follows the bytes.
        notify: called for each broken connection and fresh start.
        token: shown to the host of `url`, and to no other that it redirects to.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    failures, longest = 0, _length(part)
    with track(f"download {file_name(url)}") as progress:
        while True:
            try:
                return _attempt(url, part, size, progress, notify, token)
            except _BrokenError as error:
                if _length(part) >= longest + _STEP:
                    failures, longest = 0, _length(part)
                failures += 1
                if failures == TRIES:
                    kept = "what has come is kept: the same command goes on from there"
                    raise InputError(f"{url}: {error}; {kept}") from None
                pause = PAUSE * 2 ** (failures - 1)
                notify(f"{file_name(url)}: {error}; next try in {pause:.0f} s")
                time.sleep(pause)


def discard(part: Path) -> None:
    """Remove a partial download and its notes."""
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _attempt(
    url: str, part: Path, size: int | None, progress: Progress, notify: Notify, token: str
) -> None:
    """Request the missing bytes, once."""
    known, come = _read_notes(part), _length(part)
    if come and come == known.size:
        return
    have = come if known.version else 0
    wanted = {"Range": f"bytes={have}-", "If-Range": known.version} if have else {}
    with _opened(url, wanted, token=token) as response:
        start, remote = _remote(response, url, size)
        sizes = {known.size, remote.size} - {None}
        is_same = remote.version == known.version and len(sizes) < 2
        if start not in (0, have) or (start and not is_same):
            discard(part)
            raise _BrokenError("it has changed on the server, or another part is sent")
        if not start:
            if come:
                why = "it has changed on the server, or cannot be continued"
                notify(f"{file_name(url)}: {why}; from the beginning")
            discard(part)
            with replacing(_notes(part)) as path:
                path.write_text(json.dumps(remote), "utf-8")
        _receive(response, part, remote.size or size, progress, file_name(url))


def _receive(
    response: http.client.HTTPResponse, part: Path, size: int | None, progress: Progress, name: str
) -> None:
    limit = size if size is not None else free_space(part.parent) // 2
    with part.open("ab") as file:
        done = file.tell()
        for chunk in _chunks(response):
            done += file.write(chunk)
            progress(done, size)
            if done > limit:
                break
    if done > limit:
        discard(part)
        raise InputError(f"{name}: more than {limit:,} bytes are sent; try another mirror")
    if size is not None and done < size:
        raise _BrokenError(f"cut off at {done:,} of {size:,} bytes")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https alone, and from https to https alone.

    A token goes on to the same host alone.
    """

    def __init__(self) -> None:
        self.etag = ""
        """Of the file that a hub redirects for (X-Linked-Etag)."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], *answer: Any
    ) -> urllib.request.Request | None:
        fp.close()  # or urllib reads it to its end, and it may have none
        _, _, headers, address = answer  # the first two are code and message
        self.etag = self.etag or headers.get("X-Linked-Etag") or ""
        allowed = "https://" if req.type == "https" else ("http://", "https://")
        if not address.lower().startswith(allowed):
            raise ValueError(f"it redirects to {address[:200]!r}")
        request = super().redirect_request(req, fp, *answer)
        token = req.get_header("Authorization")
        if request is not None and token and request.host == req.host:
            request.add_unredirected_header("Authorization", token)
        return request


@contextmanager
def _opened(
    url: str, headers: dict[str, str], timeout: float | None = None, token: str = ""
) -> Iterator[http.client.HTTPResponse]:
    """Open `url`; raise `_BrokenError` for what another try may fix, else InputError."""
    headers, redirects = {"User-Agent": f"atrous/{__version__}", **headers}, _SafeRedirects()
    try:
        request = urllib.request.Request(url, headers=headers)
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        opener = urllib.request.build_opener(redirects)
        response = opener.open(request, timeout=timeout or TIMEOUT)
    except urllib.error.HTTPError as error:
        response = error  # it has a status and headers, as every response
    except (OSError, http.client.HTTPException) as error:
        raise _broken(getattr(error, "reason", error)) from None
    except ValueError as error:
        raise InputError(f"{url}: cannot be requested: {error}") from None
    with closing(response):
        if redirects.etag:
            response.headers["X-Linked-Etag"] = redirects.etag
        if response.status not in (200, 206, 416):  # whole, in part, no such part
            if response.status in _TRANSIENT:
                raise _BrokenError(_answer(response.status))
            raise StatusError(url, response.status)
        yield response


def _answer(status: int) -> str:
    return f"the server answers {status}, {http.client.responses.get(status, 'an error')}"


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _broken(error) from None


def _broken(reason: object) -> _BrokenError:
    return _BrokenError(f"the connection failed ({one_line(reason):.200})")


def _remote(
    response: http.client.HTTPResponse, url: str, published: int | None
) -> tuple[int, _Remote]:
    """Return the position of the first byte sent (-1: unknown), and length and version."""
    start, length = 0, response.headers.get("Content-Length", "")
    if response.status != http.HTTPStatus.OK:
        given = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15}|\*)", given)
        start, length = (int(match[1]), match[2]) if match else (-1, "")
    size = int(length) if re.fullmatch("[0-9]{1,15}", length) else None
    if size is not None and published not in (None, size):
        raise InputError(
            f"{url}: {size:,} bytes on the server, where {published:,} were published; it has "
            "changed, or a page is sent in its place: look there in a browser"
        )
    etag, modified = (response.headers.get(name, "") for name in ("ETag", "Last-Modified"))
    version = modified if etag.startswith("W/") else etag or modified
    return start, _Remote(size, one_line(version))


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_notes(part: Path) -> _Remote:
    """Return length and version at the begin of the download, empty if they cannot be read."""
    try:
        return msgspec.json.decode(_notes(part).read_bytes(), type=_Remote)
    except (OSError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _Remote(None, "")
