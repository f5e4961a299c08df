"""JSON files from anywhere, read or refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as short
from typing import Any

from atrous.errors import InputError
from atrous.files import no_such_file, not_utf8

_MAX_BYTES = 4 << 30  # the largest published annotations have a fourth of it


def read_json(path: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
    """Read a JSON file.

    Args:
        path: the file.
        change: called with each object as soon as it is read, innermost first; what it returns
            stands in its place.

    Raises:
        InputError: the file is missing, too large, no JSON, or no object at its top.
    """
    if not path.is_file():
        raise no_such_file(path)
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: over {_MAX_BYTES >> 30} GB; split it into several files")
    try:
        table = json.loads(path.read_bytes(), object_hook=change)
    except RecursionError:
        raise InputError(f"{path}: nested too deeply; export it again") from None
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from None
    except ValueError as error:  # no JSON, no text, or a number of thousands of digits
        line = " ".join(str(error).split())
        raise InputError(f"{path}: not JSON ({line}); export it again") from None
    if not isinstance(table, dict):
        raise InputError(f"{path}: {short(table)}, where an object was expected; export it again")
    return table
