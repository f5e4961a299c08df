"""Safe unpacking: nothing outside of the folder, no links, no bombs, no half files.

An archive is read twice: to check what it would write, then to write it. So one that is hostile,
cut off or too large for the disk writes nothing.
"""

import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EINVAL, ENOSPC
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from atrous.data.members import Member, members
from atrous.files import InputError

_MOST_MEMBERS = 500_000
_MOST_RATIO = 100  # unpacked bytes to packed ones; data sets of pictures have 1 to 10
_ALWAYS_ALLOWED = 100_000_000  # unpacked bytes

Progress = Callable[[str, int, int | None], None]
"""Called with what is done, how many of its bytes, and of how many if that is known."""


class DamagedArchiveError(InputError):
    """An archive that is of no use: cut off, broken, hostile, or no archive at all."""


@dataclass(frozen=True)
class Choice:
    """Which members of an archive are taken, and what becomes of them."""

    only: tuple[str, ...] = ("*",)
    """Globs of the members' full names; * stands for "/" too."""
    strip: int = 0
    """Leading parts of each name to drop; a name that has no more is left out."""
    nested: tuple[str, ...] = ()
    """Globs of members that are archives: unpacked beside themselves, then removed."""

    def target(self, name: str, folder: Path) -> Path | None:
        """Where the member `name` goes; None if it is left out, as what macOS adds always is.

        Raises:
            ValueError: outside of `folder`.
        """
        if name.startswith("__MACOSX/") or not any(fnmatchcase(name, glob) for glob in self.only):
            return None
        parts = inner_path(name).parts[self.strip :]
        return folder.joinpath(*parts) if parts else None


def inner_path(name: str) -> PurePosixPath:
    """The relative path that a stranger's name stands for.

    Raises:
        ValueError: it is absolute, leads outside, or means another thing on another system.
    """
    path = PurePosixPath(name)
    odd = re.search(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:", name)
    if odd or path.is_absolute() or not path.parts or {"..", ".atrous"} & set(path.parts):
        raise ValueError(f"{name[:200]!r} is no path to unpack to")
    return path


def unpack(archive: Path, folder: Path, choice: Choice, progress: Progress) -> list[Path]:
    """Unpack a zip, tar or tar.gz into `folder`; return the files written, in the archive's order.

    Files that are there already are replaced, each as a whole.

    Raises:
        DamagedArchiveError: it is cut off, broken, hostile, encrypted, or no archive.
        InputError: nothing in it is asked for.
        OSError: it does not fit on the disk.
    """
    written: list[Path] = []
    inner: list[Path] = []
    with _explained(archive):
        total, done = _checked_size(archive, folder, choice), 0
        for member in members(archive):
            if target := choice.target(member.name, folder):
                for count in _write(member, target):
                    done += count
                    progress(f"unpack {archive.name}", done, total)
                is_inner = any(fnmatchcase(member.name, glob) for glob in choice.nested)
                (inner if is_inner else written).append(target)
    for path in inner:
        written += unpack(path, path.parent, Choice(), progress)
        path.unlink()
    return written


def _checked_size(archive: Path, folder: Path, choice: Choice) -> int:
    """Return the bytes that unpacking writes, once all of it is known to be good and to fit."""
    limit = _ALWAYS_ALLOWED + _MOST_RATIO * archive.stat().st_size
    unpacked = total = replaced = found = 0
    for count, member in enumerate(members(archive), start=1):
        unpacked += member.size
        if count > _MOST_MEMBERS or unpacked > limit:
            raise ValueError(f"a bomb of more than {_MOST_MEMBERS:,} files or {limit:,} bytes")
        if target := choice.target(member.name, folder):
            if member.fault:
                raise ValueError(f"{member.name[:200]!r} {member.fault}")
            found += 1
            total += member.size
            replaced += target.stat().st_size if target.is_file() else 0
    if not found:
        raise InputError(f"{archive.name}: no file in it matches {', '.join(choice.only)}")
    check_space(folder, total - replaced)
    return total


def check_space(folder: Path, needed: int) -> None:
    """Refuse what does not fit.

    Raises:
        OSError: fewer than `needed` bytes are free where `folder` is or will be.
    """
    free = free_space(folder)
    if needed > free:
        line = f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free"
        raise OSError(ENOSPC, line, str(folder))


def free_space(folder: Path) -> int:
    """Bytes that are free on the disk where `folder` is or will be."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _write(member: Member, target: Path) -> Iterator[int]:
    """Write one file, whole or not at all; yield the length of each piece.

    Not `replacing`: to bring each of COCO's 120,000 files to the disk by itself would take long;
    `fetch` does it once for all.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(".atrous.tmp")
    try:
        with temporary.open("wb") as file:
            for chunk in member.chunks():
                file.write(chunk)
                yield len(chunk)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    """Tell in one line what `members` raises."""
    try:
        yield
    except InputError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        ValueError,
        OverflowError,
        RuntimeError,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno not in (None, EINVAL):
            raise  # the disk's fault, not the archive's
        raise DamagedArchiveError(
            f"{archive.name}: cannot be unpacked: {error}; fetch it again, or from another mirror"
        ) from None
