"""A bundle in onnxruntime, on the CPU."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.infer.bundle import BundleMetadata, checked_logits, damaged
from atrous.kernels import usable_cores


class OnnxRuntime:
    """A bundle in onnxruntime, on the CPU."""

    name = "onnxruntime"

    def __init__(self, path: Path | str, threads: int | None = None, calls: int = 1):
        """Load the bundle at `path`; see `atrous.infer.runtimes.open.open_runtime`.

        Raises:
            InputError: `path` is not an atrous bundle.
        """
        onnxruntime = import_onnxruntime()
        self.model_name = Path(path).stem
        self.threads = threads or usable_cores()
        options = onnxruntime.SessionOptions()
        # Each call computes in its caller's thread, too, and all calls share the other threads.
        options.intra_op_num_threads = max(1, self.threads - calls + 1)
        # Threads that spin on after their work take the time of those that decode and encode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what goes wrong is raised; the rest is noise to a user
        try:
            self._session = onnxruntime.InferenceSession(
                Path(path).read_bytes(),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=False,  # which prints, and tries the same again
            )
        except OSError:
            raise
        except Exception as error:  # onnxruntime's errors share no base of their own
            raise InputError(
                f"{path}: onnxruntime cannot load it ({_reason(error)}); "
                "give a bundle that atrous export wrote"
            ) from None
        try:
            properties = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise damaged(str(path), error) from None
        self._path = str(path)
        self.metadata = BundleMetadata.from_properties(properties, self._path)
        self.precision: str = self.metadata.precision

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images (B, H, W, C) to logits (B, K, ceil(H / stride), ceil(W / stride))."""
        assert images.dtype == np.uint8 and images.ndim == 4
        try:
            (logits,) = self._session.run(["logits"], {"image": images})
        except Exception as error:  # onnxruntime's errors share no base of their own
            height, width = images.shape[1:3]
            raise InputError(
                f"{self._path}: onnxruntime cannot run it on {width}x{height} pixels "
                f"({_reason(error)}); export the bundle again"
            ) from None
        return checked_logits(logits, images, self.metadata, self._path)


def import_onnxruntime() -> Any:
    """Import onnxruntime without its telemetry.

    From 1.29 on, it writes a device id and reports to its maker as soon as it is imported. This
    variable, set before, is the one full way out that its Privacy.md names.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # 0.1 s that `atrous --help` shall not pay
    import onnxruntime

    return onnxruntime


def _reason(error: Exception) -> str:
    """Take the reason out of "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : the reason."."""
    return str(error).strip().partition("\n")[0].rpartition(" : ")[2].rstrip(".")
