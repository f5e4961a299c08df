"""Losses and gradients of upsampled logits, with no array of the pixels' size: loss.c.

Each image is cut into bands of rows. The bands are the same on any number of threads, and so are
the bits of the result. The reference is `atrous.train.loss.strips`.
"""

import ctypes
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from atrous.kernels import Struct, call, fields, in_threads
from atrous.kernels.upsample import neighbors

BAND_ROWS = 16
"""Rows of logits in a band."""

_LANES = 16

Floats = NDArray[np.float32]


class _Band(Struct):
    """The argument of the C function, which documents the shapes."""

    _fields_ = (
        *fields(ctypes.c_void_p, "logits target kept top left down across"),
        *fields(ctypes.c_void_p, "own every dice_own dice_every"),
        *fields(ctypes.c_void_p, "losses sums gradient seam scratch"),
        *fields(ctypes.c_int32, "classes padded height width columns first last"),
    )


def sum_losses(
    logits: Floats,  # (B, h, w, K)
    target: NDArray[np.uint8],  # (B, H, W)
    stride: int,
    factors: Sequence[Floats],  # own, every, dice_own, dice_every: (K,) each
    threads: int,
    *,
    aligned: bool = False,
    kept: NDArray[np.bool_] | None = None,  # (B, H, W)
    losses: Floats | None = None,  # (B, H, W)
    gradient: Floats | None = None,  # (B, h, w, K)
    seams: Floats | None = None,  # (B, bands - 1, w, K)
) -> NDArray[np.float64]:
    """Go over all pixels, fill `losses`, `gradient` and `seams` where given, and return the sums.

    Cells that are `aligned` lie on pixels. `seams` gets each band's part of the gradient in the row
    of logits after it.

    Returns:
        (1 + 2 K,): the loss; each class's sum of probabilities over the labelled pixels; and over
        the pixels of the class.
    """
    _, height, width, classes = logits.shape
    padded = -(-classes // _LANES) * _LANES
    scale = np.float32(1 / stride)
    center = 0.0 if aligned else 0.5
    top, _, down = neighbors(target.shape[1], scale, height, center)
    left, _, across = neighbors(target.shape[2], scale, width, center)
    tables = [np.pad(factor, (0, padded - classes)) for factor in factors]
    starts = range(0, height, BAND_ROWS)
    edges = np.searchsorted(top, [*starts, height]).tolist()
    sums = np.zeros((len(target), len(starts), 1 + 2 * padded))

    def go_over(place: tuple[int, int]) -> None:
        image, band = place
        last = band == len(starts) - 1
        arguments = _Band(
            logits[image],
            target[image],
            None if kept is None else kept[image],
            *(top, left, down, across, *tables),
            None if losses is None else losses[image],
            sums[image, band],
            None if gradient is None else gradient[image],
            None if seams is None or last else seams[image, band],
            np.empty((4 * width + 2) * padded, np.float32),
            *(classes, padded, height, width, target.shape[2]),
            *edges[band : band + 2],
        )
        call("upsampled_loss", arguments)

    in_threads(go_over, list(product(range(len(target)), range(len(starts)))), threads)
    whole: NDArray[np.float64] = sums.sum((0, 1))
    return np.concatenate([whole[:1], *whole[1:].reshape(2, padded)[:, :classes]])
