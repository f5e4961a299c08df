"""Archive: a file that a publisher offers, as the `[[archives]]` of a dataset.toml describe it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from atrous.data.download import file_name
from atrous.data.unpack import Choice, inner_path
from atrous.files import InputError


@dataclass(frozen=True)
class Archive:
    """A file that a publisher offers, and what becomes of it."""

    url: str
    size: int | None = None
    """Bytes, if they are known."""
    md5: str = ""
    sha256: str = ""
    splits: tuple[str, ...] = ()
    """The splits that need it; empty: all."""
    into: str = ""
    """The folder below the root that it is unpacked to."""
    only: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ("*",)
    """Globs of the members to take; or, by split, those that it needs."""
    strip: int = 0
    """See `Choice`."""
    nested: tuple[str, ...] = ()
    """See `Choice`."""

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "Archive":
        """Read one of the `[[archives]]` of a dataset.toml.

        Raises:
            InputError: a key is unknown or missing, or a value is not what it should be.
        """
        try:
            values = {key: _READERS[key](value) for key, value in table.items()}
            if "url" not in values:
                raise ValueError("url is missing")
            return cls(**values)
        except KeyError as error:
            known = ", ".join(_READERS)
            raise InputError(f"archives: unknown key {error}; there are {known}") from None
        except (TypeError, ValueError, AttributeError) as error:
            where = str(table.get("url", "?")) if isinstance(table, Mapping) else "?"
            raise InputError(f"archives: {where[:200]!r}: {error}") from None

    @property
    def name(self) -> str:
        """The name of the file."""
        return file_name(self.url)

    def choice(self, splits: Sequence[str] | None) -> Choice | None:
        """Which members are needed for `splits` (None: for all); None if it is not needed."""
        if splits is not None and self.splits and not set(splits) & set(self.splits):
            return None
        if not isinstance(self.only, Mapping):
            return Choice(self.only, self.strip, self.nested)
        named = self.only if splits is None else [name for name in self.only if name in splits]
        globs = tuple(dict.fromkeys(glob for name in named for glob in self.only[name]))
        return Choice(globs, self.strip, self.nested) if globs else None


def checked_url(value: Any) -> str:
    """Return the address `value`.

    Raises:
        ValueError: it is no address, or not of http or https.
    """
    if not isinstance(value, str) or not re.fullmatch(r"https?://[!-~]+", value):
        raise ValueError("an address begins with http:// or https:// and has no blanks")
    if not urlsplit(value).hostname:
        raise ValueError("an address has a host")
    return value


def _archive_url(value: Any) -> str:
    if "/" not in checked_url(value).split("//", 1)[1]:
        raise ValueError("the address of a file has a path")
    return str(value)


def _whole_number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.50} is no whole number from 0")
    return value


def _hexadecimal(digits: int) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", value):
            raise ValueError(f"{value!r:.50} is no checksum of {digits} hexadecimal digits")
        return value.lower()

    return read


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{value!r:.50} is no list of texts")
    return tuple(value)


def _only(value: Any) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
    if isinstance(value, Mapping):
        return {str(split): _texts(globs) for split, globs in value.items()}
    return _texts(value)


def _into(value: Any) -> str:
    return str(inner_path(value)) if value else ""


_READERS: dict[str, Callable[[Any], Any]] = {
    "url": _archive_url,
    "size": _whole_number,
    "md5": _hexadecimal(32),
    "sha256": _hexadecimal(64),
    "splits": _texts,
    "into": _into,
    "only": _only,
    "strip": _whole_number,
    "nested": _texts,
}
