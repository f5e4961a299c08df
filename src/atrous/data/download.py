"""One file over HTTP, to the last byte: resumed after any break, and never two versions mixed.

Beside the file that grows, NAME.part, lies NAME.part.json with what the server said of it: length,
ETag, Last-Modified. What has come is continued only if the server still says the same.
"""

import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, TypeVar

from atrous import __version__
from atrous.data.unpack import Progress, free_space
from atrous.files import InputError, replacing

TIMEOUT = 30.0
"""Seconds without a byte until a connection counts as stalled."""
PAUSE = 1.0
"""Seconds before the second try; each further pause is twice as long."""
TRIES = 6
"""Tries in a row that bring less than `_STEP` bytes, until it is given up."""

_STEP = 1 << 16
_CHUNK = 1 << 18
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

Say = Callable[[str], None]
"""Called with a line for the person who waits."""
T = TypeVar("T")


@dataclass(frozen=True)
class _Remote:
    """What a server says of a file."""

    size: int | None
    """Bytes of the whole file."""
    etag: str
    modified: str

    @property
    def validator(self) -> str:
        """What tells one version from another in If-Range; empty if the server gives nothing."""
        return self.modified if self.etag.startswith("W/") else self.etag or self.modified

    def is_same(self, other: "_Remote") -> bool:
        """Whether both are one version, as far as both say."""
        sizes = {self.size, other.size} - {None}
        return (self.etag, self.modified, len(sizes) < 2) == (other.etag, other.modified, True)


class _BrokenError(Exception):
    """A failure that another try may mend."""


def ask(url: str, size: int | None, say: Say) -> int | None:
    """Ask a server for the bytes of a file, by its first byte: some answer no HEAD.

    Args:
        url: http or https.
        size: the bytes that it must have, if that is known.
        say: told of a try that failed.

    Returns:
        The bytes; None if neither the server nor `size` says.

    Raises:
        InputError: the server does not have the file, or in another size, or cannot be reached.
    """

    def attempt() -> int | None:
        with _opened(url, {"Range": "bytes=0-0"}) as response:
            remote = _remote(response)[1]
        _check_size(url, remote.size, size)
        return remote.size or size

    return _patiently(url, attempt, lambda: 0, 2, say)


def download(url: str, part: Path, size: int | None, progress: Progress, say: Say) -> None:
    """Download `url` to `part`, from where it stopped the last time.

    Args:
        url: http or https.
        part: the file; the server's words about it go into PART.json.
        size: the bytes that it must have, if that is known.
        progress: told the bytes that have come.
        say: told of breaks and fresh starts.

    Raises:
        InputError: the server does not have the file, gives it in another size, or breaks off
            again and again; what has come is kept.
        OSError: the disk is full.
    """
    part.parent.mkdir(parents=True, exist_ok=True)

    def attempt() -> None:
        _attempt(url, part, size, progress, say)

    _patiently(url, attempt, lambda: _length(part), TRIES, say)


def forget(part: Path) -> None:
    """Remove what has come, and what is known of it."""
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def file_name(url: str) -> str:
    """The name of the file at `url`, without characters that a terminal or a disk minds."""
    path = re.sub(r"^https?://[^/]*", "", url).partition("?")[0].partition("#")[0]
    return re.sub(r"[^\w.-]", "_", path.rstrip("/").rpartition("/")[2])[-100:].lstrip(".") or "file"


def _attempt(url: str, part: Path, size: int | None, progress: Progress, say: Say) -> None:
    """Ask for what is missing, once."""
    known, have = _read_notes(part), _length(part)
    if have and have == known.size:
        return
    if have and not known.validator:
        say(f"{file_name(url)}: the server gives no sign of its version, so from the beginning")
        have = 0
    wanted = {"Range": f"bytes={have}-", "If-Range": known.validator} if have else {}
    with _opened(url, wanted) as response:
        start, remote = _remote(response)
        _check_size(url, remote.size, size)
        if have and not remote.is_same(known):
            say(f"{file_name(url)}: it has changed on the server, so from the beginning")
        elif have and not start:
            say(f"{file_name(url)}: the server cannot continue, so from the beginning")
        if start not in (0, have) or (start and not remote.is_same(known)):
            forget(part)
            raise _BrokenError("the server sends another part than was asked for")
        if not start:
            forget(part)
            with replacing(_notes(part)) as path:
                path.write_text(json.dumps(asdict(remote)), "utf-8")
        _receive(response, part, remote.size or size, progress, file_name(url))


def _check_size(url: str, size: int | None, published: int | None) -> None:
    if size is not None and published not in (None, size):
        raise InputError(
            f"{url}: {size:,} bytes on the server, where {published:,} were published; it has "
            "changed, or a page is sent in its place: look there in a browser"
        )


def _receive(
    response: http.client.HTTPResponse, part: Path, size: int | None, progress: Progress, name: str
) -> None:
    limit = size if size is not None else free_space(part.parent) // 2
    with part.open("ab") as file:
        done = file.tell()
        for chunk in _chunks(response):
            file.write(chunk)
            done += len(chunk)
            progress(f"download {name}", done, size)
            if done > limit:
                break
    if done > limit:
        forget(part)
        raise InputError(f"{name}: the server sends more than {limit:,} bytes; try another mirror")
    if size is not None and done < size:
        raise _BrokenError(f"cut off at {done:,} of {size:,} bytes")


def _patiently(
    url: str, attempt: Callable[[], T], length: Callable[[], int], tries: int, say: Say
) -> T:
    """Try until it succeeds, or nothing more has come for some tries in a row."""
    failures, longest = 0, length()
    while True:
        try:
            return attempt()
        except _BrokenError as error:
            if length() >= longest + _STEP:
                failures, longest = 0, length()
            failures += 1
            if failures == tries:
                kept = "; what has come is kept: the same command goes on from there"
                raise InputError(f"{url}: {error}{kept if length() else ''}") from None
            pause = PAUSE * 2 ** (failures - 1)
            say(f"{file_name(url)}: {error}; next try in {pause:.0f} s")
            time.sleep(pause)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https alone, and from https to https alone."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = ("https:",) if req.type == "https" else ("http:", "https:")
        if not newurl.lower().startswith(allowed):
            raise ValueError(f"it redirects to {newurl[:200]!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """An opener for http and https alone: urllib's own would read files and FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _SafeRedirects(),
    ):
        opener.add_handler(handler)
    return opener


@contextmanager
def _opened(url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    """Open `url`; failures become a `_BrokenError`, or an InputError if no try can mend them."""
    try:
        request = urllib.request.Request(
            url, headers={"User-Agent": f"atrous/{__version__}", **headers}
        )
        response = _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            error.close()
            raise _refusal(url, error.code) from None
        response = error  # it has a status and headers, as every response
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(f"{url}: its certificate is not trusted: {reason}") from None
        raise _BrokenError(_told(reason)) from None
    except ValueError as error:
        raise InputError(f"{url}: cannot be asked for: {error}") from None
    with response:
        yield response


def _refusal(url: str, code: int) -> Exception:
    phrase = HTTPStatus(code).phrase if code in set(HTTPStatus) else "an error"
    if code in _TRANSIENT:
        return _BrokenError(f"the server answers {code}, {phrase}")
    return InputError(f"{url}: the server answers {code}, {phrase}; if it has moved, give --mirror")


def _told(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return f"nothing came for {TIMEOUT:.0f} s"
    return f"the connection failed ({reason!s:.200})"


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _BrokenError(_told(error)) from None


def _remote(response: http.client.HTTPResponse) -> tuple[int, _Remote]:
    """The first byte that is sent, and the file that it is of; -1 if the server does not say."""
    start, size = 0, response.headers.get("Content-Length", "")
    if response.status != HTTPStatus.OK:
        given = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15}|\*)", given)
        start, size = (int(match[1]), match[2]) if match else (-1, "")
    return start, _Remote(
        int(size) if re.fullmatch("[0-9]{1,15}", size) else None,
        " ".join(response.headers.get("ETag", "").split()),
        " ".join(response.headers.get("Last-Modified", "").split()),
    )


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_notes(part: Path) -> _Remote:
    """What the server said when the download began; nothing if that cannot be read."""
    try:
        notes = json.loads(_notes(part).read_text("utf-8"))
        size = None if notes["size"] is None else int(notes["size"])
        return _Remote(size, str(notes["etag"]), str(notes["modified"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return _Remote(None, "", "")
