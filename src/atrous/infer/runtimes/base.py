"""The interface of all runtimes, images -> logits or labels, and the base class for bundles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.infer.bundle import BundleMetadata
from atrous.infer.upsample import Labels, logits_to_labels, logits_to_labels_confidence
from atrous.kernels import usable_cores

Labelled = tuple[Labels, NDArray[np.float32] | None]
"""Labels of images, and their probabilities if these were asked for, (B, H, W) each."""


class Runtime(Protocol):
    """Images to low-resolution logits, by any library; a subclass may label on its device."""

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

    def label(
        self,
        images: NDArray[np.uint8],
        threads: int | None = None,
        *,
        with_confidence: bool = False,
    ) -> Labelled:
        """Return the labels of images (B, H, W, C).

        Args:
            images: all of one size.
            threads: for the upsampling, where it runs on the CPU.
            with_confidence: return the probability of each label, too.
        """
        return label_logits(
            self(images),
            self.metadata.stride,
            images,
            threads,
            aligned=self.metadata.aligned,
            with_confidence=with_confidence,
        )

    def batch_size(self, size: tuple[int, int]) -> int:
        """Return how many images of `size` (H, W) to label at a time; small images have the most.

        It depends on nothing else, so that the labels of an image do not either.
        """
        return 1


def label_logits(
    logits: NDArray[np.float32],  # (B, K, h, w)
    stride: int,
    images: NDArray[np.uint8],  # (B, H, W, C)
    threads: int | None = None,
    *,
    aligned: bool = False,
    with_confidence: bool = False,
) -> Labelled:
    """Return the labels of `images` from their logits, on the CPU."""
    rest = stride, (images.shape[1], images.shape[2]), threads
    if not with_confidence:
        labels = [logits_to_labels(each, *rest, aligned=aligned) for each in logits]
        return stacked(labels), None
    pairs = [logits_to_labels_confidence(each, *rest, aligned=aligned) for each in logits]
    return stacked([labels for labels, _ in pairs]), stacked([sure for _, sure in pairs])


def stacked(arrays: Sequence[NDArray[Any]]) -> Any:
    """Return arrays of one shape as one array; a single one is not copied."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


class BundleRuntime(Runtime):
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
