"""What others publish, to a bundle that is kept: fetch, verify, convert, export.

Published checkpoints (`atrous.weights.published`) and repositories of the hub
(`atrous.weights.repository`) go the same way. `atrous.weights.hub` says where the result is kept.
"""

import hashlib
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import UNSET, UnsetType

from atrous.data.fetch.dataset import folder_lock
from atrous.data.fetch.download import UnreachableError, discard, download, remote_size
from atrous.data.schema import builtin
from atrous.data.train_ids import taxonomy_of
from atrous.errors import InputError
from atrous.export.pipeline import export_bundle
from atrous.infer.runtimes.onnx import OnnxRuntime
from atrous.progress import Notify, Track, unheard, untracked
from atrous.run import PublishedScore, RunData, has_run
from atrous.taxonomy import Taxonomy, distinct_colors
from atrous.text import bytes_text
from atrous.weights.cache import file_hash
from atrous.weights.hub import kept_bundle
from atrous.weights.published import PUBLISHED, Published
from atrous.weights.repository import WEIGHTS, Repository, Revision, is_address

__all__ = ["fetch", "fetch_weights"]

PATIENCE = 5.0
"""Seconds until a server that does not answer counts as unreachable."""


def fetch(model: str, track: Track = untracked, notify: Notify = unheard) -> Path:
    """Return the bundle of a published name or an address of the hub, in the user's cache.

    It is made at the first call, which needs the train extra unless a repository holds a bundle;
    its run folder then lies beside it (`atrous.weights.hub.run_beside`). A branch of the hub is
    asked for each time; without a network, the commit that was fetched before is taken.

    Args:
        model: a key of `PUBLISHED`, or hf://OWNER/NAME[@REVISION].
        track: follows the bytes of a download.
        notify: called with a line about each download and each interruption.
    """
    bundle = kept_bundle(model)
    if is_address(model):
        return _from_hub(Repository.parse(model), bundle, track, notify)
    assert bundle is not None
    if not bundle.is_file():
        run = bundle.with_suffix("")
        fetch_run(PUBLISHED[model], run, track, notify)
        export_bundle(run, bundle)
    return bundle


def fetch_weights(address: str, track: Track = untracked, notify: Notify = unheard) -> Path:
    """Return a folder, in the user's cache, with the weights of a repository of the hub."""
    repository = Repository.parse(address)
    return _weights(repository, repository.ask(), track, notify)


def _weights(repository: Repository, revision: Revision, track: Track, notify: Notify) -> Path:
    files = revision.chosen(str(repository))
    if files[0].rfilename not in WEIGHTS:
        raise InputError(f"{repository}: holds a bundle, which needs no conversion")
    folder = repository.bundle_of(revision.sha).with_name("files")
    for file in reversed(files):  # the weights last: they alone make the folder whole
        repository.fetch(file, revision.sha, folder / file.rfilename, track, notify)
    return folder


def fetch_run(published: Published, out: Path, track: Track, notify: Notify) -> None:
    """Download a checkpoint, or take the file that was put in its place, and convert it.

    The file is `out` with a suffix. The run folder `out` is whole or absent; killed at any moment,
    the same call goes on from there. Without torch nothing is downloaded.
    """
    with folder_lock(out.parent):
        if not has_run(out):  # or another process was first
            _convert_file(published, out, track, notify)


def _convert_file(published: Published, out: Path, track: Track, notify: Notify) -> None:
    file = out.with_name(out.name + published.suffix)
    by_hand = file.is_file()
    size = None if by_hand else _remote_size(published, file)
    from atrous.weights.convert import import_weights, write_run  # slow: not when offline

    if not by_hand:
        _download(published, file, size, track, notify)
    elif not (digits := file_hash(file)).startswith(published.sha256):
        raise InputError(
            f"{file}: not the published file (sha256 {digits[:8]}, not {published.sha256[:8]}); "
            f"put that of {published.url} there, or remove it"
        )
    data, unfinished = builtin(published.data), out.with_name(f".{out.name}.tmp")
    about = RunData(
        name=data.name,
        data=published.data,
        licence=f"{published.licence}; data: {data.licence}",
        source=published.url,
        published=_score(published),
    )
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    try:
        imported = import_weights(file, published.layout)
        write_run(imported, taxonomy_of(data.labels, data.name), unfinished, about)
    except InputError as error:
        reason = str(error).removeprefix(f"{file}: ")
        if by_hand:
            raise InputError(f"{file}: {reason}") from None
        file.unlink()  # or it would be taken again, and never fit
        raise InputError(f"{published.name}: what came is removed: {reason}") from None
    unfinished.replace(out)
    if not by_hand:
        file.unlink()


def _score(published: Published) -> PublishedScore | UnsetType:
    if published.miou is None:
        return UNSET
    return PublishedScore(miou=published.miou, protocol=published.protocol)


def _remote_size(published: Published, file: Path) -> int | None:
    """Return the bytes of the file, if its server says."""
    if published.by_hand:
        raise InputError(
            f"{published.name}: a page for people; fetch it by hand from {published.url}, and put "
            f"it there: {file}"
        )
    try:
        return remote_size(published.url, None, PATIENCE)
    except InputError as error:
        reason = str(error).partition("; ")[0]
        raise InputError(
            f"{published.name}: cannot be fetched ({reason}); go online, or put the file there by "
            f"hand: {file}"
        ) from None


def _download(
    published: Published, file: Path, size: int | None, track: Track, notify: Notify
) -> None:
    """Download `file` and verify it; a file that differs is removed."""
    part = file.with_name(f".{file.name}.part")
    notify(f"{published.name}: {bytes_text(size)} from {urlsplit(published.url).hostname}")
    try:
        download(published.url, part, size, track, notify)
    except InputError as error:
        reason = str(error).partition("; ")[0]
        raise InputError(
            f"{published.name}: {reason}; give the same command again, it goes on from there"
        ) from None
    with part.open("rb") as content:
        digits = hashlib.file_digest(content, "sha256").hexdigest()
        os.fsync(content.fileno())
    if not digits.startswith(published.sha256):
        discard(part)
        raise InputError(
            f"{published.name}: what came differs from the published file (sha256 {digits[:8]}, "
            f"not {published.sha256[:8]}), and is removed; give the same command again"
        )
    part.replace(file)
    discard(part)


def _from_hub(repository: Repository, kept: Path | None, track: Track, notify: Notify) -> Path:
    """Return the bundle of a repository: its own, or the one of its weights."""
    is_kept = kept is not None and kept.is_file()
    try:
        revision = repository.ask()
    except UnreachableError as error:
        if kept is None or not is_kept:
            raise
        notify(f"{str(error).partition('; ')[0]}; commit {kept.parent.name[:8]} is kept")
        return kept
    bundle, name = repository.bundle_of(revision.sha), str(repository)
    if not bundle.is_file():
        files = revision.chosen(name)
        if files[0].rfilename in WEIGHTS:
            with folder_lock(bundle.parent):
                _convert(repository, revision, bundle, track, notify)
        else:
            repository.fetch(files[0], revision.sha, bundle, track, notify)
            _check_bundle(bundle, f"{name}: {files[0].rfilename}")
    repository.keep(revision.sha)
    return bundle


def _convert(
    repository: Repository, revision: Revision, bundle: Path, track: Track, notify: Notify
) -> None:
    """Write bundle and run of a repository's weights, whose classes have no names."""
    from atrous.weights.convert import import_weights, write_run  # slow: before a download

    run, unfinished = bundle.with_suffix(""), bundle.with_name(f".{bundle.stem}.tmp")
    if not has_run(run):
        folder = _weights(repository, revision, track, notify)
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        try:
            imported = import_weights(folder)
            classes = [f"class {k}" for k in range(max(2, imported.num_classes))]
            taxonomy = Taxonomy(
                name=repository.name,
                classes=("background", *classes[1:]) if imported.num_classes == 1 else (*classes,),
                colors=distinct_colors(len(classes)),
            )
            about = RunData(name="unknown", licence=revision.licence, source=str(repository))
            write_run(imported, taxonomy, unfinished, about)
        except InputError as error:
            reason = str(error).removeprefix(f"{folder / WEIGHTS[0]}: ")
            raise InputError(f"{repository}: what came is removed: {reason}") from None
        finally:
            shutil.rmtree(folder)
        unfinished.replace(run)
    export_bundle(run, bundle)


def _check_bundle(bundle: Path, name: str) -> None:
    """Remove what came for a bundle and is none."""
    try:
        OnnxRuntime(bundle, threads=1)
    except InputError as error:
        bundle.unlink()
        reason = str(error).removeprefix(f"{bundle}: ")
        raise InputError(f"{name}: what came is removed: {reason}") from None
