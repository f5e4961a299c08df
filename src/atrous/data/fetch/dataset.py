"""Fetch published data sets: download, verify, unpack; resume where it stopped.

The `[[archives]]` of a dataset.toml say what a set consists of (docs/datasets.md). ROOT/.atrous
holds unfinished downloads, and the record of what is done.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atrous.data.fetch.archives import Archive, check_url
from atrous.data.fetch.download import discard, download, remote_size
from atrous.data.fetch.unpack import DamagedArchiveError, check_space, unpack
from atrous.errors import InputError, named
from atrous.files import replacing
from atrous.progress import Notify, Track, unheard, untracked


@dataclass(frozen=True)
class Job:
    """An archive to fetch."""

    archive: Archive
    only: tuple[str, ...]
    """Globs of the members to take."""
    url: str
    """The archive's own address, or a mirror's."""
    size: int | None
    """Bytes to download in all."""
    have: int
    """Bytes that are downloaded."""
    done: bool
    """Whether an earlier run has unpacked all of `only`."""

    @property
    def is_all(self) -> bool:
        """Whether the archive holds nothing for other splits."""
        return self.only == self.archive.globs(None)


def plan(
    archives: Sequence[Archive],
    root: Path,
    splits: Sequence[str] | None = None,
    mirror: str | None = None,
) -> list[Job]:
    """Return the archives to fetch; write nothing.

    Args:
        archives: archives of the set.
        root: the folder of the set.
        splits: splits to fetch; None: all.
        mirror: an address in place of each archive's scheme and host.
    """
    record = _read_record(root)
    jobs = []
    for archive in archives:
        only = archive.globs(splits)
        if not only:
            continue
        url = _mirrored(archive.url, mirror)
        whole, part = _paths(root, archive)
        done = _rows(archive, only) <= record
        have = next((path.stat().st_size for path in (whole, part) if path.exists()), 0)
        if done or whole.exists():
            size = archive.size if done else have
        else:
            size = remote_size(url, archive.size)
        jobs.append(Job(archive, only, url, size, have, done))
    return jobs


def space_needed(jobs: Sequence[Job]) -> int:
    """Return the least space in bytes: all that is unpacked, and the largest archive beside it."""
    todo = [job for job in jobs if not job.done]
    unpacked = sum(job.size or 0 for job in todo if job.only == ("*",))
    largest = max((job.size or 0 for job in todo), default=0)
    return max(0, unpacked + largest - sum(job.have for job in todo))


def fetch(
    jobs: Sequence[Job], root: Path, track: Track = untracked, notify: Notify = unheard
) -> list[Path]:
    """Download, verify and unpack; return the files and folders in `root` that were written.

    After an interruption, the same call continues.

    Args:
        jobs: from `plan`.
        root: the folder of the set; made if it is not there.
        track: follows the bytes of each step.
        notify: called for each finished archive and broken connection.
    """
    check_space(root, space_needed(jobs))
    with folder_lock(root):
        todo = [job for job in jobs if not job.done]
        written = [path for job in todo for path in _fetch_one(job, root, track, notify)]
    return list(dict.fromkeys(root / path.relative_to(root).parts[0] for path in written))


def _fetch_one(job: Job, root: Path, track: Track, notify: Notify) -> list[Path]:
    archive = job.archive
    whole, part = _paths(root, archive)
    if not whole.exists():
        download(job.url, part, archive.size, track, notify)
        _verify(archive, part, track)
        part.replace(whole)
    size = whole.stat().st_size
    try:
        folder = root / archive.into
        files = unpack(whole, folder, track, job.only, archive.strip, archive.nested)
    except DamagedArchiveError:
        shutil.rmtree(whole.parent)
        raise
    if hasattr(os, "sync"):
        os.sync()  # before the record says that all is there
    with replacing(_record(root)) as path:
        rows = sorted(_read_record(root) | _rows(archive, job.only))
        path.write_text(json.dumps(rows, indent=1), "utf-8")
    shutil.rmtree(whole.parent)
    notify(f"{archive.name}: {size / 1e6:,.1f} MB, {len(files):,} files")
    return files


def _verify(archive: Archive, part: Path, track: Track) -> None:
    """Compare the checksum with the published one, if any."""
    kind = "sha256" if archive.sha256 else "md5"
    published = (archive.sha256 or archive.md5).lower()
    running = hashlib.new(kind, usedforsecurity=False)
    size = part.stat().st_size
    with part.open("rb") as file, track(f"verify {archive.name}") as progress:
        while published and (chunk := file.read(1 << 20)):
            running.update(chunk)
            progress(file.tell(), size)
        os.fsync(file.fileno())
    if published not in ("", running.hexdigest()):
        discard(part)
        raise InputError(
            f"{archive.name}: differs from the published file ({kind}), and is removed; fetch it "
            "again, or from another place with --mirror"
        )


def _mirrored(url: str, mirror: str | None) -> str:
    if mirror is None:
        return url
    url = f"{mirror.rstrip('/')}/{url.split('/', 3)[3]}"
    with named(f"--mirror {mirror!r}"):
        check_url(url)
    return url


def _paths(root: Path, archive: Archive) -> tuple[Path, Path]:
    """Return the paths of an archive before it is unpacked: verified, and still growing."""
    key = hashlib.sha256(archive.url.encode()).hexdigest()[:8]
    folder = root / ".atrous" / key
    return folder / archive.name, folder / f"{archive.name}.part"


def _record(root: Path) -> Path:
    return root / ".atrous" / "fetched.json"


def _rows(archive: Archive, only: Sequence[str]) -> set[str]:
    """Return the lines of an archive in the record, one for each glob: splits may follow."""
    return {
        json.dumps([archive.url, archive.into, archive.strip, archive.nested, glob])
        for glob in only
    }


def _read_record(root: Path) -> set[str]:
    """Return the lines of the record; none if it cannot be read."""
    try:
        return {str(row) for row in json.loads(_record(root).read_text("utf-8"))}
    except (OSError, ValueError, TypeError, RecursionError):
        return set()


@contextmanager
def folder_lock(root: Path) -> Iterator[None]:
    """Keep a second fetch out of a folder, where the system has locks."""
    lock = root / ".atrous" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{root}: another fetch is at work there; wait for its end") from None
        except (ImportError, OSError):  # Windows, and some network disks, have none
            pass
        yield
