"""The user's cache: a folder for files that can be made again.

No failure is an error: a file that cannot be read is made again, one that cannot be written is not
kept.
"""

import hashlib
import os
import sys
from pathlib import Path

from atrous.files import replacing


def cache_folder() -> Path:
    """Return our folder in the user's cache; it may not exist. RuntimeError: no home."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "atrous"


def read_kept(name: str) -> bytes:
    """Return the content that `keep` wrote under `name`; b"" if it cannot be read."""
    try:
        return (cache_folder() / name).read_bytes()
    except (OSError, RuntimeError):
        return b""


def keep(name: str, content: bytes) -> bool:
    """Write `content` under `name`, replacing any before; return whether that succeeded."""
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
