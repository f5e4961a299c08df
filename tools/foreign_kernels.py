"""Test the kernels of other systems on Linux: python tools/foreign_kernels.py [SYSTEM ...].

Each library that ships runs in an emulator, linux-aarch64 in qemu-user and win32-x86_64 in wine,
at every processor level that it has there. The tests of parity, with NumPy's and torch's references
in this process, call it through `Foreign`: the memory that a call points to is sent to a small
server beside the emulator (foreign_kernels.c), and comes back as the kernel left it. Bytes around
each piece of memory show whether a kernel writes beyond its arrays.

It needs what pip install "atrous[all]" brings, and Debian's packages of the emulators. The last
system, linux-x86_64, has none, and shows that this script itself is right.
"""

import ctypes
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import atrous.kernels
from atrous.kernels import LIBRARIES

sys.path.insert(0, str(Path(__file__).parent))
from build_kernels import LEVELS, TARGETS  # which lies beside this file

HERE = Path(__file__).parent
SYSTEMS = {
    "linux-aarch64": (["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"],
                      "qemu-user-static and libc6-arm64-cross"),
    "win32-x86_64": (["wine"], "wine and wine64"),
    "linux-x86_64": ([], ""),
}  # fmt: skip
"""The command of each system's emulator, and the Debian packages that bring it."""

TESTS = ("infer/test_upsample.py", "infer/test_crf.py", "test_draw.py",
         "train/test_upsampled_loss.py", "models/test_depthwise.py")  # fmt: skip
NATIVE = "not pydensecrf2 and not levels and not interrupted and not segmenter and not tiles"
"""Tests that ask nothing of a foreign kernel."""


class Foreign:
    """The kernels of a system at one level, called as `atrous.kernels.kernel` gives them."""

    def __init__(self, command: list[str]):
        environment = {**os.environ, "WINEDEBUG": "-all"}
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        self.highest = self._number()
        self.level, self.calls = 1, dict[str, int]()

    def kernel(self, name: str) -> Any:
        """Stand in for `atrous.kernels.kernel`."""
        return lambda *arguments: self._call(name, arguments)

    def close(self) -> None:
        """End the server."""
        self._server.communicate()

    def _read(self, count: int) -> bytes:
        assert self._server.stdout
        content = self._server.stdout.read(count)
        if len(content) != count:
            raise SystemExit(f"the server ended ({self._server.wait()})")
        return content

    def _number(self) -> int:
        return int.from_bytes(self._read(8), "little", signed=True)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> None:
        memory = _Memory(sys._getframe(2))
        sent = [_argument(memory, argument) for argument in arguments]
        pointers = list(memory.pointers())  # which finds all blocks
        out = bytearray()
        for start, content in memory.blocks:
            out += np.array([len(content), start % 64], "<i8").tobytes() + content
        full = f"{name}_v{self.level}".encode()
        numbers = [len(pointers), *(n for pointer in pointers for n in pointer), len(full)]
        out += np.array(numbers, "<i8").tobytes() + full
        out += np.array([len(sent), *(n for pair in sent for n in pair)], "<i8").tobytes()
        assert self._server.stdin
        self._server.stdin.write(len(memory.blocks).to_bytes(8, "little") + out)
        self._server.stdin.flush()
        returned = []
        for _, content in memory.blocks:
            assert self._number(), f"{name} wrote beyond its arrays"
            returned.append(bytearray(self._read(len(content))))
        for block, offset, _, _ in pointers:
            returned[block][offset : offset + 8] = memory.blocks[block][1][offset : offset + 8]
        for (start, content), new in zip(memory.blocks, returned, strict=True):
            if new != content:
                ctypes.memmove(start, bytes(new), len(new))
        self.calls[name] = self.calls.get(name, 0) + 1


class _Memory:
    """The arrays and structures in sight of a frame, and those of them that a call points to."""

    def __init__(self, frame: Any):
        self._structures: dict[int, ctypes.Structure] = {}
        ranges: list[tuple[int, int]] = []
        while frame is not None:
            if frame.f_globals["__name__"].startswith("atrous."):
                for value in frame.f_locals.values():
                    ranges += self._ranges(value, depth=5)
            frame = frame.f_back
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(ranges):
            if self._ends and start < self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)
        self.blocks: list[tuple[int, bytes]] = []
        """Address and content of what is sent."""

    def _ranges(self, value: Any, depth: int) -> Iterator[tuple[int, int]]:
        if depth == 0:
            return
        if isinstance(value, np.ndarray):
            if value.size:
                yield np.lib.array_utils.byte_bounds(value)
        elif isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            yield storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        elif isinstance(value, ctypes.Structure):
            start = ctypes.addressof(value)
            self._structures[start] = value
            yield start, start + ctypes.sizeof(value)
            yield from self._ranges(vars(value).get("held"), depth - 1)
        else:
            if dataclasses.is_dataclass(value) or isinstance(value, dict):
                value = list((value if isinstance(value, dict) else vars(value)).values())
            if isinstance(value, list | tuple):
                for each in value:
                    yield from self._ranges(each, depth - 1)

    def find(self, address: int) -> tuple[int, int]:
        """Return the block that has an address, and the place in it."""
        index = bisect_right(self._starts, address) - 1
        assert index >= 0 and address < self._ends[index], "a pointer to no array in sight"
        start = self._starts[index]
        known = [block for block, (other, _) in enumerate(self.blocks) if other == start]
        if not known:
            known = [len(self.blocks)]
            self.blocks.append((start, ctypes.string_at(start, self._ends[index] - start)))
        return known[0], address - start

    def pointers(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield each pointer within the blocks: (block, place in it, block, place in it)."""
        for block, (start, _) in enumerate(self.blocks):  # which grows as pointers are followed
            structure = self._structures.get(start)
            for name, kind in structure._fields_ if structure else ():
                if kind in (ctypes.c_int32, ctypes.c_int64, ctypes.c_float):
                    continue
                address = ctypes.cast(getattr(structure, name), ctypes.c_void_p).value
                if address:
                    yield block, getattr(type(structure), name).offset, *self.find(address)


def _argument(memory: _Memory, argument: Any) -> tuple[int, int]:
    """Return (block, place in it) of a pointer, (-1, value) of a number."""
    if isinstance(argument, ctypes.c_int64):
        return -1, argument.value
    is_pointer = isinstance(argument, ctypes.c_void_p)
    return memory.find(argument.value if is_pointer else ctypes.addressof(argument._obj))


def check(system: str) -> int:
    """Run the tests on a system's library; return how many sets of them failed, one a level."""
    emulator, _ = SYSTEMS[system]
    library = LIBRARIES / f"{system}.bin"
    path = "Z:" + str(library).replace("/", "\\") if system.startswith("win32") else str(library)
    with tempfile.TemporaryDirectory() as folder:
        server = Path(folder) / "server.exe"
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", TARGETS[system], "-O1"]
        subprocess.run([*compiler, "-o", server, HERE / "foreign_kernels.c"], check=True)
        foreign = Foreign([*emulator, str(server), path])
        atrous.kernels.kernel = foreign.kernel
        atrous.kernels.in_threads = lambda function, items, _: [function(each) for each in items]
        failed = 0
        for level in LEVELS[TARGETS[system].partition("-")[0]]:
            if level > foreign.highest:
                print(f"{system}, level {level}: not run, this processor does not have it")
                continue
            foreign.level, foreign.calls = level, {}
            tests = [str(HERE.parent / "tests" / test) for test in TESTS]
            code = pytest.main(["-q", "-p", "no:cacheprovider", "-k", NATIVE, *tests])
            calls = ", ".join(f"{name} {count}" for name, count in sorted(foreign.calls.items()))
            print(f"{system}, level {level}: {'FAILED' if code else 'passed'}; calls: {calls}")
            failed += code != 0
        foreign.close()
    return failed


def main(systems: list[str]) -> int:
    """Check the named systems, each in a process of its own; return the exit code."""
    if "--help" in systems:
        print(__doc__)
        return 0
    if unknown := [system for system in systems if system not in SYSTEMS]:
        print(f"error: {unknown[0]}: no such system; there are {', '.join(SYSTEMS)}")
        return 2
    for system in systems or SYSTEMS:
        emulator, packages = SYSTEMS[system]
        if emulator and not shutil.which(emulator[0]):
            print(f"error: {system} needs {emulator[0]}, which is not installed: {packages}")
            return 2
    if len(systems) == 1:
        return check(systems[0])
    command = [sys.executable, __file__]
    return max(subprocess.run([*command, system]).returncode for system in systems or SYSTEMS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
