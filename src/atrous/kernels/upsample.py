"""Labels and confidence from low-resolution logits, never the full tensor: upsample.c and NumPy.

Equal, bit for bit, to `F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(0)`
of contiguous float32 logits on a CPU with fused multiply-add. torch has another kernel, which mixes
the four corners at once, where H + W <= 128, for three classes and for a single logit: there a tie
within rounding may go to another class.

Four neighbouring logit vectors span a cell of output pixels, and each pixel's value is a mixture of
them. So a class can win in the cell only if its largest corner reaches the floor: the best of all
classes' smallest corners. Mostly one class does, and the cell is filled at once; else those few are
interpolated. In a softmax, likewise, only classes near the floor count.
"""

import ctypes
from functools import lru_cache
from math import log

import numpy as np
from numpy.typing import NDArray

from atrous.kernels import Struct, call, fields, in_threads, is_available, usable_cores

Labels = NDArray[np.uint8] | NDArray[np.uint16]

_STRIP_VALUES = 1 << 20
"""Interpolated values at a time in the reference: 4 MiB."""

_CLASS_BYTES = 2 * 64 + 4 + 64 + 8
"""Scratch memory of one thread for each class."""

_VALUES_PER_THREAD = 1 << 19
"""Logits and pixels from which a further thread pays: waking it takes as long as half of them."""

_CONFIDENCE_COST = 8
"""Time of a value with confidence, relative to one without."""


def upsample(
    logits: NDArray[np.float32],  # (K, h, w)
    full: tuple[int, int],
    size: tuple[int, int],
    threads: int | None = None,
    *,
    aligned: bool = False,
    with_confidence: bool = False,
) -> tuple[Labels, NDArray[np.float32]]:
    """Upsample `logits` to `full` and return labels and confidence of the upper left part.

    Args:
        logits: (K, h, w), finite; K from 1 to 65536. With others the labels are still below K.
        full: (height, width), at any ratio to (h, w), up or down.
        size: (H, W), at most `full`.
        threads: by default as many as this process may run on.
        aligned: logits lie on the pixels 0, s, 2 s, ... of `full`, which is s times as large; those
            after the last equal it.
        with_confidence: compute the second result, too.

    Returns:
        The classes (H, W), uint8 for up to 256 and uint16 above, the lowest where several tie; and
        the largest value of each pixel's softmax (H, W), within 2e-6, or (0, 0) if not wanted.
    """
    if logits.ndim != 3 or logits.size == 0 or len(logits) > 1 << 16:
        raise ValueError(f"logits are {logits.shape}; must be (1 to 65536 classes, height, width)")
    if min(size) < 1 or size[0] > full[0] or size[1] > full[1]:
        raise ValueError(f"size is {size}; its sides must be over 0, and within {full}")
    if not is_available("upsample"):
        return upsample_reference(logits, full, size, aligned=aligned)
    logits = np.require(logits, np.float32, ["C", "ALIGNED"])
    labels = _empty(len(logits), size)
    confidence = np.empty(size if with_confidence else (0, 0), np.float32)
    job = _job(logits, full, labels, 0.0 if aligned else 0.5)
    if with_confidence:
        job.confidence = confidence
        # The sum of the classes left out is less than K * exp(-negligible) = 1e-6 of the winner.
        job.negligible = log(len(logits) * 1e6)
    cost = (logits.size + labels.size) * (_CONFIDENCE_COST if with_confidence else 1)
    threads = max(1, min(threads or usable_cores(), 1 + cost // _VALUES_PER_THREAD))
    scratch = [np.empty(_CLASS_BYTES * len(logits), np.uint8) for _ in range(threads)]
    in_threads(lambda memory: call("upsample", job, memory), scratch, threads)
    return labels, confidence


def upsample_reference(
    logits: NDArray[np.float32],
    full: tuple[int, int],
    size: tuple[int, int],
    *,
    aligned: bool = False,
) -> tuple[Labels, NDArray[np.float32]]:
    """Do what `upsample` does with confidence, interpolating all classes, some rows at a time."""
    labels, confidence = _empty(len(logits), size), np.empty(size, np.float32)
    center = 0.0 if aligned else 0.5
    top, bottom, down = _neighbors(logits.shape[1], full[0], center)  # (height,) each
    left, right, across = _neighbors(logits.shape[2], full[1], center)
    left, right, across = left[: size[1]], right[: size[1]], across[: size[1]]
    step = max(1, _STRIP_VALUES // (len(logits) * size[1]))
    for start in range(0, size[0], step):
        rows = slice(start, min(start + step, size[0]))
        above, below = logits[:, top[rows]], logits[:, bottom[rows]]  # (K, n, w)
        upper = _mix(above[:, :, left], above[:, :, right], across)  # (K, n, W)
        lower = _mix(below[:, :, left], below[:, :, right], across)
        strip = _mix(upper, lower, down[rows, None])
        labels[rows] = strip.argmax(0)
        confidence[rows] = 1 / np.exp(strip - strip.max(0)).sum(0, np.float64)
    return labels, confidence


def interpolate(
    values: NDArray[np.float32],  # (K, h, w)
    scales: tuple[float | np.float32, float | np.float32],
    size: tuple[int, int],
    center: float = 0.5,
) -> NDArray[np.float32]:
    """Interpolate at (H, W) pixels that are `scales` cells of `values` apart, as `neighbors`."""
    for axis, (scale, count) in enumerate(zip(scales, size, strict=True), start=1):
        before, after, share = neighbors(count, scale, values.shape[axis], center)
        first, second = values.take(before, axis), values.take(after, axis)
        values = first + (second - first) * share.reshape(-1, *[1] * (2 - axis))
    return values


def neighbors(
    count: int, scale: float | np.float32, length: int, center: float = 0.5
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Return the cells around each of `count` pixels: before, after, after's share.

    Pixel i lies at (i + center) * scale - center of `length` cells, computed in the precision of
    `scale`. A center of 0.5 is the rule of `align_corners=False`; with 0, cells lie on pixels.
    """
    precision = np.result_type(scale)
    places = np.maximum((np.arange(count, dtype=precision) + center) * scale - center, 0)
    before = np.minimum(places.astype(np.int32), length - 1)
    share = np.clip(places - before.astype(precision), 0, 1)
    return before, np.minimum(before + 1, length - 1), share.astype(np.float32)


@lru_cache(maxsize=64)
def _neighbors(
    length: int, target: int, center: float
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Return `neighbors` of `length` cells that are upsampled to `target` pixels."""
    return neighbors(target, np.float32(length) / np.float32(target), length, center)


def _mix(
    first: NDArray[np.float32], second: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mix as torch does: first * (1 - share) + (second * share), the former product unrounded."""
    product = first.astype(np.float64) * (1 - share)
    return np.asarray(product + second * share, np.float32)


class _Job(Struct):
    """`Job` of upsample.c, which describes the fields."""

    _fields_ = (
        *fields(ctypes.c_void_p, "logits labels confidence strips top down left across cells"),
        *fields(ctypes.c_int64, "classes height width columns num_strips label_bytes next"),
        ("negligible", ctypes.c_float),
    )


def _job(logits: NDArray[np.float32], full: tuple[int, int], labels: Labels, center: float) -> _Job:
    classes, height, width = logits.shape
    job = _Job(logits=logits, labels=labels, classes=classes, height=height, width=width)
    job.columns, job.label_bytes = labels.shape[1], labels.itemsize
    job.top, job.down, strips = _row_plan(height, full[0], labels.shape[0], center)
    job.strips, job.num_strips = strips, len(strips) - 1
    job.left, job.across, cells = _column_plan(width, full[1], labels.shape[1], center)
    if full[0] * full[1] >= 4 * height * width:  # else looking for candidates does not pay
        job.cells = cells
    return job


@lru_cache(maxsize=64)
def _row_plan(
    length: int, target: int, wanted: int, center: float
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """Return `top` and `down` of a Job, and its strips: the rows between the same logits."""
    before, _, share = _neighbors(length, target, center)
    before = before[:wanted]
    strips = np.append(np.flatnonzero(np.diff(before, prepend=-1)), wanted)
    return before, share, strips.astype(np.int32)


@lru_cache(maxsize=64)
def _column_plan(
    length: int, target: int, wanted: int, center: float
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """Return `left`, `across` and `cells` of a Job.

    Pixels beyond the last cell's centre belong to the last cell, whose corners they mix.
    """
    before, _, share = _neighbors(length, target, center)
    before = before[:wanted]
    num_cells = max(1, length - 1)
    cells = np.searchsorted(np.minimum(before, num_cells - 1), np.arange(num_cells + 1))
    return before, share, cells.astype(np.int32)


def _empty(num_classes: int, size: tuple[int, int]) -> Labels:
    return np.empty(size, np.uint8) if num_classes <= 256 else np.empty(size, np.uint16)
