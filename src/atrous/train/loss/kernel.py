"""What `strips` computes, by a compiled loop on the CPU, with no tensor of the pixels' size.

Each image is cut into bands of rows. The bands are the same on any number of threads, and so are
the bits of the result.
"""

import ctypes
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from atrous.kernels import in_threads, kernel
from atrous.train.loss.strips import Batch, Factors

_LANES = 16
_BAND_ROWS = 16
"""Rows of logits in a band."""


class _Band(ctypes.Structure):
    """The argument of the C function, which documents the shapes."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("logits", "target", "kept")),
        *((name, ctypes.c_void_p) for name in ("top", "left", "down", "across")),
        *((name, ctypes.c_void_p) for name in ("own", "every", "dice_own", "dice_every")),
        *((name, ctypes.c_void_p) for name in ("losses", "sums", "gradient", "seam", "scratch")),
        *((name, ctypes.c_int32) for name in ("classes", "padded", "height", "width")),
        *((name, ctypes.c_int32) for name in ("columns", "first", "last")),
    )


def is_available() -> bool:
    """Whether there is a compiled loop for this machine."""
    return kernel("upsampled_loss") is not None


def measure(batch: Batch, factors: Factors) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `strips.measure` does."""
    losses = batch.logits.new_zeros(batch.target.shape)
    _, probabilities, common = _run(batch, factors, losses=losses)
    return losses, probabilities, common


def differentiate(batch: Batch, factors: Factors, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Do what `strips.differentiate` does; the gradient is channels-last."""
    images, classes, height, width = batch.logits.shape
    gradient = batch.logits.new_zeros(images, height, width, classes)
    seams = batch.logits.new_zeros(images, (height - 1) // _BAND_ROWS, width, classes)
    loss, _, _ = _run(batch, factors, kept, gradient=gradient, seams=seams)
    inner = gradient[:, _BAND_ROWS::_BAND_ROWS]  # the rows that two bands have a share in
    inner += seams
    return loss, gradient.permute(0, 3, 1, 2)


def _run(
    batch: Batch,
    factors: Factors,
    kept: Tensor | None = None,
    *,
    losses: Tensor | None = None,
    gradient: Tensor | None = None,
    seams: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Go over all pixels; fill what is given; return the three sums, float64."""
    _, classes, height, width = batch.logits.shape
    padded = -(-classes // _LANES) * _LANES
    logits = batch.logits.permute(0, 2, 3, 1).contiguous()  # (B, h, w, K)
    target = batch.target.contiguous()
    top, down = _source(target.shape[1], batch.stride, height)
    left, across = _source(target.shape[2], batch.stride, width)
    tables = [
        F.pad(table, (0, padded - classes))
        for table in (factors.own, factors.every, factors.dice_own, factors.dice_every)
    ]
    starts = range(0, height, _BAND_ROWS)
    edges = np.searchsorted(top, [*starts, height]).tolist()
    sums = np.zeros((len(target), len(starts), 1 + 2 * padded))
    function = kernel("upsampled_loss")
    assert function is not None

    def go_over(place: tuple[int, int]) -> None:
        image, band = place
        scratch = np.empty((4 * width + 2) * padded, np.float32)
        arguments = _Band(
            logits[image].data_ptr(),
            target[image].data_ptr(),
            _address(kept, image),
            *(table.ctypes.data for table in (top, left, down, across)),
            *(table.data_ptr() for table in tables),
            _address(losses, image),
            sums[image, band].ctypes.data,
            _address(gradient, image),
            None if band == len(starts) - 1 else _address(seams, image, band),
            scratch.ctypes.data,
            *(classes, padded, height, width, target.shape[2]),
            *edges[band : band + 2],
        )
        function(ctypes.byref(arguments))

    bands = product(range(len(target)), range(len(starts)))
    in_threads(go_over, list(bands), torch.get_num_threads())
    whole = torch.from_numpy(sums.sum((0, 1)))
    probabilities, common = whole[1:].reshape(2, padded)[:, :classes]
    return whole[0], probabilities, common


def _address(tensor: Tensor | None, *index: int) -> int | None:
    return None if tensor is None else tensor[index].data_ptr()


def _source(pixels: int, stride: int, cells: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The cell before each pixel's centre, and the share of the next one."""
    source = (np.arange(pixels, dtype=np.float32) + 0.5) * np.float32(1 / stride) - 0.5
    before = np.clip(source, 0, cells - 1).astype(np.int32)
    return before, np.maximum(source, 0, dtype=np.float32) - before.astype(np.float32)
