"""Low-resolution logits to full-size labels: bilinear upsampling and argmax, never the full tensor.

Equal, bit for bit, to `F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(0)`
of contiguous float32 logits on a CPU with fused multiply-add. But torch has another kernel, which
weighs the four corners at once, where H + W <= 128, for three classes and for a single logit: there
a tie but for rounding may go the other way.

Four neighbouring logit vectors span a cell of output pixels, and what is interpolated there is a
mixture of them. So a class can win in the cell only if its largest corner reaches the floor: the
best of all classes' smallest corners. Mostly one class does, and the cell is filled at once; else
those few are interpolated. In a softmax, likewise, only classes near the floor count. The loops are
C (kernels/upsample.c); `upsample_reference` says the same in NumPy, and stands in for them where
no built library fits the machine.
"""

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.kernels import in_threads, kernel, usable_cores

Labels = NDArray[np.uint8] | NDArray[np.uint16]

_STRIP_VALUES = 1 << 20
"""Interpolated values at a time in the reference: 4 MiB."""

_CLASS_BYTES = 2 * 64 + 4 + 64 + 8
"""What a thread of the kernel needs for each class."""

_VALUES_PER_THREAD = 1 << 19
"""Logits and pixels that are worth waking a thread for: it takes as long as half of them."""

_CONFIDENCE_COST = 8
"""How often as long values take with probabilities."""

_Source = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]
"""Each output row's input row before it, the one after it, and the latter's share."""


def upsample_argmax(
    logits: NDArray[np.float32], size: tuple[int, int], threads: int | None = None
) -> Labels:
    """Return the labels (H, W) of `logits` upsampled to `size`.

    Args:
        logits: (K, h, w), finite; K from 1 to 65536. With others the labels are still below K.
        size: (H, W), at any ratio to (h, w), up or down.
        threads: how many to compute in; by default as many as this process may run on.

    Returns:
        (H, W) class indices, uint8 for up to 256 classes and uint16 above. Where two classes tie
        the lower index wins.
    """
    return _upsample(logits, size, size, threads, with_confidence=False)[0]


def upsample_argmax_confidence(
    logits: NDArray[np.float32], size: tuple[int, int], threads: int | None = None
) -> tuple[Labels, NDArray[np.float32]]:
    """Return the labels (H, W) of `logits` upsampled to `size`, and how probable each is.

    Args:
        logits: (K, h, w), finite; K from 1 to 65536.
        size: (H, W), at any ratio to (h, w), up or down.
        threads: how many to compute in; by default as many as this process may run on.

    Returns:
        The labels as `upsample_argmax` gives them, and the largest value of the softmax at each
        pixel, float32 (H, W), within 2e-6 of the exact one.
    """
    return _upsample(logits, size, size, threads, with_confidence=True)


def photo_labels(
    logits: NDArray[np.float32], stride: int, size: tuple[int, int], threads: int | None = None
) -> Labels:
    """Return the labels (H, W) of the photo of `size` that a network gave `logits` (K, h, w) for.

    The network padded it at the right and at the bottom: the labels are `stride` times the logits'
    size, cropped (docs/conventions.md).
    """
    full = logits.shape[1] * stride, logits.shape[2] * stride
    return _upsample(logits, full, size, threads, with_confidence=False)[0]


def photo_labels_confidence(
    logits: NDArray[np.float32], stride: int, size: tuple[int, int], threads: int | None = None
) -> tuple[Labels, NDArray[np.float32]]:
    """Return the labels that `photo_labels` gives, and how probable each is, (H, W), 0 to 1."""
    full = logits.shape[1] * stride, logits.shape[2] * stride
    return _upsample(logits, full, size, threads, with_confidence=True)


def photo_logits(
    logits: NDArray[np.float32], stride: int, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the logits (K, H, W) whose largest `photo_labels` finds, to rounding."""
    for axis, length in enumerate(size, start=1):
        before, after, share = _source_rows(logits.shape[axis], logits.shape[axis] * stride)
        first, second = logits.take(before[:length], axis), logits.take(after[:length], axis)
        logits = first + (second - first) * share[:length].reshape(-1, *[1] * (2 - axis))
    return logits


def upsample_reference(
    logits: NDArray[np.float32], full: tuple[int, int], size: tuple[int, int]
) -> tuple[Labels, NDArray[np.float32]]:
    """Do what the kernel does in the plainest way: all classes, a strip of rows at a time.

    Args:
        logits: (K, h, w), finite.
        full: what `logits` are upsampled to.
        size: (H, W), the upper left part of it that is wanted.

    Returns:
        The labels (H, W) and their probabilities (H, W).
    """
    labels, confidence = _empty(len(logits), size), np.empty(size, np.float32)
    top, bottom, down = _source_rows(logits.shape[1], full[0])  # (H,) each
    left, right, across = _source_rows(logits.shape[2], full[1])
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


def _mix(
    first: NDArray[np.float32], second: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mix as torch does: first * (1 - share) + (second * share), the former product unrounded."""
    product = first.astype(np.float64) * (1 - share)
    return np.asarray(product + second * share, np.float32)


@lru_cache(maxsize=64)
def _source_rows(length: int, target: int) -> _Source:
    """Return each output row's input row before it, the one after it, and the latter's share."""
    if length == target:
        rows = np.arange(length, dtype=np.int32)
        return rows, rows, np.zeros(length, np.float32)
    scale = np.float32(length) / np.float32(target)
    source = np.maximum((np.arange(target, dtype=np.float32) + 0.5) * scale - 0.5, 0)
    before = np.minimum(source.astype(np.int32), length - 1)
    share = np.clip(source - before.astype(np.float32), 0, 1)
    return before, np.minimum(before + 1, length - 1), share


class _Job(ctypes.Structure):
    """What the threads share, as `Job` in kernels/upsample.c, which describes the fields.

    `held` keeps the arrays: a caller that is interrupted leaves threads that still write to them.
    """

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("logits", "labels", "confidence", "strips", "top")),
        *((name, ctypes.c_void_p) for name in ("down", "left", "across", "cells")),
        *((name, ctypes.c_int64) for name in ("classes", "height", "width", "columns")),
        *((name, ctypes.c_int64) for name in ("num_strips", "label_bytes", "next")),
        ("negligible", ctypes.c_float),
    )


def _upsample(
    logits: NDArray[np.float32],  # (K, h, w)
    full: tuple[int, int],
    size: tuple[int, int],
    threads: int | None,
    *,
    with_confidence: bool,
) -> tuple[Labels, NDArray[np.float32]]:
    """Return the upper left part, of `size`, of labels and probabilities upsampled to `full`."""
    run = kernel("upsample")
    _check(logits.shape, full, size)
    if run is None:
        return upsample_reference(logits, full, size)
    classes = len(logits)
    logits = np.require(logits, np.float32, ["C", "ALIGNED"])
    labels = _empty(classes, size)
    confidence = np.empty(size if with_confidence else (0, 0), np.float32)
    plan = _plan(logits.shape, tuple(full), tuple(size))
    job = _Job.from_buffer_copy(plan.job)
    job.held = plan, logits, labels, confidence
    job.logits, job.labels = _address(logits), _address(labels)
    if with_confidence:
        job.confidence = _address(confidence)
        # what is left out weighs less than K * exp(-negligible) = 1e-6 of the winner
        job.negligible = log(classes * 1e6)
    cost = (logits.size + labels.size) * (_CONFIDENCE_COST if with_confidence else 1)
    useful = 1 + cost // _VALUES_PER_THREAD
    threads = max(1, min(threads or usable_cores(), useful))
    memory = [np.empty(_CLASS_BYTES * classes, np.uint8) for _ in range(threads)]
    in_threads(lambda own: run(ctypes.byref(job), ctypes.c_void_p(_address(own))), memory, threads)
    return labels, confidence


def _check(shape: tuple[int, ...], full: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise ValueError where the kernel would leave its arrays."""
    if len(shape) != 3 or min(shape) < 1 or shape[0] > 1 << 16:
        raise ValueError(f"logits are {shape}; they must be (1 to 65536 classes, height, width)")
    if min(size) < 1 or size[0] > full[0] or size[1] > full[1]:
        raise ValueError(f"size is {size}; its sides must be over 0, and within {full}")


@dataclass(frozen=True)
class _Plan:
    """What is the same for all logits and labels of the same sizes."""

    job: _Job
    """Without values."""
    tables: tuple[NDArray[Any], ...]
    """What it points to."""


@lru_cache(maxsize=64)
def _plan(shape: tuple[int, ...], full: tuple[int, int], size: tuple[int, int]) -> _Plan:
    classes, height, width = shape
    top, down, strips = _row_plan(height, full[0], size[0])
    left, across, cells = _column_plan(width, full[1], size[1])
    worthwhile = full[0] * full[1] >= 4 * height * width
    job = _Job(
        strips=_address(strips),
        top=_address(top),
        down=_address(down),
        left=_address(left),
        across=_address(across),
        cells=_address(cells) if worthwhile else None,
        classes=classes,
        height=height,
        width=width,
        columns=size[1],
        num_strips=len(strips) - 1,
        label_bytes=_empty(classes, (0, 0)).itemsize,
    )
    return _Plan(job, (top, down, strips, left, across, cells))


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])  # sooner there than in array.ctypes.data


def _row_plan(
    length: int, target: int, wanted: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """Return `top` and `down` of a Job, and its strips: the rows between the same logits."""
    before, _, share = _source_rows(length, target)
    before = before[:wanted]
    strips = np.append(np.flatnonzero(np.diff(before, prepend=-1)), wanted)
    return before, share, strips.astype(np.int32)


def _column_plan(
    length: int, target: int, wanted: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
    """Return `left`, `across` and `cells` of a Job.

    What lies beyond the last pixel's centre counts to the last cell, as it mixes corners of it.
    """
    before, _, share = _source_rows(length, target)
    before = before[:wanted]
    num_cells = max(1, length - 1)
    cells = np.searchsorted(np.minimum(before, num_cells - 1), np.arange(num_cells + 1))
    return before, share, cells.astype(np.int32)


def _empty(num_classes: int, size: tuple[int, int]) -> Labels:
    return np.empty(size, np.uint8) if num_classes <= 256 else np.empty(size, np.uint16)
