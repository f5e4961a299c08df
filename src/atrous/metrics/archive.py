"""Arrays of integers and a little JSON in one .npz file, read back without trusting the file.

Nothing is pickled or compressed, so a file cannot expand beyond its own size, and a reader names
the arrays that it expects. `numpy.load` reads such a file, too.
"""

import json
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.files import replacing

# An array's bytes begin with a Python literal of its type and shape. numpy evaluates the literal;
# here it is matched, because the file is untrusted.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([^']*)', "
    rb"'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n",
    re.DOTALL,
)

# What untrusted bytes raise in zipfile, numpy and json: a folder, no zip, a missing array,
# encryption, JSON nested too deeply, an unsupported feature, a shape that does not fit.
_DAMAGED = (
    *(OSError, zipfile.BadZipFile, KeyError, RuntimeError),
    *(ValueError, OverflowError, EOFError, struct.error),
)


def write_archive(
    path: Path | str, arrays: Mapping[str, NDArray[np.integer[Any]]], about: Mapping[str, Any]
) -> None:
    """Write named arrays, and `about` as JSON."""
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, about=text, **arrays)


def read_archive(
    path: Path | str, dtypes: Mapping[str, type[np.integer[Any]]]
) -> tuple[dict[str, NDArray[np.integer[Any]]], dict[str, Any]]:
    """Read what `write_archive` wrote: the arrays of these names and types, and `about`."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name: _array(archive, name, dtype) for name, dtype in dtypes.items()}
            about = json.loads(_array(archive, "about", np.uint8).tobytes())
        if not isinstance(about, dict):
            raise ValueError("its description is no object")
    except (FileNotFoundError, PermissionError) as error:
        raise InputError(f"{path}: {error.strerror}; give a file of saved counts") from None
    except _DAMAGED as error:
        reason = str(error).strip('"') or type(error).__name__
        raise InputError(
            f"{path}: no counts that atrous saved ({reason}); save them again"
        ) from None
    return arrays, about


def _array(
    archive: zipfile.ZipFile, name: str, dtype: type[np.integer[Any]]
) -> NDArray[np.integer[Any]]:
    info = archive.getinfo(f"{name}.npy")
    # members end at start_dir, so none can be longer, whatever size it claims
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > archive.start_dir:
        raise ValueError(f"{name} is compressed or cut off")
    data = archive.read(info)
    header = _HEADER.match(data)
    wanted = np.dtype(dtype).newbyteorder("<")
    if header is None or header[1].decode("latin-1") != wanted.str:
        raise ValueError(f"{name} is no array of {wanted}")
    shape = [int(side) for side in header[2].decode().split(",") if side.strip()]
    return np.frombuffer(data, wanted, offset=header.end()).reshape(shape)
