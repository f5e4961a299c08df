"""One label map out of a MATLAB file, version 5 to 7: (H, W) integers -> train ids.

scipy reads these files too, but crashes the whole process on damaged ones, and unpacks whatever a
file holds before its size is known. The format of a matrix of numbers is simple, so it is read
here: tagged elements, each perhaps compressed, of which only the wanted one is unpacked.
"""

import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import IDS, Encoding, to_train_ids
from atrous.errors import InputError
from atrous.files import read_bytes
from atrous.images.photos import MAX_PIXELS

_MAX_BYTES = 1 << 30
_MOST_VARIABLES = 10_000
_HEADER = 128
_PEEK = 4096  # holds all of a matrix but its numbers: a name has 63 characters at most
_COMPRESSED = 15
_TYPES = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 12: "i8", 13: "u8"},
    **{7: "f4", 9: "f8"},
}
_NUMBERS = range(6, 16)  # classes of matrices: double, single, integers of 8 to 64 bits
_COMPLEX = 1 << 11


def read_mat(path: Path, encoding: Encoding) -> NDArray[np.uint8]:
    """Read the label map in the variable that `encoding` names: (H, W) train ids."""
    data = read_bytes(path, _MAX_BYTES, "save the label map by itself")
    if data.startswith((b"\x89HDF", b"MATLAB 7.3")):
        raise InputError(f"{path}: a MATLAB 7.3 file; save it with -v7")
    try:
        ids = _matrix(memoryview(data), encoding.variable)
    except (ValueError, struct.error, zlib.error) as error:
        raise InputError(f"{path}: {error}; save it again with -v7, or as a PNG") from None
    return to_train_ids(ids, encoding.table, path, no_data=encoding.no_data)


def _matrix(data: memoryview, wanted: str) -> NDArray[np.int64]:
    """Return the matrix called `wanted`, (H, W) integers."""
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[_HEADER - 2 : _HEADER]))
    if order is None:
        raise ValueError("no MATLAB file of version 5 to 7")
    names = []
    for kind, body in islice(_elements(data[_HEADER:], order), _MOST_VARIABLES):
        head = _unpacked(body, _PEEK) if kind == _COMPRESSED else body
        flags, sizes, name, _ = _parts(head, order)
        names.append(bytes(name[1]).decode("ascii", "replace"))
        if names[-1] == wanted:
            height, width = _size(flags[1], sizes[1], order)
            if kind == _COMPRESSED:
                body = _unpacked(body, 8 * height * width + _PEEK)
            kind, numbers = _parts(body, order)[3]
            return _integers(kind, numbers, order, height * width).reshape(width, height).T
    raise ValueError(f"no variable {wanted!r} but {names[:5]}, of which labels.variable can be one")


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and the content of each element; the last may be cut short."""
    start = 0
    while start + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, start)
        if kind >> 16:  # up to four bytes lie within the tag
            yield kind & 0xFFFF, data[start + 4 : start + 4 + min(kind >> 16, 4)]
            start += 8
        else:
            yield kind, data[start + 8 : start + 8 + size]
            start += 8 + size + (0 if kind == _COMPRESSED else -size % 8)


def _unpacked(content: memoryview, most: int) -> memoryview:
    """Return the content of the matrix in a compressed element, `most` bytes of it."""
    return memoryview(zlib.decompressobj().decompress(content, most))[8:]


def _parts(body: memoryview, order: str) -> list[tuple[int, memoryview]]:
    """Return flags, sizes, name and numbers of a matrix."""
    parts = list(islice(_elements(body, order), 4))
    if len(parts) < 4:
        raise ValueError("damaged or cut short")
    return parts


def _size(flags: memoryview, sizes: memoryview, order: str) -> tuple[int, int]:
    """Return (H, W) of a matrix of numbers."""
    [flag] = struct.unpack_from(order + "I", flags)
    shape = np.frombuffer(sizes, order + "i4").tolist()
    if flag & 0xFF not in _NUMBERS or flag & _COMPLEX or len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"the variable is no matrix of integers, height x width (it is {shape})")
    if shape[0] * shape[1] > MAX_PIXELS:
        raise ValueError(f"over {MAX_PIXELS // 10**6} million pixels")
    return shape[0], shape[1]


def _integers(kind: int, numbers: memoryview, order: str, count: int) -> NDArray[np.int64]:
    """Return the `count` numbers of a matrix, column by column."""
    dtype = np.dtype(order + _TYPES.get(kind, "u1"))
    if kind not in _TYPES or len(numbers) != count * dtype.itemsize:
        raise ValueError("damaged or cut short")
    values = np.frombuffer(numbers, dtype)
    if dtype.kind == "f" and not ((np.abs(values) < IDS) & (values == np.round(values))).all():
        raise ValueError("its numbers are no ids, which are integers")
    return values.astype(np.int64)
