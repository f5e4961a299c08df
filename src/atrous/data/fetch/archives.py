"""Archive: a file that a publisher offers, as the `[[archives]]` of a dataset.toml describe it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from reprlib import repr as short
from typing import Any
from urllib.parse import urlsplit

from atrous.data.fetch.download import file_name
from atrous.data.fetch.unpack import inner_path
from atrous.errors import InputError


@dataclass(frozen=True)
class Archive:
    """A file that a publisher offers, and what becomes of it."""

    url: str
    size: int | None = None
    """Bytes, if they are known."""
    md5: str = ""
    sha256: str = ""
    """Where it is given, md5 is not looked at."""
    splits: tuple[str, ...] = ()
    """The splits that need it; empty: all."""
    into: str = ""
    """The folder below the root that it is unpacked to."""
    only: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ("*",)
    """Globs of the members to take, as `unpack` has them; or, by split, those that it needs."""
    strip: int = 0
    nested: tuple[str, ...] = ()
    """See `unpack`."""

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "Archive":
        """Read one of the `[[archives]]` of a dataset.toml.

        Raises:
            InputError: a key is unknown or missing, or a value is not what it should be.
        """
        try:
            values = {"url": None, **table}
            return cls(**{key: _READERS[key](value) for key, value in values.items()})
        except KeyError as error:
            known = ", ".join(_READERS)
            raise InputError(f"archives: unknown key {error}; there are {known}") from None
        except (TypeError, ValueError) as error:
            raise InputError(f"archives: {short(table)}: {error}") from None

    @property
    def name(self) -> str:
        """The name of the file."""
        return file_name(self.url)

    def globs(self, splits: Sequence[str] | None) -> tuple[str, ...]:
        """Those of the members that `splits` need (None: all splits); empty if they need none."""
        if splits is not None and self.splits and not set(splits) & set(self.splits):
            return ()
        if not isinstance(self.only, Mapping):
            return self.only
        named = self.only if splits is None else [name for name in self.only if name in splits]
        return tuple(dict.fromkeys(glob for name in named for glob in self.only[name]))


def checked_url(value: Any) -> str:
    """Return the address of a file.

    Raises:
        ValueError: it is not one of http or https.
    """
    is_address = isinstance(value, str) and re.fullmatch(r"https?://[!-~]+/[!-~]*", value)
    if not is_address or not urlsplit(value).hostname:
        raise ValueError("an address begins with http:// or https://, a host and a path follow")
    return str(value)


def _whole_number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{short(value)} is no whole number from 0")
    return value


def _checksum(digits: int, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", value):
        raise ValueError(f"{short(value)} is no checksum of {digits} hexadecimal digits")
    return value.lower()


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{short(value)} is no list of texts")
    return tuple(value)


def _only(value: Any) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
    if isinstance(value, Mapping):
        return {split: _texts(globs) for split, globs in value.items()}
    return _texts(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "url": checked_url,
    "size": _whole_number,
    "md5": partial(_checksum, 32),
    "sha256": partial(_checksum, 64),
    "splits": _texts,
    "into": lambda value: str(inner_path(value)),
    "only": _only,
    "strip": _whole_number,
    "nested": _texts,
}
