"""A bundle in onnxruntime, on the CPU."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.infer.bundle import BundleMetadata, damaged
from atrous.infer.runtimes.base import BundleRuntime


class OnnxRuntime(BundleRuntime):
    """A bundle in onnxruntime, on the CPU."""

    name = "onnxruntime"

    def __init__(
        self,
        path: Path | str,
        threads: int | None = None,
        calls: int = 1,
        *,
        content: bytes | None = None,
    ):
        """Load the bundle at `path`; see `atrous.infer.runtimes.open.open_runtime`.

        Args:
            path: file of the bundle.
            threads: threads of all calls together.
            calls: calls at a time.
            content: content of a file that is not written yet.
        """
        super().__init__(path, threads)
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        # Each call uses its caller's thread and shares the other threads with all calls.
        options.intra_op_num_threads = max(1, self.threads - calls + 1)
        # Spinning threads would slow the threads that decode and encode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # fatal only: errors are raised
        try:
            self._session = onnxruntime.InferenceSession(
                self.path.read_bytes() if content is None else content,
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=False,  # it prints, and tries the same again
            )
        except OSError:
            raise
        except Exception as error:  # onnxruntime's errors share no base class
            raise self.load_error(error) from None
        try:
            properties = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise damaged(str(path), error) from None
        self.metadata = BundleMetadata.from_properties(properties, str(path))
        self.precision: str = self.metadata.precision

    def run(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Compute the graph's output `logits`."""
        (logits,) = self._session.run(["logits"], {"image": images})
        return np.asarray(logits)

    def reason(self, error: Exception) -> str:
        """Return the end of "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : the reason."."""
        return str(error).strip().partition("\n")[0].rpartition(" : ")[2].rstrip(".")


def import_onnxruntime() -> Any:
    """Import onnxruntime without its telemetry.

    From 1.29 on, its import writes a device id and reports to its maker. This environment variable
    turns all of that off if it is set before the import (Privacy.md of onnxruntime).
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # takes 0.1 s

    return onnxruntime
