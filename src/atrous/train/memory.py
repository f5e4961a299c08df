"""How much memory may be taken: that of the machine, and what a container leaves of it."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_FILES = (  # of cgroups version 2 and 1: limit, use, and what of it is files that can be dropped
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(root: Path = Path("/")) -> int:
    """Return how many bytes this process may still take; more, and a container would be killed.

    Args:
        root: where /proc and /sys lie.
    """
    free: list[int] = [psutil.virtual_memory().available]
    for folder in _cgroups(root):
        for limit, use, droppable in _FILES:
            with suppress(OSError, ValueError, KeyError):  # not there, or "max": no limit
                used = int((folder / use).read_text())
                lines = (folder / "memory.stat").read_text().splitlines()
                files = int(dict(line.split() for line in lines)[droppable])
                free.append(int((folder / limit).read_text()) - used + files)
    return max(min(free), 0)


def total_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory of this machine, or of the container around this process.

    Args:
        root: where /proc and /sys lie.
    """
    limits: list[int] = [psutil.virtual_memory().total]
    for folder in _cgroups(root):
        for limit, _, _ in _FILES:
            with suppress(OSError, ValueError):
                limits.append(int((folder / limit).read_text()))
    return min(limits)


def _cgroups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's memory cgroup and of those around it, on Linux."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "memory" in controllers.split(","):
                top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
                folder = top / path.lstrip("/")
                yield from (f for f in (folder, *folder.parents) if f.is_relative_to(top))
