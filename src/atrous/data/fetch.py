"""Published data sets onto the disk: download, verify, unpack; resumed where it stopped.

What a set consists of is data, the `[[archives]]` of its TOML file; docs/datasets.md describes
them. ROOT/.atrous holds what is under way, and the record of what is done.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atrous.data.archive import Archive, checked_url
from atrous.data.download import Say, ask, download, forget
from atrous.data.unpack import (
    Choice,
    DamagedArchiveError,
    Progress,
    check_space,
    unpack,
)
from atrous.files import InputError, replacing


@dataclass(frozen=True)
class Job:
    """An archive to fetch, and what is known of it before the work."""

    archive: Archive
    choice: Choice
    url: str
    """Where it is taken from: the archive's own, or a mirror's."""
    size: int | None
    """Bytes to download in all."""
    have: int
    """Bytes of them that are here."""
    done: bool
    """Whether all that is chosen has been unpacked by an earlier run."""


def plan(
    archives: Sequence[Archive],
    root: Path,
    splits: Sequence[str] | None = None,
    mirror: str | None = None,
    say: Say = lambda line: None,
) -> list[Job]:
    """Find out what there is to do; writes nothing.

    Args:
        archives: those of the set.
        root: the folder of the set.
        splits: those that are wanted; None: all.
        mirror: an address that takes the place of each archive's scheme and host.
        say: told of tries that failed.

    Raises:
        InputError: a server does not answer, or has a file of another size than was published.
    """
    record = _read_record(root)
    jobs = []
    for archive in archives:
        choice = archive.choice(splits)
        if choice is None:
            continue
        url = _mirrored(archive.url, mirror)
        whole, part = _whole(root, archive), _part(root, archive)
        done = all(row in record for row in _rows(archive, choice))
        have = next((path.stat().st_size for path in (whole, part) if path.exists()), 0)
        if done or whole.exists():
            size = archive.size if done else have
        else:
            size = ask(url, archive.size, say)
        jobs.append(Job(archive, choice, url, size, have, done))
    return jobs


def space_needed(jobs: Sequence[Job]) -> int:
    """Bytes that `jobs` take at least: all that is unpacked, and the largest archive beside it."""
    todo = [job for job in jobs if not job.done]
    unpacked = sum(job.size or 0 for job in todo if job.choice.only == ("*",))
    largest = max((job.size or 0 for job in todo), default=0)
    return unpacked + largest - sum(job.have for job in todo)


def fetch(
    jobs: Sequence[Job],
    root: Path,
    progress: Progress = lambda what, done, total: None,
    say: Say = lambda line: None,
) -> list[Path]:
    """Download, verify and unpack; return the files and folders in `root` that were written.

    Killed at any moment, the same call goes on from there.

    Args:
        jobs: from `plan`.
        root: the folder of the set; made if it is not there.
        progress: told the bytes of each step.
        say: told what is finished, and of breaks.

    Raises:
        InputError: a download fails, or what came is not what was published; it is removed.
        OSError: the disk is full.
    """
    check_space(root, space_needed(jobs))
    with _alone(root):
        written: list[Path] = []
        for job in jobs:
            if not job.done:
                written += _fetch_one(job, root, progress, say)
    return list(dict.fromkeys(root / path.relative_to(root).parts[0] for path in written))


def _fetch_one(job: Job, root: Path, progress: Progress, say: Say) -> list[Path]:
    archive, whole, part = job.archive, _whole(root, job.archive), _part(root, job.archive)
    if not whole.exists():
        download(job.url, part, archive.size, progress, say)
        _verify(archive, part, progress)
        part.replace(whole)
    size = whole.stat().st_size
    try:
        files = unpack(whole, root / archive.into, job.choice, progress)
    except DamagedArchiveError:
        shutil.rmtree(whole.parent)
        raise
    if hasattr(os, "sync"):
        os.sync()  # before the record says that all is there
    rows = sorted(_read_record(root) | set(_rows(archive, job.choice)))
    with replacing(_record(root)) as path:
        path.write_text(json.dumps(rows, indent=1), "utf-8")
    shutil.rmtree(whole.parent)
    say(f"{archive.name}: {size / 1e6:,.1f} MB, {len(files):,} files")
    return files


def _verify(archive: Archive, part: Path, progress: Progress) -> None:
    """Compare size and checksums with what was published.

    Raises:
        InputError: they differ; what came is removed.
    """
    size, done = part.stat().st_size, 0
    published = {"md5": archive.md5, "sha256": archive.sha256}
    sums = {kind: hashlib.new(kind, usedforsecurity=False) for kind in published if published[kind]}
    with part.open("rb") as file:
        while sums and (chunk := file.read(1 << 20)):
            for running in sums.values():
                running.update(chunk)
            done += len(chunk)
            progress(f"verify {archive.name}", done, size)
        os.fsync(file.fileno())
    wrong = [kind for kind, running in sums.items() if running.hexdigest() != published[kind]]
    if archive.size not in (None, size):
        wrong.append("size")
    if wrong:
        forget(part)
        raise InputError(
            f"{archive.name}: differs from the published file ({', '.join(wrong)}), and is removed;"
            " fetch it again, or from another place with --mirror"
        )


def _mirrored(url: str, mirror: str | None) -> str:
    if mirror is None:
        return url
    try:
        return checked_url(mirror).rstrip("/") + "/" + url.split("/", 3)[3]
    except ValueError as error:
        raise InputError(f"--mirror {mirror!r}: {error}") from None


def _folder(root: Path) -> Path:
    return root / ".atrous"


def _whole(root: Path, archive: Archive) -> Path:
    """Where the archive lies from the end of its download until it is unpacked."""
    key = hashlib.sha256(archive.url.encode()).hexdigest()[:8]
    return _folder(root) / key / archive.name


def _part(root: Path, archive: Archive) -> Path:
    whole = _whole(root, archive)
    return whole.with_name(f"{whole.name}.part")


def _record(root: Path) -> Path:
    return _folder(root) / "fetched.json"


def _rows(archive: Archive, choice: Choice) -> list[str]:
    """What the record says of an archive: a line for each glob, so that splits can follow."""
    return [
        json.dumps([archive.url, archive.into, choice.strip, choice.nested, glob])
        for glob in choice.only
    ]


def _read_record(root: Path) -> set[str]:
    """What is done; nothing if that cannot be read."""
    try:
        return {str(row) for row in json.loads(_record(root).read_text("utf-8"))}
    except (OSError, ValueError, TypeError, RecursionError):
        return set()


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep a second fetch out of the same folder, where the system has locks."""
    _folder(root).mkdir(parents=True, exist_ok=True)
    with (_folder(root) / "lock").open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{root}: another fetch is at work there; wait for its end") from None
        except (ImportError, OSError):  # Windows, and some network disks, have none
            pass
        yield
