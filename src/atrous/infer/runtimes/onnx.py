"""A bundle in onnxruntime, on the CPU or by another of its execution providers."""

import io
import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.infer.bundle import BundleMetadata, damaged
from atrous.infer.runtimes.base import BundleRuntime
from atrous.text import one_line, printable


@dataclass(frozen=True)
class Provider:
    """An execution provider of onnxruntime: how it computes, and on what."""

    name: str
    """The name in our runtimes, after "onnxruntime:"."""
    key: str
    """The name in onnxruntime."""
    build: str
    """How to get a build that has it."""
    needs: str
    """What it needs in addition: hardware, libraries."""


_CPU = Provider("cpu", "CPUExecutionProvider", "", "")
_GPU_BUILD = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
_CUDA = "an NVIDIA GPU with its driver, and the CUDA and cuDNN that onnxruntime-gpu was built for"

PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider("cuda", "CUDAExecutionProvider", _GPU_BUILD, _CUDA),
        Provider("tensorrt", "TensorrtExecutionProvider", _GPU_BUILD, f"{_CUDA}, and TensorRT"),
        Provider("coreml", "CoreMLExecutionProvider", "only builds for macOS have it", "macOS"),
        Provider(
            "directml",
            "DmlExecutionProvider",
            "on Windows: pip uninstall onnxruntime, then pip install onnxruntime-directml",
            "a GPU with DirectX 12",
        ),
    )
}


class OnnxRuntime(BundleRuntime):
    """A bundle in onnxruntime, on the CPU or by another of its execution providers."""

    name = "onnxruntime"

    def __init__(
        self,
        path: Path | str,
        threads: int | None = None,
        calls: int = 1,
        *,
        content: bytes | None = None,
        provider: Provider = _CPU,
    ):
        """Load the bundle at `path`; see `atrous.infer.runtimes.open.open_runtime`.

        Args:
            path: file of the bundle.
            threads: threads of all calls together.
            calls: calls at a time.
            content: content of a file that is not written yet.
            provider: what computes; nodes that it does not know run on the CPU.
        """
        super().__init__(path, threads)
        if provider is not _CPU:
            self.name = f"onnxruntime {provider.name}"
        # Each call uses its caller's thread and shares the other threads with all calls.
        self._session = self._open(provider, max(1, self.threads - calls + 1), content)
        try:
            properties = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise damaged(str(path), error) from None
        self.metadata = BundleMetadata.from_properties(properties, str(path))
        self.precision: str = self.metadata.precision

    def _open(self, provider: Provider, threads: int, content: bytes | None) -> Any:
        onnxruntime = import_onnxruntime()
        if not has_provider(provider):
            raise InputError(
                f"onnxruntime:{provider.name}: the installed onnxruntime has no {provider.key}; "
                f"{provider.build}"
            )
        problem = _preload(onnxruntime) if provider.build is _GPU_BUILD else ""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning threads would slow the threads that decode and encode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # fatal only: errors are raised
        try:
            session = onnxruntime.InferenceSession(
                self.path.read_bytes() if content is None else content,
                options,
                providers=list(dict.fromkeys([provider.key, _CPU.key])),
                enable_fallback=False,  # it prints, and tries the same again
            )
        except OSError:
            raise
        except Exception as error:  # onnxruntime's errors share no base class
            if provider is _CPU:
                raise self.load_error(error) from None
            raise InputError(
                f"{self.path}: onnxruntime:{provider.name} cannot load it ({self.reason(error)}); "
                "take onnxruntime"
            ) from None
        if provider.key not in session.get_providers():  # onnxruntime took the CPU in silence
            raise InputError(
                f"onnxruntime:{provider.name}: {provider.key} did not start "
                f"({problem or 'no reason given'}); it needs {provider.needs}"
            )
        return session

    def run(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Compute the graph's output `logits`."""
        (logits,) = self._session.run(["logits"], {"image": images})
        return np.asarray(logits)

    def reason(self, error: Exception) -> str:
        """Return the end of "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : the reason."."""
        return str(error).strip().partition("\n")[0].rpartition(" : ")[2].rstrip(".")


def has_provider(provider: Provider) -> bool:
    """Return whether the installed onnxruntime was built with an execution provider."""
    return provider.key in import_onnxruntime().get_available_providers()


def _preload(onnxruntime: Any) -> str:
    """Load CUDA and cuDNN from their packages, where they are installed; return what fails."""
    with redirect_stdout(io.StringIO()) as output:
        onnxruntime.preload_dlls()
    return printable(one_line(output.getvalue()))


def import_onnxruntime() -> Any:
    """Import onnxruntime without its telemetry.

    From 1.29 on, its import writes a device id and reports to its maker. This environment variable
    turns all of that off if it is set before the import (Privacy.md of onnxruntime).
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # takes 0.1 s

    return onnxruntime
