"""Runtimes: onnxruntime for a bundle, torch for a run folder, behind one call: images -> logits."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atrous.files import InputError
from atrous.infer.bundle import BundleMetadata, find_model


class Runtime(Protocol):
    """Images to low-resolution logits, by whatever library."""

    name: str
    """Of the library."""
    model_name: str
    """The model as a person calls it: "camvid"."""
    threads: int
    metadata: BundleMetadata

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map sRGB images (B, H, W, 3) to logits (B, K, ceil(H / stride), ceil(W / stride))."""
        ...


def open_runtime(model: str | Path, threads: int | None = None) -> Runtime:
    """Open a shipped bundle by its name, a bundle file, or a run folder.

    Args:
        model: shipped name, path of an .onnx file, or path of a run folder.
        threads: how many the computation uses; by default as many as this process may run on.

    Raises:
        InputError: there is no such model, or the file is no bundle, or the folder no run.
    """
    path = find_model(model)
    return TorchRuntime(path, threads) if path.is_dir() else OnnxRuntime(path, threads)


class OnnxRuntime:
    """A bundle in onnxruntime, on the CPU."""

    name = "onnxruntime"

    def __init__(self, path: Path | str, threads: int | None = None):
        """Load the bundle at `path`.

        Raises:
            InputError: `path` is not an atrous bundle.
        """
        # 0.1 s that `atrous --help` shall not pay
        import onnxruntime

        self.model_name = Path(path).stem
        self.threads = threads or usable_cores()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 4  # what goes wrong is raised; the rest is noise to a user
        try:
            self._session = onnxruntime.InferenceSession(
                Path(path).read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except OSError:
            raise
        except Exception as error:  # onnxruntime's errors share no base of their own
            raise InputError(
                f"{path}: onnxruntime cannot load it ({_reason(error)}); "
                "give a bundle that atrous export wrote"
            ) from None
        properties = self._session.get_modelmeta().custom_metadata_map
        self.metadata = BundleMetadata.from_properties(properties, str(path))

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map sRGB images (B, H, W, 3) to logits (B, K, ceil(H / stride), ceil(W / stride))."""
        assert images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3
        (logits,) = self._session.run(["logits"], {"image": images})
        return np.asarray(logits, np.float32)


class TorchRuntime:
    """The best weights of a run folder, in eager torch, on the CPU."""

    name = "torch"

    def __init__(self, run_folder: Path | str, threads: int | None = None):
        """Load the run.

        Raises:
            InputError: the folder holds no finished run.
        """
        if not (Path(run_folder) / "run.json").is_file():
            raise InputError(f"{run_folder}: no run folder: it holds no run.json")
        # torch is not part of the core install
        import torch

        from atrous.models.runs import load_run

        run = load_run(Path(run_folder))
        self.model_name = Path(run_folder).resolve().name
        self.threads = threads or usable_cores()
        torch.set_num_threads(self.threads)
        self._network = run.network
        self.metadata = BundleMetadata.from_run(run.run, stride=run.network.stride)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map sRGB images (B, H, W, 3) to logits (B, K, ceil(H / stride), ceil(W / stride))."""
        import torch

        with torch.inference_mode():
            logits = self._network(torch.from_numpy(np.ascontiguousarray(images)))
        return np.asarray(logits, np.float32)


def usable_cores() -> int:
    """How many processors this process may run on, which a container may have limited."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _reason(error: Exception) -> str:
    """Take the reason out of "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : the reason."."""
    return str(error).strip().partition("\n")[0].rpartition(" : ")[2].rstrip(".")
