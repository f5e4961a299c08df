"""Low-resolution logits to full-size labels: bilinear upsampling by the network's stride, argmax.

The computation is `atrous.kernels.upsample`, which says what it equals and how.
"""

import numpy as np
from numpy.typing import NDArray

from atrous.kernels.upsample import Labels, interpolate, upsample

__all__ = [
    "Labels",
    "logits_to_labels",
    "logits_to_labels_confidence",
    "upsample_argmax",
    "upsample_argmax_confidence",
    "upsample_logits",
]


def upsample_argmax(
    logits: NDArray[np.float32], size: tuple[int, int], threads: int | None = None
) -> Labels:
    """Return the labels (H, W) of `logits` upsampled to `size`.

    Args:
        logits: (K, h, w), finite; K from 1 to 65536.
        size: (H, W), at any ratio to (h, w), up or down.
        threads: by default as many as this process may run on.

    Returns:
        (H, W) class indices, uint8 for up to 256 classes and uint16 above. Where two classes tie
        the lower index wins.
    """
    return upsample(logits, size, size, threads)[0]


def upsample_argmax_confidence(
    logits: NDArray[np.float32], size: tuple[int, int], threads: int | None = None
) -> tuple[Labels, NDArray[np.float32]]:
    """Return the labels of `upsample_argmax` and the largest value of each pixel's softmax.

    The latter is float32 (H, W), within 2e-6 of the exact value.
    """
    return upsample(logits, size, size, threads, with_confidence=True)


def logits_to_labels(
    logits: NDArray[np.float32],
    stride: int,
    size: tuple[int, int],
    threads: int | None = None,
    *,
    aligned: bool = False,
) -> Labels:
    """Return the labels (H, W) of an image of `size` from a network's `logits` (K, h, w).

    The network padded the image at the right and at the bottom: the labels are `stride` times the
    logits' size, cropped (docs/conventions.md, which has `aligned`, too).
    """
    return upsample(logits, _full(logits, stride), size, threads, aligned=aligned)[0]


def logits_to_labels_confidence(
    logits: NDArray[np.float32],
    stride: int,
    size: tuple[int, int],
    threads: int | None = None,
    *,
    aligned: bool = False,
) -> tuple[Labels, NDArray[np.float32]]:
    """Return the labels of `logits_to_labels` and the largest value of each pixel's softmax."""
    full = _full(logits, stride)
    return upsample(logits, full, size, threads, aligned=aligned, with_confidence=True)


def upsample_logits(
    logits: NDArray[np.float32], stride: int, size: tuple[int, int], *, aligned: bool = False
) -> NDArray[np.float32]:
    """Return the logits (K, H, W) whose argmax `logits_to_labels` finds, to rounding."""
    scale = np.float32(1 / stride)
    return interpolate(logits, (scale, scale), size, 0.0 if aligned else 0.5)


def _full(logits: NDArray[np.float32], stride: int) -> tuple[int, int]:
    return logits.shape[1] * stride, logits.shape[2] * stride
