"""Selection of the runtime `auto`: the fastest in `atrous bench` here, or else the default one.

Only `atrous bench` measures, since that takes seconds. Without a measurement, `auto` is the plain
runtime of a bundle, which starts fastest, and whose labels the certificate is about; and torch of a
run folder, on the GPU if torch finds CUDA. A measurement holds for one processor, GPU, model,
number of threads and set of library versions.
"""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from atrous.weights.cache import file_hash, keep, read_kept

_FILE = "runtimes.json"
_LIBRARIES = ("onnxruntime", "openvino", "torch")


def plain_runtime(path: Path) -> str:
    """Return the runtime that others are compared with, for a bundle or a run folder."""
    return "torch" if path.is_dir() else "onnxruntime"


def default_runtime(path: Path) -> str:
    """Return the runtime that scores are computed in, and that `auto` is without a measurement."""
    return "torch:cuda" if path.is_dir() and _finds_cuda() else plain_runtime(path)


def remembered(path: Path, threads: int) -> str | None:
    """Return the runtime that was measured as the fastest for this model, if there is one."""
    choices = _choices()
    return choices.get(_key(path, threads)) if choices else None


def remember(path: Path, threads: int, runtime: str) -> bool:
    """Let `auto` take `runtime` for this model from now on; return whether it could be saved."""
    choices = _choices() | {_key(path, threads): runtime}
    return keep(_FILE, json.dumps(choices, indent=2).encode())


def processor() -> str:
    """Return the processor's name, and those of GPUs."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return ", ".join([next(names, platform.processor() or platform.machine()), *_gpus()])


def _gpus() -> list[str]:
    """Return the names of NVIDIA's GPUs, which its driver lists on Linux."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for file in files for line in file.read_text("utf-8", "replace").splitlines()]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]


def versions() -> dict[str, str]:
    """Return the version of each runtime's library, "none" if it is not installed."""
    return {name: _version(name) for name in _LIBRARIES}


def _choices() -> dict[str, str]:
    try:
        choices = json.loads(read_kept(_FILE))
    except ValueError:  # missing or damaged
        return {}
    return choices if isinstance(choices, dict) else {}


def _key(path: Path, threads: int) -> str:
    """Return the conditions of a measurement, as text."""
    weights = path / "best.safetensors" if path.is_dir() else path
    libraries = [f"{name} {number}" for name, number in versions().items()]
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [] if hidden is None else [f"CUDA_VISIBLE_DEVICES={hidden}"]
    return ", ".join([processor(), *devices, f"{threads} threads", *libraries, file_hash(weights)])


def _finds_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
