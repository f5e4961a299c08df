"""Repositories of the Hugging Face hub: their addresses, and files of them in the user's cache.

The protocol is that of github.com/huggingface/huggingface_hub: ENDPOINT/api/models/OWNER/NAME/
revision/REVISION names the commit and its files, ENDPOINT/OWNER/NAME/resolve/COMMIT/FILE is a file.
HF_ENDPOINT names another server, HF_TOKEN a token that only this server is shown; with
HF_HUB_OFFLINE nothing is asked.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from atrous.data.fetch.dataset import folder_lock
from atrous.data.fetch.download import (
    StatusError,
    UnreachableError,
    discard,
    download,
    read_remote,
    stated,
)
from atrous.data.fetch.unpack import check_space
from atrous.decode import decode_json
from atrous.errors import InputError
from atrous.files import write_text
from atrous.progress import Notify, Track
from atrous.text import bytes_text
from atrous.weights.cache import cache_folder

SCHEME = "hf://"
PATIENCE = 5.0
"""Seconds until a hub that does not answer counts as unreachable."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weights in repositories, the preferred one first."""

_ADDRESS = re.compile(r"hf://(\w[\w.-]*)/(\w[\w.-]*?)(?:@(\w[\w./-]*))?", re.ASCII)
_FILE = re.compile(r"\w[\w. ()+-]{0,150}", re.ASCII)
"""Names of files that are taken: at the top of a repository, so that they lead to no folder."""
_MOST = 16 << 20
"""Bytes of the list of a repository's files."""


class _Stored(Struct):
    """How the hub stores a large file."""

    sha256: str = ""


class RemoteFile(Struct):
    """A file of a repository."""

    rfilename: str
    size: int | None = None
    blobId: str | None = None  # noqa: N815
    """SHA-1 that git gives it; of a pointer, for a large file."""
    lfs: _Stored | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of a large file, git's SHA-1 of another; empty if the hub does not say."""
        return (self.lfs.sha256 if self.lfs else self.blobId) or ""


class Revision(Struct):
    """One commit of a repository, as the hub describes it."""

    sha: str
    siblings: list[RemoteFile] = []
    cardData: dict[str, Any] | None = None  # noqa: N815
    """Head of the model card."""

    @property
    def licence(self) -> str:
        """Licence that the model card states."""
        licence = (self.cardData or {}).get("license")
        return licence if isinstance(licence, str) else "unknown"

    def chosen(self, name: str) -> list[RemoteFile]:
        """Return the bundle, or else weights and config.json; `name` is for the error."""
        files = {f.rfilename: f for f in self.siblings if _FILE.fullmatch(f.rfilename)}
        bundles = [file for file in files if file.lower().endswith(".onnx")]
        bundles = ["model.onnx"] if "model.onnx" in bundles else bundles
        if len(bundles) > 1:
            raise InputError(
                f"{name}: holds several bundles ({', '.join(sorted(bundles)[:4])}) and no "
                "model.onnx; download one, and give its path"
            )
        weights = [file for file in WEIGHTS if file in files][:1]
        if not bundles and not weights:
            raise InputError(
                f"{name}: holds no bundle (*.onnx) and no {' or '.join(WEIGHTS)} at its top; "
                "nothing else is read"
            )
        config = ["config.json"] if "config.json" in files else []
        return [files[file] for file in bundles or weights + config]


@dataclass(frozen=True)
class Repository:
    """A revision of a repository: hf://OWNER/NAME[@REVISION]."""

    owner: str
    name: str
    revision: str = "main"
    """Branch, tag or commit."""

    @classmethod
    def parse(cls, address: str) -> "Repository":
        """Read an address."""
        if not (match := _ADDRESS.fullmatch(address)):
            raise InputError(f"{address}: an address of the hub is hf://OWNER/NAME[@REVISION]")
        return cls(match[1], match[2], match[3] or "main")

    def __str__(self) -> str:
        return f"{SCHEME}{self.owner}/{self.name}" + f"@{self.revision}" * (self.revision != "main")

    @property
    def id(self) -> str:
        """OWNER/NAME."""
        return f"{self.owner}/{self.name}"

    @property
    def _folder(self) -> Path:
        return cache_folder() / "hub" / self.owner / self.name

    @property
    def _ref(self) -> Path:
        """The file that holds the commit that the revision was when it was last asked for."""
        return self._folder / "refs" / quote(self.revision, safe="")

    def bundle_of(self, commit: str) -> Path:
        """Return where the bundle of a commit is kept."""
        return self._folder / commit / f"{self.name}.onnx"

    def kept_bundle(self) -> Path | None:
        """Return where the bundle of the commit lies that the revision was last known to be."""
        try:
            commit = self._ref.read_text("ascii").strip()
        except (OSError, ValueError):
            return None
        return self.bundle_of(commit) if commit.isalnum() else None

    def keep(self, commit: str) -> None:
        """Remember that the revision is `commit`, whose bundle is there."""
        write_text(self._ref, commit)

    def ask(self) -> Revision:
        """Ask the hub which commit the revision is, and which files it has."""
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise UnreachableError(f"{self}: HF_HUB_OFFLINE is set; unset it to ask the hub")
        place = f"api/models/{self.id}/revision/{quote(self.revision, safe='')}"
        try:
            content = read_remote(f"{endpoint()}/{place}?blobs=true", _MOST, PATIENCE, token())
        except StatusError as error:
            raise self._refused(error.status) from None
        except UnreachableError as error:
            reason = str(error).partition(": ")[2].partition("; ")[0]
            raise UnreachableError(f"{self}: cannot be fetched ({reason}); go online") from None
        revision = decode_json(content, Revision, str(self), "is HF_ENDPOINT a hub?")
        if not re.fullmatch("[0-9a-zA-Z]{1,64}", revision.sha):
            raise InputError(f"{self}: the hub names no commit; is HF_ENDPOINT a hub?")
        return revision

    def fetch(
        self, file: RemoteFile, commit: str, path: Path, track: Track, notify: Notify
    ) -> None:
        """Download a file of a commit to `path` and verify it, if it is not there."""
        if path.is_file():
            return
        url = f"{endpoint()}/{self.id}/resolve/{commit}/{quote(file.rfilename)}"
        part = path.with_name(f".{path.name}.part")
        try:
            size, digest = file.size, file.digest
            if size is None or not digest:
                said = stated(url, PATIENCE, token())
                size, digest = said.size if size is None else size, digest or said.etag
            notify(f"{self}: {file.rfilename}, {bytes_text(size)}")
            check_space(path.parent, size or 0)
            with folder_lock(path.parent):
                download(url, part, size, track, notify, token())
                if not _fits(part, digest):
                    discard(part)
                    raise InputError(
                        f"{self}: what came of {file.rfilename} differs from what the hub states "
                        f"({digest[:8]}), and is removed; give the same command again"
                    )
                part.replace(path)
                discard(part)
        except StatusError as error:
            raise self._refused(error.status) from None
        except UnreachableError as error:
            reason = str(error).partition(": ")[2].partition("; ")[0]
            raise UnreachableError(f"{self}: cannot be fetched ({reason}); go online") from None

    def _refused(self, status: int) -> InputError:
        """Return the error for an answer without a file."""
        if status in (401, 403):
            fix = "HF_TOKEN may not read it" if token() else "set HF_TOKEN to a token of yours"
            return InputError(f"{self}: private, gated or not there ({status}); {fix}")
        if status == 404:
            return InputError(f"{self}: the hub has no such repository, revision or file (404)")
        return InputError(f"{self}: the hub answers {status}; try again later")


def is_address(model: str | Path) -> bool:
    """Return whether `model` is an address of the hub."""
    return str(model).startswith(SCHEME)


def endpoint() -> str:
    """Return the address of the hub, without a slash at its end."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def token() -> str:
    """Return the user's token for the hub; empty if there is none."""
    text = os.environ.get("HF_TOKEN", "").strip()
    if not re.fullmatch("[!-~]*", text):
        raise InputError("HF_TOKEN: holds what no token holds; copy it again")
    return text


def _fits(path: Path, digest: str) -> bool:
    """Compare a file with a SHA-256 or git's SHA-1; anything else says nothing."""
    digest = digest.lower()
    if re.fullmatch("[0-9a-f]{64}", digest):
        running = hashlib.sha256()
    elif re.fullmatch("[0-9a-f]{40}", digest):
        start = b"blob %d\0" % path.stat().st_size
        running = hashlib.sha1(start, usedforsecurity=False)
    else:
        return True
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            running.update(chunk)
        os.fsync(file.fileno())
    return running.hexdigest() == digest
