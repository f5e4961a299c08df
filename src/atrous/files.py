"""Files that are either whole or absent.

Everything that atrous writes goes through `replacing`: to a temporary name beside the target, then
moved. A process that is killed, or a disk that fills up, leaves the old file or none, never half of
one.
"""

import codecs
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from atrous.errors import InputError
from atrous.text import nearest

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as that of UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path, fallback: str | None = None) -> str:
    """Read a text file that any program may have written: UTF-8, UTF-16 or UTF-32.

    Args:
        path: the file.
        fallback: the encoding of text that is none of these; None: other text is refused.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "")
    if not encoding:
        low, high = content[::2].count(0), content[1::2].count(0)
        is_utf16 = 4 * max(low, high) > len(content) // 2  # without a mark
        encoding = ("utf-16-le" if high > low else "utf-16-be") if is_utf16 else "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if fallback is None:
            raise not_utf8(path, error) from None
        text = content.decode(fallback, "replace")
    if "\0" in text:
        raise InputError(f"{path}: not a text file; save it as UTF-8 text")
    return text


def read_bytes(path: Path, most: int, fix: str) -> bytes:
    """Read a file of `most` bytes at most; `fix` is the advice for a larger one."""
    if not path.is_file():
        raise no_such_file(path)
    if path.stat().st_size > most:
        raise InputError(f"{path}: over {most >> 20:,} MB; {fix}")
    return path.read_bytes()


def not_utf8(path: Path, error: UnicodeDecodeError) -> InputError:
    """Return the error for a text file of another encoding."""
    fault = f"byte 0x{error.object[error.start]:02x} at {error.start}"
    fix = "save it as UTF-8, as by iconv -f CP1252 -t UTF-8 (from Chinese Windows: -f GBK)"
    return InputError(f"{path}: not UTF-8 text ({fault}); {fix}")


def write_text(path: Path, text: str, *, flush: bool = True) -> None:
    """Write UTF-8 text, whole or not at all; what no file can hold becomes a question mark."""
    with replacing(path, flush=flush) as temporary:
        temporary.write_text(text, "utf-8", errors="replace")


def write_json(path: Path, value: object, *, indent: int | None = 2, flush: bool = True) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=indent) + "\n", flush=flush)


def no_such_file(path: Path) -> InputError:
    """Return the error for a path that is no file; it offers the nearest name in the folder."""
    if path.exists():
        return InputError(f"{path}: no file, but a folder or a device; give a file")
    siblings: list[str] = []
    if path.parent.is_dir():
        siblings = [file.name for file in islice(path.parent.iterdir(), 2000)]
    near = nearest(path.name, siblings)
    fix = f"Did you mean {path.with_name(near)}?" if near else "Check the name and the folder"
    return InputError(f"{path}: no such file. {fix}")


def walk(folder: Path) -> Iterator[str]:
    """Yield the files below `folder`, as paths from it, through linked folders as well.

    Nothing hidden is yielded, and no folder is entered twice, so that circles of links end. Pipes
    and broken links are left out: reading a pipe might never end. A folder that may not be read
    raises InputError.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        status = Path(place).stat()
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        relative = os.path.relpath(place, folder).replace(os.sep, "/")
        start = "" if relative == "." else f"{relative}/"
        for name in sorted(names):
            if not name.startswith(".") and is_file(Path(place, name)):
                yield f"{start}{name}"


def is_file(path: Path) -> bool:
    """Return whether there is a file; a folder that may not be read raises InputError."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except PermissionError as error:
        _refuse(error)
    except (OSError, ValueError):  # as for a name that is too long, or no name at all
        pass
    return False


def _refuse(error: OSError) -> None:
    """Raise InputError for a path that cannot be read; a missing one is no error."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise InputError(
            f"{error.filename}: {error.strerror}; let this user read it, or move it away"
        ) from None


@contextmanager
def replacing(path: Path | str, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there if the block ends well, else remove it.

    The temporary name keeps the suffix of `path`, by which many writers choose the format.

    Args:
        path: the target; its folder is made if it is not there.
        flush: wait until the disk has the content, so that not even a power cut leaves half of it.
            False suits many small files that can be made again: flushing takes most of their time.

    Raises:
        OSError: the disk is full or the folder cannot be written (the command line says so in one
            line).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        if flush:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; rename it so if the block ends well, else remove it.

    `out` must be empty if it exists.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already; remove it, or give another --out")
    out = out.resolve()
    part = out.with_name(f"{out.name}.part")
    try:
        part.mkdir(parents=True)
    except FileExistsError:
        raise InputError(f"{part}: left by a command that was cut off; remove it") from None
    try:
        yield part
        if out.exists():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # there is none after the rename
