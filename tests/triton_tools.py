"""Triton's kernels where there is no GPU: run in its interpreter, compiled for GPUs."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where the kernels run in `run_with_triton`."""


class Resources(NamedTuple):
    """What one thread of a compiled kernel uses."""

    registers: int
    spilled: int
    """Bytes of local memory: the stack, where ptxas also puts what it spills."""
    shared: int
    """Bytes of shared memory, of a program."""


def run_with_triton(code: str, folder: Path | None = None) -> str:
    """Run `code` in a process of its own, on the GPU or in the interpreter; return its output.

    How kernels are run is settled where Triton is imported.

    Args:
        code: Python; modules in `folder` and in tests/ can be imported.
        folder: usually that of the test.
    """
    places = [str(folder or Path(__file__).parent), str(Path(__file__).parent), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    if DEVICE == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def compile_for_gpu(
    kernel: Any,
    kinds: Mapping[str, str],
    constants: Mapping[str, Any],
    *,
    aligned: Sequence[str] = (),
    num_warps: int = 4,
    capability: int = 90,
) -> Resources:
    """Compile a kernel for a GPU, which needs none.

    Args:
        kernel: decorated by `triton.jit`.
        kinds: the type of each argument that is no "i32", such as "*fp32", "*u8", "fp32".
        constants: values of the arguments that are `tl.constexpr`.
        aligned: arguments that are multiples of 16, as pointers to tensors mostly are.
        num_warps: as at its start.
        capability: 80 for A100, 90 for H100.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler import compile as compile_for

    names = [name for name in kernel.arg_names if name not in constants]
    signature = {name: kinds.get(name, "i32") for name in names}
    signature |= dict.fromkeys(constants, "constexpr")
    hints = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, signature, dict(constants), hints)
    target = GPUTarget("cuda", capability, 32)
    compiled = compile_for(source, target=target, options={"num_warps": num_warps})
    return _resources(compiled.asm["cubin"])


def _resources(cubin: bytes) -> Resources:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [re.findall(rf"{name}:(\d+)", text)[-1] for name in ("REG", "STACK", "SHARED")]
    return Resources(*map(int, found))
