"""What files say, decoded into typed structs: JSON and TOML at the edge.

A struct declares names, types and ranges (`msgspec.Struct`, `msgspec.Meta`). What does not fit is
refused in one line that names the file, the place in it, and the fix.

No union may hold both a constrained number or text and a tuple of fixed length, such as
`Annotated[int, Meta(ge=0)] | tuple[int, int]`: msgspec 0.22 reads wrong memory and crashes.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from atrous.errors import InputError
from atrous.files import not_utf8, read_bytes
from atrous.text import did_you_mean, one_line

T = TypeVar("T")

_MAX_BYTES = 4 << 30  # the largest published annotations have a fourth of it
_LONGEST = 300  # letters of a reason, which may quote the file
_UNKNOWN = re.compile(
    r"(Object contains unknown field|Invalid enum value) [`'](?P<name>.*)[`']", re.S
)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.S)
_PLACE = re.compile(r" - at `(key in )?\$\.?(?P<place>.*)`$", re.DOTALL)


Hook = Callable[[type, Any], Any]
"""Makes a value of a type that msgspec does not know of what the JSON holds in its place."""


def read_json(
    path: Path,
    kind: type[T],
    fix: str = "export it again",
    *,
    hook: Hook | None = None,
    strict: bool = True,
) -> T:
    """Read a JSON file as a `kind`.

    Args:
        path: the file.
        kind: a struct, or any type that msgspec or `hook` decodes.
        fix: what to do where the file does not fit.
        hook: decodes what msgspec does not.
        strict: whether 3.0 and "3" are no integers.
    """
    content = read_bytes(path, _MAX_BYTES, "split it into several files")
    return decode_json(content, kind, path, fix, hook=hook, strict=strict)


def decode_json(
    content: bytes,
    kind: type[T],
    name: Path | str,
    fix: str = "export it again",
    *,
    hook: Hook | None = None,
    strict: bool = True,
) -> T:
    """Decode JSON as a `kind`, as `read_json`; `name` is the file."""
    try:
        return msgspec.json.decode(content, type=kind, strict=strict, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise _misfit(name, error, kind, fix) from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply; {fix}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # NaN, as Python writes it, or a byte order mark: json reads both.
        return convert(_lenient(content, name, fix), kind, name, fix, hook=hook, strict=strict)


def convert(
    values: Any,
    kind: type[T],
    name: Path | str,
    fix: str,
    *,
    hook: Hook | None = None,
    strict: bool = True,
) -> T:
    """Return `values`, parsed from TOML or JSON, as a `kind`."""
    try:
        return msgspec.convert(values, kind, strict=strict, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise _misfit(name, error, kind, fix) from None
    except RecursionError:
        raise InputError(f"{name}: nested too deeply; {fix}") from None
    except UnicodeEncodeError:
        raise InputError(f"{name}: holds half of a surrogate pair, no text; {fix}") from None


def own_toml(module: str, name: str, kind: type[T]) -> T:
    """Decode the TOML file `name` beside a module of atrous, whose `__file__` is `module`."""
    return msgspec.toml.decode(Path(module).with_name(name).read_bytes(), type=kind)


def _lenient(content: bytes, name: Path | str, fix: str) -> Any:
    try:
        return json.loads(content)
    except RecursionError:
        raise InputError(f"{name}: nested too deeply; {fix}") from None
    except UnicodeDecodeError as error:
        raise not_utf8(Path(name), error) from None
    except ValueError as error:  # no JSON, no text, or a number of thousands of digits
        raise InputError(f"{name}: not JSON ({_short_line(str(error))}); {fix}") from None


def _misfit(name: Path | str, error: msgspec.ValidationError, kind: Any, fix: str) -> InputError:
    """Return "FILE: labels.ignore: expected int, got str; FIX", or what a type's own check says."""
    if isinstance(error.__cause__, InputError):
        return InputError(f"{name}: {error.__cause__}")
    reason = str(error)
    found = _PLACE.search(reason)
    place = found["place"] if found else ""
    reason = reason[: found.start()] if found else reason
    where = f"{name}: {_short_line(place)}: " if place else f"{name}: "
    if unknown := _UNKNOWN.fullmatch(reason):
        given = unknown["name"]
        return InputError(
            f"{where}unknown {short(given)}. {did_you_mean(given, _names_at(kind, place))}"
        )
    if missing := _MISSING.fullmatch(reason):
        return InputError(f"{where}{missing['name']} is missing; {fix}")
    return InputError(
        f"{where}{_short_line(reason[:1].lower() + reason[1:].replace('`', ''))}; {fix}"
    )


def _names_at(kind: Any, place: str) -> list[str]:
    """Return what can stand at a place in a `kind`: the fields of a struct, or the choices."""
    types = _members(inspect.type_info(kind))
    for step in re.findall(r"\[[^]]*\]|[^.\[]+", place):
        types = [inner for one in types for part in _parts(one, step) for inner in _members(part)]
    fields = [field.encode_name for one in types for field in getattr(one, "fields", ())]
    return fields + [str(value) for one in types for value in getattr(one, "values", ())]


def _members(one: Any) -> list[Any]:
    """Return the types of a union; of another type, itself."""
    return list(getattr(one, "types", [one]))


def _parts(one: Any, step: str) -> list[Any]:
    """Return the types that lie one step into another: a field, or the items of a list or table."""
    if not step.startswith("["):
        return [field.type for field in getattr(one, "fields", ()) if field.encode_name == step]
    return [getattr(one, name) for name in ("item_type", "value_type") if hasattr(one, name)]


def _short_line(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
