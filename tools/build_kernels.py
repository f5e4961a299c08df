"""Build src/atrous/kernels/lib for every system, on any: python tools/build_kernels.py.

The compiler is that of the package ziglang, which brings the files that each system's linker needs;
the same version of it gives the same bytes everywhere. Each .c file is compiled once per processor
level, with the level in the names of its functions.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from atrous.files import replacing
from atrous.kernels import LIBRARIES

_SOURCES = LIBRARIES.parent

TARGETS = {
    "linux-x86_64": "x86_64-linux-gnu.2.17",
    "linux-aarch64": "aarch64-linux-gnu.2.17",
    "darwin-x86_64": "x86_64-macos.11.0",
    "darwin-aarch64": "aarch64-macos.11.0",
    "win32-x86_64": "x86_64-windows-gnu",
}
"""Python's name of a system and its processor, and the compiler's."""

LEVELS = {"x86_64": {1: "x86_64", 3: "x86_64_v3", 4: "x86_64_v4"}, "aarch64": {1: "generic"}}

_LINK = {"darwin": ["-Wl,-install_name,@rpath/atrous"], "win32": ["-Wl,-Brepro"], "linux": []}
"""Flags that keep the output's path and the time of day out of a library."""

_COMPILE = [
    "-std=c11",
    "-O3",
    "-g0",
    "-fPIC",
    "-ffreestanding",
    "-fno-builtin",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-stack-protector",
    "-fno-sanitize=all",
    "-Wall",
    "-Wextra",
    "-Werror",
]


def build(folder: Path = LIBRARIES) -> None:
    """Write each system's library to `folder`."""
    for name, target in TARGETS.items():
        with tempfile.TemporaryDirectory() as objects, replacing(folder / f"{name}.bin") as path:
            files = _compile(target, Path(objects))
            linked = str(Path(objects) / "library")
            flags = ["-shared", "-nostdlib", "-s", *_LINK[name.partition("-")[0]]]
            _zig("-target", target, *flags, "-o", linked, *files)
            shutil.copyfile(linked, path)


def _compile(target: str, folder: Path) -> list[str]:
    """Compile each file for each level of the target's processor; return the object files."""
    files = []
    for source in sorted(_SOURCES.glob("*.c")):
        for level, processor in LEVELS[target.partition("-")[0]].items():
            files.append(str(folder / f"{source.stem}{level}.o"))
            flags = [*_COMPILE, f"-mcpu={processor}", f"-DLEVEL={level}"]
            _zig("-target", target, *flags, "-c", source.name, "-o", files[-1])
    return files


def _zig(*arguments: str) -> None:
    """Call the C compiler in the sources' folder, so that no path gets into its output."""
    command = [sys.executable, "-m", "ziglang", "cc", *arguments]
    subprocess.run(command, cwd=_SOURCES, check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:  # it takes no arguments, such as --help
        sys.exit(__doc__)
    build()
