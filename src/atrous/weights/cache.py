"""A folder for what can be made again: the user's cache.

Nothing here is an error: what cannot be read is made again, what cannot be written is not kept.
"""

import hashlib
import os
import sys
from pathlib import Path

from atrous.files import replacing


def cache_folder() -> Path:
    """Return where this system keeps a user's caches, with our name; it may not exist.

    Raises:
        RuntimeError: the user has no home.
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "atrous"


def read_kept(name: str) -> bytes:
    """Return what `keep` wrote under `name`; nothing where it is missing or cannot be read."""
    try:
        return (cache_folder() / name).read_bytes()
    except (OSError, RuntimeError):
        return b""


def keep(name: str, content: bytes) -> bool:
    """Write `content` under `name`, in place of what was there; return whether that went well."""
    try:
        with replacing(cache_folder() / name) as temporary:
            temporary.write_bytes(content)
    except (OSError, RuntimeError):
        return False
    return True


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
