"""Checkpoints that other projects publish: the table, and the way from a name to a run folder."""

import hashlib
import os
import shutil
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from atrous import decode
from atrous.data.fetch.dataset import folder_lock
from atrous.data.fetch.download import discard, download, remote_size
from atrous.data.schema import builtin
from atrous.data.train_ids import taxonomy_of
from atrous.errors import InputError
from atrous.files import no_such_file
from atrous.progress import Notify, Track
from atrous.run import PublishedScore, RunData, has_run
from atrous.weights.cache import cache_folder

PATIENCE = 5.0
"""Seconds until a server that does not answer counts as unreachable."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A checkpoint that a project publishes."""

    name: str
    """PROJECT/MODEL."""
    url: str
    sha256: str = ""
    """First digits of the file's checksum, if the project publishes them."""
    data: str
    """Built-in set whose classes it knows."""
    miou: float
    """As published, by the project's own protocol; 0 to 1."""
    protocol: str
    """Images and settings of that score."""
    licence: str
    """Licence of the project."""
    by_hand: bool = False
    """The address is a page for people."""

    @property
    def layout(self) -> str:
        """The project: a layout of `atrous.weights.importers`."""
        return self.name.partition("/")[0]


_TABLE = Path(__file__).with_name("published.toml")
_ENTRIES = tomllib.loads(_TABLE.read_text("utf-8"))
PUBLISHED = {
    name: decode.convert({"name": name, **entry}, Published, _TABLE, "install atrous again")
    for name, entry in _ENTRIES.items()
}
"""By name."""


def published_run(name: str, track: Track, notify: Notify) -> Path:
    """Return the run folder of a key of `PUBLISHED`, in the user's cache.

    It is downloaded and converted when it is first asked for; `track` is called with the
    bytes that have come, `notify` with a line at each interruption.
    """
    try:
        folder = cache_folder() / "weights" / name
    except RuntimeError:
        raise InputError(f"{name}: no home to keep it in; set XDG_CACHE_HOME to a folder") from None
    if not has_run(folder):
        fetch_run(PUBLISHED[name], folder, track, notify)
    return folder


def fetch_run(published: Published, out: Path, track: Track, notify: Notify) -> None:
    """Download a checkpoint, verify and convert it to the run folder `out`, which is new.

    `out` is whole or absent; killed at any moment, the same call goes on from there. Without torch
    nothing is downloaded.
    """
    if published.by_hand:
        raise InputError(
            f"{published.name}: a page for people; fetch it by hand from {published.url}, then: "
            f"atrous convert FILE --layout {published.layout} --data {published.data}"
        )
    size = _remote_size(published)
    from atrous.weights.convert import import_weights, write_run  # slow: not when offline

    part = out.with_name(f".{out.name}.pth.part")
    unfinished = out.with_name(f".{out.name}.tmp")
    data = builtin(published.data)
    taxonomy = taxonomy_of(data.labels, data.name)
    about = RunData(
        name=data.name,
        data=published.data,
        licence=f"{published.licence}; data: {data.licence}",
        source=published.url,
        published=PublishedScore(miou=published.miou, protocol=published.protocol),
    )
    with folder_lock(out.parent):
        if has_run(out):  # another process was first
            return
        _download(published, part, size, track, notify)
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        try:
            imported = import_weights(part, published.layout)
            write_run(imported, taxonomy, unfinished, about)
        except InputError as error:
            discard(part)  # or it would be taken up again, and never fit
            reason = str(error).removeprefix(f"{part}: ")
            raise InputError(f"{published.name}: what came is removed: {reason}") from None
        unfinished.replace(out)
        discard(part)


def _remote_size(published: Published) -> int | None:
    """Return the bytes of the file, if its server says."""
    try:
        return remote_size(published.url, None, PATIENCE)
    except InputError as error:
        reason = str(error).partition("; ")[0]
        raise InputError(f"{published.name}: cannot be fetched ({reason}); go online") from None


def _download(
    published: Published, part: Path, size: int | None, track: Track, notify: Notify
) -> None:
    """Download the file to `part` and verify it; a file that differs is removed."""
    try:
        download(published.url, part, size, track, notify)
    except InputError as error:
        reason = str(error).partition("; ")[0]
        raise InputError(
            f"{published.name}: {reason}; give the same command again, it goes on from there"
        ) from None
    with part.open("rb") as file:
        digits = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if not digits.startswith(published.sha256):
        discard(part)
        raise InputError(
            f"{published.name}: what came differs from the published file (sha256 {digits[:8]}, "
            f"not {published.sha256}), and is removed; give the same command again"
        )


def no_such_weights(name: str) -> InputError:
    """Return the error for a name that is neither a file nor in `PUBLISHED`."""
    near = get_close_matches(name, PUBLISHED, n=1, cutoff=0.8)
    if not near:
        return no_such_file(Path(name))
    return InputError(f"{name}: no such file or published weights. Did you mean {near[0]}?")
