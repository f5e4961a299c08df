"""Low-resolution logits to full-size labels: bilinear upsampling and argmax, never the full tensor.

Equal to `F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(0)`. Four
neighbouring logit vectors span a cell of output pixels. Where all four have the same largest class,
every mixture of them has it too, and nothing needs to be interpolated: in a photo that is most of
the area. Only the pixels of the other cells are interpolated, a block at a time, so memory does not
grow with the number of classes.
"""

import numpy as np
from numpy.typing import NDArray

_BLOCK_VALUES = 1 << 16
"""Interpolated values at a time: 256 KiB, which stay in the cache of one core."""

_STRIP_VALUES = 1 << 20
"""Interpolated values at a time where all pixels are wanted: 4 MiB."""

_Source = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]
"""Each output row's input row before it, the one after it, and the latter's share."""


def upsample_argmax(
    logits: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the labels (H, W) of `logits` upsampled to `size`.

    Args:
        logits: (K, h, w), any real values; K from 1 to 65536.
        size: (H, W), at any ratio to (h, w), up or down.

    Returns:
        (H, W) class indices, uint8 for up to 256 classes and uint16 above. Where two classes tie
        the lower index wins; where they tie but for rounding, either may.
    """
    num_classes, height, width = logits.shape
    top, bottom, down = _source_rows(height, size[0])  # (H,) each
    left, right, across = _source_rows(width, size[1])  # (W,) each
    coarse = _argmax(logits)  # (h, w)
    labels = coarse.take(left, axis=1).take(top, axis=0)  # (H, W), contiguous
    mixed = np.flatnonzero(
        _disagreement(coarse).take(left, axis=1).take(top, axis=0)
    )  # (N,) flat output pixels
    vectors = np.ascontiguousarray(logits.reshape(num_classes, -1).T, np.float32)  # (h*w, K)
    block = max(1, _BLOCK_VALUES // num_classes)
    for start in range(0, len(mixed), block):
        pixels = mixed[start : start + block]
        y, x = np.divmod(pixels, size[1])
        above = _mix(vectors, top[y] * width, left[x], right[x], across[x])  # (n, K)
        below = _mix(vectors, bottom[y] * width, left[x], right[x], across[x])  # (n, K)
        below -= above
        below *= down[y, None]
        above += below
        labels.ravel()[pixels] = above.argmax(1)
    return labels


def photo_labels(
    logits: NDArray[np.float32], stride: int, size: tuple[int, int]
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the labels (H, W) of the photo of `size` that a network gave `logits` (K, h, w) for.

    The network padded it at the right and at the bottom: the labels are `stride` times the logits'
    size, cropped (docs/conventions.md).
    """
    full = logits.shape[1] * stride, logits.shape[2] * stride
    return upsample_argmax(logits, full)[: size[0], : size[1]]


def upsample_confidence(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the largest probability (H, W) of `logits` upsampled to `size`, then softmax.

    A strip of rows at a time, so memory does not grow with the number of classes.

    Args:
        logits: (K, h, w), finite.
        size: (H, W), at any ratio to (h, w), up or down.
    """
    num_classes, height, width = logits.shape
    top, bottom, down = _source_rows(height, size[0])  # (H,) each
    columns = _source_rows(width, size[1])  # (W,) each
    confidence = np.empty(size, np.float32)
    step = max(1, _STRIP_VALUES // (num_classes * size[1]))
    for start in range(0, size[0], step):
        rows = slice(start, start + step)
        strip = _interpolate(logits, (top[rows], bottom[rows], down[rows]), columns)  # (K, n, W)
        strip -= strip.max(0)
        confidence[rows] = 1 / np.exp(strip, out=strip).sum(0)
    return confidence


def photo_confidence(
    logits: NDArray[np.float32], stride: int, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return how probable the labels are that `photo_labels` gives, (H, W), 0 to 1."""
    full = logits.shape[1] * stride, logits.shape[2] * stride
    return upsample_confidence(logits, full)[: size[0], : size[1]]


def upsample_argmax_reference(
    logits: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Do what `upsample_argmax` does in the plainest way, with a full-size (K, H, W) tensor."""
    rows, columns = _source_rows(logits.shape[1], size[0]), _source_rows(logits.shape[2], size[1])
    full = _interpolate(logits, rows, columns)  # (K, H, W)
    labels: NDArray[np.intp] = full.argmax(0)
    return labels.astype(np.uint8) if len(logits) <= 256 else labels.astype(np.uint16)


def _interpolate(
    logits: NDArray[np.float32], rows: _Source, columns: _Source
) -> NDArray[np.float32]:
    """Interpolate (K, h, w) at every crossing of the n rows and m columns: (K, n, m)."""
    top, bottom, down = rows
    left, right, across = columns
    lines = logits[:, top] * (1 - down[:, None]) + logits[:, bottom] * down[:, None]  # (K, n, w)
    return np.asarray(lines[:, :, left] * (1 - across) + lines[:, :, right] * across, np.float32)


def _source_rows(length: int, target: int) -> _Source:
    """Return each output row's input row before it, the one after it, and the latter's share."""
    scale = np.float32(length) / np.float32(target)
    source = np.maximum((np.arange(target, dtype=np.float32) + 0.5) * scale - 0.5, 0)
    before = np.minimum(source.astype(np.intp), length - 1)
    share = (source - before).astype(np.float32)
    return before, np.minimum(before + 1, length - 1), share


def _argmax(logits: NDArray[np.float32]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The largest class of each (K, h, w) -> (h, w); plane by plane, which numpy is quicker at."""
    best = logits[0].copy()  # (h, w)
    winner = np.zeros(best.shape, _dtype(len(logits)))
    for index, plane in enumerate(logits[1:], start=1):
        np.copyto(winner, index, where=plane > best, casting="unsafe")
        np.maximum(best, plane, out=best)
    return winner


def _disagreement(coarse: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Whether the cell right of and below each point has differing corners, (h, w)."""
    across = np.zeros(coarse.shape, bool)
    across[:, :-1] = coarse[:, 1:] != coarse[:, :-1]
    mixed = across.copy()
    mixed[:-1] |= across[1:] | (coarse[1:] != coarse[:-1])
    return mixed


def _mix(
    vectors: NDArray[np.float32],  # (h*w, K)
    row: NDArray[np.intp],  # (n,) index of each row's first vector
    left: NDArray[np.intp],  # (n,)
    right: NDArray[np.intp],  # (n,)
    share: NDArray[np.float32],  # (n,) of the right one
) -> NDArray[np.float32]:
    """Interpolate along one row of logits: (n, K)."""
    start = vectors.take(row + left, axis=0)
    end = vectors.take(row + right, axis=0)
    end -= start
    end *= share[:, None]
    start += end
    return start


def _dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if num_classes <= 256 else np.uint16
