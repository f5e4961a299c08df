"""Archive: a published file, as the `[[archives]]` of a dataset.toml describe it."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

_Size = Annotated[int, Meta(ge=0)]


class Archive(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A published file, and how it is unpacked."""

    url: str
    size: _Size | None = None
    """Bytes, if they are known."""
    md5: Annotated[str, Meta(pattern="^([0-9a-fA-F]{32})?$")] = ""
    """Ignored if `sha256` is given."""
    sha256: Annotated[str, Meta(pattern="^([0-9a-fA-F]{64})?$")] = ""
    splits: tuple[str, ...] = ()
    """The splits that need it; empty: all."""
    into: str = ""
    """The folder below the root that it is unpacked to."""
    only: tuple[str, ...] | dict[str, tuple[str, ...]] = ("*",)
    """Globs of the members to take, as `unpack` has them; or, by split, those that it needs."""
    strip: _Size = 0
    """Leading parts of the members' names to drop."""
    nested: tuple[str, ...] = ()
    """Globs of members that are archives, which are unpacked as well."""

    def __post_init__(self) -> None:
        check_url(self.url)
        if self.into:
            msgspec.structs.force_setattr(self, "into", str(inner_path(self.into)))

    @property
    def name(self) -> str:
        """The name of the file."""
        return file_name(self.url)

    def globs(self, splits: Sequence[str] | None) -> tuple[str, ...]:
        """Return the globs of the members that `splits` need (None: all splits), perhaps none."""
        if splits is not None and self.splits and not set(splits) & set(self.splits):
            return ()
        if not isinstance(self.only, dict):
            return self.only
        named = self.only if splits is None else [name for name in self.only if name in splits]
        return tuple(dict.fromkeys(glob for name in named for glob in self.only[name]))


def check_url(url: str) -> None:
    """Refuse, by a ValueError, all but addresses of files by http or https."""
    if not re.fullmatch(r"https?://[!-~]+/[!-~]*", url) or not urlsplit(url).hostname:
        raise ValueError("an address begins with http:// or https://, a host and a path follow")


def file_name(url: str) -> str:
    """Return the name of the file at `url`, with only letters, digits and "-_." in it."""
    path = re.sub(r"^https?://[^/]*", "", url).partition("?")[0].partition("#")[0]
    return re.sub(r"[^\w.-]", "_", path.rstrip("/").rpartition("/")[2])[-100:].lstrip(".") or "file"


def inner_path(name: str) -> PurePosixPath:
    """Return the relative path that a name in an untrusted archive stands for.

    A path that is absolute, leads outside, or means another thing on another system is refused by
    a ValueError.
    """
    path = PurePosixPath(name)
    odd = re.search(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:", name)
    if odd or path.is_absolute() or not path.parts or {"..", ".atrous"} & set(path.parts):
        raise ValueError(f"{name[:200]!r} is no path to unpack to")
    return path
