"""Runtimes: onnxruntime, OpenVINO and torch, behind one call: images -> logits.

A bundle goes to onnxruntime or OpenVINO, a run folder to torch. A runtime's name is the library's,
and behind a colon how it computes: "openvino:bf16".
"""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.infer.bundle import BundleMetadata, find_model
from atrous.infer.runtime_selection import plain_runtime, remembered
from atrous.infer.runtimes.onnx import OnnxRuntime
from atrous.infer.runtimes.openvino import OpenvinoRuntime
from atrous.infer.runtimes.torch import WAYS, TorchRuntime
from atrous.kernels import usable_cores
from atrous.text import did_you_mean

OF_BUNDLES = ("onnxruntime", "openvino", "openvino:bf16")
OF_RUNS = tuple(WAYS)

_MOST_THREADS = 1024
"""More than that and the libraries hang or end the process."""


class Runtime(Protocol):
    """Images to low-resolution logits, by whatever library."""

    name: str
    """Of the library."""
    model_name: str
    """The model as a person calls it: "camvid"."""
    threads: int
    precision: str
    """What it computes in: "fp32", "bf16", "int8", or "int8+bf16" for the float layers of int8."""
    metadata: BundleMetadata

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images (B, H, W, C) to logits (B, K, ceil(H / stride), ceil(W / stride))."""
        ...


def open_runtime(
    model: str | Path, threads: int | None = None, runtime: str = "auto", calls: int = 1
) -> Runtime:
    """Open a shipped bundle by its name, a bundle file, or a run folder.

    Args:
        model: shipped name, path of an .onnx file, or path of a run folder.
        threads: how many the computation uses; by default as many as this process may run on.
        runtime: a name of `OF_BUNDLES` or `OF_RUNS`; "auto" is what `atrous bench` found fastest
            here, or else "onnxruntime" or "torch".
        calls: how many calls the caller's own threads make at a time; they share `threads`.

    Raises:
        InputError: there is no such model or runtime, or they do not go together, or the file is no
            bundle, or the folder no run.
        ImportError: the runtime's library is not installed.
    """
    path = find_model(model)
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise InputError(f"--threads {threads}: give a number from 1 to {_MOST_THREADS}")
    threads = threads or usable_cores()
    if runtime == "auto":
        runtime = _chosen(path, threads)
    _check(runtime, path)
    if runtime in WAYS:
        return TorchRuntime(path, threads, calls, way=WAYS[runtime])
    if runtime == "onnxruntime":
        return OnnxRuntime(path, threads, calls)
    return OpenvinoRuntime(path, threads, calls, bf16=runtime == "openvino:bf16")


def runtimes_of(path: Path) -> tuple[str, ...]:
    """Return the names of those that take the bundle or the run folder `path`, plain one first."""
    return OF_RUNS if path.is_dir() else OF_BUNDLES


def _chosen(path: Path, threads: int) -> str:
    best = remembered(path, threads)
    return best if best in runtimes_of(path) else plain_runtime(path)


def _check(runtime: str, path: Path) -> None:
    """Refuse a runtime that there is not, or that does not take `path`."""
    names = ("auto", *OF_BUNDLES, *OF_RUNS)
    if runtime not in names:
        fix = did_you_mean(runtime, names)
        raise InputError(f"--runtime {runtime}: no such runtime. {fix}")
    if runtime not in runtimes_of(path):
        mend = f"make one with: atrous export {path}" if path.is_dir() else "take onnxruntime"
        takes = "a bundle, and this is a run folder" if path.is_dir() else "run folders only"
        raise InputError(f"{path}: {runtime} takes {takes}; {mend}")
