"""The runtimes by name: onnxruntime, OpenVINO and torch.

onnxruntime and OpenVINO load bundles, torch loads run folders. A name is that of the library; its
arithmetic or device may follow a colon: "openvino:bf16", "onnxruntime:cuda".
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from atrous.errors import InputError
from atrous.infer.runtime_selection import default_runtime, remembered
from atrous.infer.runtimes.base import Runtime
from atrous.infer.runtimes.onnx import PROVIDERS, OnnxRuntime, has_provider
from atrous.infer.runtimes.openvino import OpenvinoRuntime
from atrous.infer.runtimes.torch import MODES, TorchRuntime
from atrous.kernels import usable_cores
from atrous.text import did_you_mean
from atrous.weights.hub import shown_name

_BUNDLES: dict[str, Callable[[Path, int, int], Runtime]] = {
    "onnxruntime": OnnxRuntime,
    **{
        f"onnxruntime:{name}": partial(OnnxRuntime, provider=provider)
        for name, provider in PROVIDERS.items()
    },
    "openvino": OpenvinoRuntime,
    "openvino:bf16": partial(OpenvinoRuntime, bf16=True),
}
_RUNS = {name: partial(TorchRuntime, mode=mode) for name, mode in MODES.items()}

OF_BUNDLES, OF_RUNS = tuple(_BUNDLES), tuple(_RUNS)

_MAX_THREADS = 1024
"""Larger numbers make the libraries hang or end the process."""


def open_runtime(
    path: Path, threads: int | None = None, runtime: str = "auto", calls: int = 1
) -> Runtime:
    """Open a bundle file or a run folder.

    Args:
        path: an existing .onnx file or run folder, as `weights.hub.resolve` returns it.
        threads: by default as many as this process may run on.
        runtime: a name of `OF_BUNDLES` or `OF_RUNS`; "auto" is the fastest that `atrous bench`
            found here, or else "onnxruntime", and for run folders "torch:cuda" where torch finds
            CUDA and "torch" elsewhere.
        calls: calls at a time from the caller's threads; they share `threads`.
    """
    if threads is not None and not 1 <= threads <= _MAX_THREADS:
        raise InputError(f"--threads {threads}: give a number from 1 to {_MAX_THREADS}")
    threads = threads or usable_cores()
    if runtime == "auto":
        best = remembered(path, threads)
        runtime = best if best in runtimes_of(path) else default_runtime(path)
    check_name(runtime, ("auto", *OF_BUNDLES, *OF_RUNS))
    if runtime not in runtimes_of(path):
        fix = f"make one with: atrous export {path}" if path.is_dir() else "take onnxruntime"
        takes = "a bundle, and this is a run folder" if path.is_dir() else "run folders only"
        raise InputError(f"{shown_name(path)}: {runtime} takes {takes}; {fix}")
    return (_BUNDLES | _RUNS)[runtime](path, threads, calls)


def runtimes_of(path: Path) -> tuple[str, ...]:
    """Return the runtimes for the bundle or the run folder `path`, the plain one first."""
    return OF_RUNS if path.is_dir() else OF_BUNDLES


def installed_runtimes_of(path: Path) -> tuple[str, ...]:
    """Return those of `runtimes_of` that this system and its build of onnxruntime support."""
    foreign = "torch:cuda" if sys.platform == "darwin" else "torch:mps"

    def is_supported(name: str) -> bool:
        provider = PROVIDERS.get(name.removeprefix("onnxruntime:"))
        return not name.startswith(foreign) and (provider is None or has_provider(provider))

    return tuple(filter(is_supported, runtimes_of(path)))


def check_name(runtime: str, names: Sequence[str]) -> None:
    """Refuse a runtime that does not exist."""
    if runtime not in names:
        raise InputError(f"--runtime {runtime}: no such runtime. {did_you_mean(runtime, names)}")
