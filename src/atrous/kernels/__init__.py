"""Compiled loops: C that ships built for the common systems, and is called through ctypes.

The libraries under `lib/` are small, need no C library, and were built from the .c files beside
this one by `python -m atrous.kernels.build`; a test builds them again and compares the bytes. So
one wheel serves all systems and nobody needs a compiler. Where none fits the machine, `kernel`
returns None, and the caller goes its NumPy way.
"""

import ctypes
import os
import platform
import sys
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

LIBRARIES = Path(__file__).parent / "lib"
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}

Item = TypeVar("Item")


@cache
def kernel(name: str) -> Any | None:
    """Return the C function `name` in the variant that suits this processor best, or None.

    It is a ctypes function: set its `argtypes` once. A call releases Python's global lock.
    """
    machine = _MACHINES.get(platform.machine().lower(), "unknown")
    try:
        library = ctypes.CDLL(str(LIBRARIES / f"{sys.platform}-{machine}.bin"))
    except OSError:  # no such library, or not one for this system
        return None
    function = getattr(library, f"{name}_v{library.processor_level()}")
    function.restype = None
    return function


def in_threads(function: Callable[[Item], object], items: Iterable[Item], threads: int) -> None:
    """Call `function` with each of `items`, up to `threads` at a time, this thread among them.

    An error or an interrupt here leaves the others at work: `function` must hold what it writes to.
    """
    waiting = deque(items)

    def work() -> None:
        while True:
            try:
                item = waiting.popleft()
            except IndexError:
                return
            function(item)

    others = [_pool(threads, os.getpid()).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        if not other.cancel():  # it has started
            other.result()


def usable_cores() -> int:
    """How many processors this process may run on, which a container may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that are kept; a forked process, which inherits none, makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"atrous-{process}")
