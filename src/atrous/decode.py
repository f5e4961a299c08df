"""What files say, decoded into typed structs: JSON and TOML at the edge.

A struct declares names, types and ranges (`msgspec.Struct`, `msgspec.Meta`). What does not fit is
refused in one line that names the file, the place in it, and the fix.
"""

import json
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from atrous.errors import InputError
from atrous.files import no_such_file, not_utf8

T = TypeVar("T")

_MAX_BYTES = 4 << 30  # the largest published annotations have a fourth of it
_LONGEST = 300  # letters of a reason, which may quote the file
_PLACE = re.compile(r" - at `(key in )?\$\.?(?P<place>.*)`$", re.DOTALL)


def read_json(path: Path, kind: type[T], fix: str = "export it again") -> T:
    """Read a JSON file as a `kind`: a struct, or any type that msgspec decodes."""
    if not path.is_file():
        raise no_such_file(path)
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: over {_MAX_BYTES >> 30} GB; split it into several files")
    return decode_json(path.read_bytes(), kind, path, fix)


def decode_json(content: bytes, kind: type[T], name: Path | str, fix: str = "export it again") -> T:
    """Decode JSON as a `kind`; `name` is the file, and `fix` what to do where it does not fit."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise _misfit(name, error, fix) from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply; {fix}") from None
    except msgspec.DecodeError:  # NaN, as Python writes it, or a byte order mark: json reads both
        return convert(_lenient(content, name, fix), kind, name, fix)


def convert(values: Any, kind: type[T], name: Path | str, fix: str) -> T:
    """Return `values`, parsed from TOML or JSON, as a `kind`."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise _misfit(name, error, fix) from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply; {fix}") from None


def _lenient(content: bytes, name: Path | str, fix: str) -> Any:
    try:
        return json.loads(content)
    except RecursionError:
        raise InputError(f"{name}: nested too deeply; {fix}") from None
    except UnicodeDecodeError as error:
        raise not_utf8(Path(name), error) from None
    except ValueError as error:  # no JSON, no text, or a number of thousands of digits
        raise InputError(f"{name}: not JSON ({_one_line(str(error))}); {fix}") from None


def _misfit(name: Path | str, error: msgspec.ValidationError, fix: str) -> InputError:
    """Return "FILE: labels.ignore: expected int, got str; FIX", or what a type's own check says."""
    if isinstance(error.__cause__, InputError):
        return InputError(f"{name}: {error.__cause__}")
    reason = str(error)
    found = _PLACE.search(reason)
    place = found["place"] if found else ""
    reason = reason[: found.start()] if found else reason
    line = _one_line(reason[:1].lower() + reason[1:].replace("`", ""))
    return InputError(f"{name}: {f'{_one_line(place)}: ' if place else ''}{line}; {fix}")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
