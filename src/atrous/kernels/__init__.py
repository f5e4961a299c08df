"""C loops, built for the common systems and called through ctypes, each beside its Python.

The libraries under `lib/` are small, need no C library and no compiler, and are built from the .c
files by tools/build_kernels.py; a test builds them again and compares the bytes. Each loop has one
Python module with the ctypes glue and, where a user's machine may need it, a NumPy reference, which
runs where no library fits the machine.
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

import numpy as np
from numpy.typing import NDArray

LIBRARIES = Path(__file__).parent / "lib"
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}

Item = TypeVar("Item")


class Struct(ctypes.Structure):
    """A C struct whose pointers are set to arrays, or None.

    It keeps the arrays in `held`: an interrupted caller leaves threads that still write to them.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray):
            self.__dict__.setdefault("held", {})[name] = value
            value = _address(value)
        super().__setattr__(name, value)


def fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    """Return `names`, separated by blanks, as fields of a `Struct` of one C type."""
    return [(name, kind) for name in names.split()]


def call(name: str, *arguments: Struct | NDArray[Any] | int) -> None:
    """Call the C function `name`; structs and arrays go as pointers, ints as int64.

    The call releases Python's global lock.
    """
    function = kernel(name)
    assert function is not None, f"no library for this machine: {name}"
    function(*map(_argument, arguments))


def is_available(name: str) -> bool:
    """Return whether a library for this machine has the C function `name`."""
    return kernel(name) is not None


def _argument(value: Struct | NDArray[Any] | int) -> Any:
    if isinstance(value, Struct):
        return ctypes.byref(value)
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(_address(value))
    return ctypes.c_int64(value)


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])  # faster than array.ctypes.data


@cache
def kernel(name: str) -> Any | None:
    """Return the C function `name` for this processor's level, or None without a library."""
    machine = _MACHINES.get(platform.machine().lower(), "unknown")
    try:
        library = ctypes.CDLL(str(LIBRARIES / f"{sys.platform}-{machine}.bin"))
    except OSError:  # no such library, or not one for this system
        return None
    function = getattr(library, f"{name}_v{library.processor_level()}")
    function.restype = None
    return function


def in_threads(function: Callable[[Item], object], items: Iterable[Item], threads: int) -> None:
    """Call `function` with each of `items` in up to `threads` threads, this one among them.

    An error or an interrupt here leaves the others at work: `function` must keep what it writes to.
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
    """Return the number of processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return threads that are kept; a forked process, which inherits none, makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"atrous-{process}")
