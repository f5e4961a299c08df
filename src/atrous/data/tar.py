"""Walk the members of an untrusted tar in bounded memory.

The standard library reads each header here, but does not walk: its walk takes a damaged header for
the end, reads headers of any size into memory, calls itself for each of a run of them, and follows
a negative size in a circle (CVE-2025-8194).
"""

import io
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

_BLOCK = tarfile.BLOCKSIZE
_MOST_MEMBER = 1 << 42  # bytes; file systems cannot seek much further
_MOST_HEADER = 1 << 16  # bytes of a long name, or of pax records
_MOST_PADDING = 1 << 24  # bytes after the last member
_LONG_NAME, _PAX = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE
_EXTENSIONS = (_LONG_NAME, _PAX, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE)
_KINDS = {*_EXTENSIONS, *tarfile.SUPPORTED_TYPES} - {tarfile.GNUTYPE_SPARSE}


def tar_members(file: io.BufferedIOBase | BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield all members, folders and links too, of ustar, GNU and pax tars; no sparse files.

    Args:
        file: at its start. A caller may read on from there: a member's content comes next.

    Yields:
        The members, with their full names; `size` bytes of content begin at `offset_data`.

    Raises:
        tarfile.TarError: it is no tar, damaged, or cut short.
    """
    offset = 0
    before: dict[bytes, bytes] = {}  # by kind, extension headers of the next member
    while (block := file.read(_BLOCK)) != bytes(_BLOCK):
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            what = f"damaged or cut short at byte {offset}" if offset else "not a tar file"
            raise tarfile.ReadError(what) from None
        _complete(info, before)
        info.offset_data = offset + _BLOCK
        if info.type in _EXTENSIONS:
            before[info.type] = file.read(info.size)
        else:
            before = {}
            yield info
        offset = info.offset_data + -(-info.size // _BLOCK) * _BLOCK
        file.seek(offset)
    if len(file.read(_MOST_PADDING + 1)) > _MOST_PADDING:  # gzip checks its CRC here
        raise tarfile.ReadError("goes on after its end")


def _complete(info: tarfile.TarInfo, before: dict[bytes, bytes]) -> None:
    """Complete a header by the extension headers before it.

    A damaged header, or a kind that is not read, raises tarfile.TarError.
    """
    if info.type not in _KINDS:
        raise tarfile.ReadError(f"{info.name[:200]!r} is of a kind that is not read here")
    if info.type in _EXTENSIONS:
        if info.type in before or info.size > _MOST_HEADER:
            raise tarfile.ReadError("a header is too large, or one too many")
    else:
        if _LONG_NAME in before:
            info.name = _text(before[_LONG_NAME].partition(b"\0")[0])
        for keyword, value in _records(before.get(_PAX, b"")):
            if keyword == b"path":
                info.name = _text(value)
            elif keyword == b"size":
                info.size = int(value) if re.fullmatch(b"[0-9]{1,15}", value) else -1
            elif keyword.startswith(b"GNU.sparse"):
                raise tarfile.ReadError(f"{info.name[:200]!r} is sparse, which is not read here")
        if not info.isreg():  # whatever size is stated
            info.size = 0
    if not 0 <= info.size <= _MOST_MEMBER:
        raise tarfile.ReadError(f"{info.name[:200]!r} has an impossible size")


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keywords and values of a pax header: "LENGTH KEYWORD=VALUE", and a new line."""
    while data:
        match = re.match(rb"([0-9]{1,5}) ([^=]+)=", data)
        end = int(match[1]) if match else 0
        if not match or not match.end() < end <= len(data):
            raise tarfile.ReadError("a damaged pax header")
        yield match[2], data[match.end() : end - 1]
        data = data[end:]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
