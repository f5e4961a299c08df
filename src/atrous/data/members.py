"""The files in an archive that a stranger wrote: zip, tar and tar.gz, read with bounded memory.

The standard library's tarfile takes a damaged header for the end of the archive, reads headers of
any size into memory, and calls itself for each of a run of them. So tar is read here, in the
formats that data sets come in (ustar, GNU, pax); all else is refused.
"""

import gzip
import io
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_CHUNK = 1 << 20
_MOST_DIRECTORY = 1 << 25  # bytes of a zip's directory; that of COCO's train2017 has 11 MB
_BLOCK = 512  # of a tar file
_MOST_HEADER = 1 << 16  # bytes of a long name, or of pax records
_MOST_HEADERS = 8  # of these before one member
_MOST_PADDING = 1 << 24  # bytes after the last member


@dataclass(frozen=True)
class Member:
    """One file in an archive."""

    name: str
    """As the archive has it; see `unpack.inner_path`."""
    size: int
    """Bytes, unpacked, as the archive states them."""
    fault: str
    """Why it must not be unpacked; empty where it may."""
    chunks: Callable[[], Iterator[bytes]]
    """Its bytes, `size` of them or an error; to be called before the next member is asked for."""


def members(archive: Path) -> Iterator[Member]:
    """The files in `archive`, in its order, without the folders.

    Raises:
        zipfile.BadZipFile, ValueError, EOFError, zlib.error, struct.error, OSError, RuntimeError:
            it is cut off, broken, or neither a zip nor a tar.
    """
    with archive.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        yield from _zip_members(archive)
    else:
        yield from _tar_members(archive, compressed=start == b"\x1f\x8b")


class _SparingFile(io.FileIO):
    """A file that is not read in one large piece, however large a zip says its directory is."""

    def read(self, size: int | None = -1, /) -> bytes:
        limit = _MOST_DIRECTORY + 1
        data = super().read(limit if size is None or size < 0 else min(size, limit))
        if len(data) == limit:
            raise zipfile.BadZipFile("its directory is too large")
        return data


def _zip_members(archive: Path) -> Iterator[Member]:
    with _SparingFile(archive) as raw, zipfile.ZipFile(raw) as file:
        for info in file.infolist():
            if not info.orig_filename.endswith("/"):
                name, size = info.orig_filename, info.file_size
                yield Member(name, size, _zip_fault(info), lambda i=info: _zip_chunks(file, i))  # type: ignore[misc]


def _zip_fault(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "is encrypted"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a device"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that is not read here"
    return ""


def _zip_chunks(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    left = info.file_size
    with file.open(info) as member:
        while chunk := member.read(_CHUNK):  # raises at the end if the CRC differs
            left -= len(chunk)
            yield chunk
    if left:
        raise EOFError(f"{info.filename!r} is cut off")


def _tar_members(archive: Path, *, compressed: bool) -> Iterator[Member]:
    with archive.open("rb") as raw:
        file: IO[bytes] = gzip.GzipFile(fileobj=raw) if compressed else raw  # type: ignore[assignment]
        extended: dict[bytes, bytes] = {}  # what goes before a member, about it
        headers = 0
        while any(header := _exactly(file, _BLOCK)):
            kind, size = header[156:157], _checked_size(header)
            if kind in b"LKxg":
                extended |= _extension(kind, _padded(file, size))
                headers += 1
                if headers > _MOST_HEADERS:
                    raise ValueError("too many headers before one member")
                continue
            member = _tar_member(file, header, size, extended)
            start = file.tell()
            if not member.name.endswith("/") and kind != b"5":
                yield member
            file.seek(start + -(-member.size // _BLOCK) * _BLOCK)
            extended, headers = {}, 0
        for _ in range(_MOST_PADDING // _CHUNK):
            if not file.read(_CHUNK):  # gzip has checked its CRC now
                return
        raise ValueError("goes on after its end")


def _tar_member(file: IO[bytes], header: bytes, size: int, extended: dict[bytes, bytes]) -> Member:
    kind = header[156:157]
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345] != 0:
        name = _text(header[345:500]) + b"/" + name
    if kind in b"123456":  # links, devices, folders: whatever size is stated, no bytes follow
        size = 0
    elif kind not in b"0\x007":
        raise ValueError(f"a member of kind {kind!r}, which is not read here")
    else:
        size = _number(extended.get(b"size", b""), 10) if b"size" in extended else size
    return Member(
        extended.get(b"path", name).decode("utf-8", "surrogateescape"),
        size,
        "is a link or a device" if kind in b"12346" else "",
        lambda: _tar_chunks(file, size),
    )


def _tar_chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        chunk = _exactly(file, min(size, _CHUNK))
        size -= len(chunk)
        yield chunk


def _extension(kind: bytes, data: bytes) -> dict[bytes, bytes]:
    """What a GNU long name or the records of pax say of the member that follows."""
    if kind == b"L":
        return {b"path": _text(data)}
    if kind != b"x":  # the target of a link, or what is said of all members: times, comments
        return {}
    found = {}
    while data:
        length = data.partition(b" ")[0]
        end = _number(length, 10)
        record, data = data[len(length) + 1 : end], data[end:]
        keyword, equals, value = record.removesuffix(b"\n").partition(b"=")
        if end <= len(length) + 1 or not equals:
            raise ValueError("a damaged pax header")
        if keyword.startswith(b"GNU.sparse"):
            raise ValueError("a sparse member, which is not read here")
        if keyword in (b"path", b"size"):
            found[keyword] = value
    return found


def _padded(file: IO[bytes], size: int) -> bytes:
    if size > _MOST_HEADER:
        raise ValueError("a header is too large")
    return _exactly(file, -(-size // _BLOCK) * _BLOCK)[:size]


def _checked_size(header: bytes) -> int:
    total = sum(header[:148]) + sum(b" " * 8) + sum(header[156:])
    if total != _number(header[148:156], 8):
        raise ValueError("neither a zip nor a tar, or a damaged header")
    return _number(header[124:136], 8)


def _number(field: bytes, base: int) -> int:
    """A number in digits; or in binary, as GNU tar writes large ones."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = _text(field).strip(b" ")
    if not re.fullmatch(rb"[0-7]{0,12}" if base == 8 else rb"[0-9]{1,16}", digits):
        raise ValueError("neither a zip nor a tar, or a damaged header")
    return int(digits or b"0", base)


def _text(field: bytes) -> bytes:
    """A field up to its first NUL."""
    return field.partition(b"\0")[0]


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError("cut off")
    return data
