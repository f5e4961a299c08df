"""The interface of all runtimes, images -> logits, and the base class of those of bundles."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.infer.bundle import BundleMetadata
from atrous.kernels import usable_cores


class Runtime(Protocol):
    """Images to low-resolution logits, by any library."""

    name: str
    """The name of the library."""
    model_name: str
    """The name of the model for people: "camvid"."""
    threads: int
    precision: str
    """Precision of the computation: "fp32", "bf16", "int8", "int8+bf16" (float layers in bf16)."""
    metadata: BundleMetadata

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images (B, H, W, C) to logits (B, K, ceil(H / stride), ceil(W / stride))."""
        ...


class BundleRuntime:
    """A bundle in a library, which a subclass calls in `run`."""

    name: str
    metadata: BundleMetadata

    def __init__(self, path: Path | str, threads: int | None):
        self.path = Path(path)
        self.model_name = self.path.stem
        self.threads = threads or usable_cores()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images (B, H, W, C) to logits (B, K, ceil(H / stride), ceil(W / stride))."""
        assert images.dtype == np.uint8 and images.ndim == 4
        batch, height, width, _ = images.shape
        try:
            logits = self.run(images)
        except Exception as error:  # the libraries' errors share no base
            raise InputError(
                f"{self.path}: {self.name} cannot run it on {width}x{height} pixels "
                f"({self.reason(error)}); export the bundle again"
            ) from None
        stride, classes = self.metadata.stride, self.metadata.taxonomy.num_classes
        promised = (batch, classes, -(-height // stride), -(-width // stride))
        if logits.shape != promised:
            raise InputError(
                f"{self.path}: its graph gives logits {logits.shape}, where its metadata promise "
                f"{promised}; export the bundle again"
            )
        return np.asarray(logits, np.float32)

    def run(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Compute the graph's output `logits`."""
        raise NotImplementedError

    def reason(self, error: Exception) -> str:
        """Return the reason within a message of the library."""
        raise NotImplementedError

    def load_error(self, error: Exception) -> InputError:
        """Return the error for a file that the library cannot load."""
        return InputError(
            f"{self.path}: {self.name} cannot load it ({self.reason(error)}); "
            "give a bundle that atrous export wrote"
        )
