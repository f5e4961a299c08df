"""Unpack zip, tar and tar.gz safely: no links, no bombs, no file outside, no partial file.

An archive is read twice: to check what it would write, then to write it. A hostile, truncated or
too large archive therefore writes nothing.
"""

import gzip
import io
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from errno import EINVAL, ENOSPC
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import NamedTuple

from atrous.data.fetch.archives import inner_path
from atrous.data.tar import tar_members
from atrous.errors import InputError
from atrous.progress import Track

_CHUNK = 1 << 20
_MOST_DIRECTORY = 1 << 25  # bytes of a zip's directory; that of COCO's train2017 has 11 MB
_MOST_MEMBERS = 500_000
_MOST_RATIO = 100  # unpacked bytes to packed ones; data sets of pictures have 1 to 10
_ALWAYS_ALLOWED = 100_000_000  # unpacked bytes
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(ValueError, OverflowError, RuntimeError, OSError),  # all of these, zipfile raises
)


class DamagedArchiveError(InputError):
    """An archive that is truncated, damaged, hostile or no archive at all."""


class _Member(NamedTuple):
    name: str
    """As in the archive; a folder's ends in "/"."""
    size: int
    """Unpacked bytes, as stated by the archive."""
    fault: str
    """Reason not to unpack the member; empty if there is none."""
    chunks: Iterator[bytes]
    """Content; read it before the next member."""


def unpack(
    archive: Path,
    folder: Path,
    track: Track,
    only: Sequence[str] = ("*",),
    strip: int = 0,
    nested: Sequence[str] = (),
) -> list[Path]:
    """Unpack a zip, tar or tar.gz into `folder`; return the files written, in the archive's order.

    Files that are there already are replaced, each as a whole.

    Args:
        archive: the file.
        folder: made if it is not there.
        track: follows the bytes written.
        only: globs of the members to take, by their full names; * stands for "/" too.
        strip: leading parts of each name to drop; a name that has no more is left out.
        nested: globs of members that are archives: unpacked beside themselves, then removed.

    Raises:
        DamagedArchiveError: another download may help.
    """
    written: list[Path] = []
    inner: list[Path] = []
    try:
        total, done = _checked_size(archive, folder, only, strip), 0
        with track(f"unpack {archive.name}") as progress:
            for member in _members(archive):
                if target := _target(member.name, folder, only, strip):
                    for count in _write(member, target):
                        done += count
                        progress(done, total)
                    (inner if _matches(member.name, nested) else written).append(target)
    except InputError:
        raise
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, EINVAL):
            raise  # the disk's fault, not the archive's
        raise DamagedArchiveError(
            f"{archive.name}: cannot be unpacked as a zip or tar: {error}; fetch it again, or from "
            "another mirror"
        ) from None
    for path in inner:
        written += unpack(path, path.parent, track)
        path.unlink()
    return written


def _target(name: str, folder: Path, only: Sequence[str], strip: int) -> Path | None:
    """Return the path of a member; None for folders, macOS' extras and members left out."""
    if name.endswith("/") or name.startswith("__MACOSX/") or not _matches(name, only):
        return None
    parts = inner_path(name).parts[strip:]
    return folder.joinpath(*parts) if parts else None


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _checked_size(archive: Path, folder: Path, only: Sequence[str], strip: int) -> int:
    """Check a whole archive, and the free space; return the bytes that unpacking writes."""
    limit = _ALWAYS_ALLOWED + _MOST_RATIO * archive.stat().st_size
    unpacked = total = replaced = found = 0
    for count, member in enumerate(_members(archive), start=1):
        unpacked += member.size
        if count > _MOST_MEMBERS or unpacked > limit:
            raise ValueError(f"a bomb of more than {_MOST_MEMBERS:,} files or {limit:,} bytes")
        if target := _target(member.name, folder, only, strip):
            if member.fault:
                raise ValueError(f"{member.name[:200]!r} {member.fault}")
            found += 1
            total += member.size
            replaced += target.stat().st_size if target.is_file() else 0
    if not found:
        raise InputError(f"{archive.name}: no file in it matches {', '.join(only)}")
    check_space(folder, total - replaced)
    return total


def check_space(folder: Path, needed: int) -> None:
    """Raise OSError where fewer than `needed` bytes are free for `folder`."""
    free = free_space(folder)
    if needed > free:
        line = f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free"
        raise OSError(ENOSPC, line, str(folder))


def free_space(folder: Path) -> int:
    """Return the free bytes on the disk where `folder` is or will be."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _write(member: _Member, target: Path) -> Iterator[int]:
    """Write one file, whole or not at all; yield the length of each piece.

    Not by `replacing`: a flush for each of COCO's 120,000 files would take long; `fetch` syncs once
    for all.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(".atrous.tmp")
    try:
        with temporary.open("wb") as file:
            for chunk in member.chunks:
                yield file.write(chunk)
            if file.tell() != member.size:
                raise EOFError(f"{member.name[:200]!r} is cut off")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _members(archive: Path) -> Iterator[_Member]:
    """Yield the members of a zip, tar or tar.gz, in their order; raises any of `_DAMAGE`."""
    with archive.open("rb") as raw:
        start = raw.read(2)
    if start == b"PK":
        yield from _zip_members(archive)
    else:
        with gzip.open(archive) if start == b"\x1f\x8b" else archive.open("rb") as file:
            yield from _tar_members(file)


def _tar_members(file: io.BufferedIOBase) -> Iterator[_Member]:
    for info in tar_members(file):
        name = f"{info.name}/" if info.isdir() else info.name
        fault = "" if info.isreg() else "is a link or a device"
        chunks = (file.read(min(_CHUNK, info.size - at)) for at in range(0, info.size, _CHUNK))
        yield _Member(name, info.size, fault, chunks)


class _SparingFile(io.FileIO):
    """A file that refuses large reads: a zip may lie about the size of its directory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_DIRECTORY:
            raise zipfile.BadZipFile("its directory is too large")
        return super().read(size)


def _zip_members(archive: Path) -> Iterator[_Member]:
    with _SparingFile(archive) as raw, zipfile.ZipFile(raw) as file:
        for info in file.infolist():
            chunks = _zip_chunks(file, info)
            yield _Member(info.orig_filename, info.file_size, _zip_fault(info), chunks)


def _zip_fault(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "is encrypted"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a device"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that is not read here"
    return ""


def _zip_chunks(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with file.open(info) as member:
        yield from iter(partial(member.read, _CHUNK), b"")  # raises at the end if the CRC differs
