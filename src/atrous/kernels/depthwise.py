"""The weight's gradient in a depthwise convolution on the CPU: depthwise.c.

torch's takes up to thirty times as long as the forward pass, which is as much arithmetic. Here the
sums are over rows first, then over these, in float32; each image and group of channels is computed
by itself, so that threads do not change a bit.
"""

import ctypes
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.kernels import Struct, call, fields, in_threads

LARGEST_KERNEL = 7
_LANES = 16
_GROUP = 16 * _LANES
"""Channels that are computed together."""


@dataclass(frozen=True)
class Geometry:
    """A square convolution; each number is the same in both directions."""

    kernel: int
    stride: int
    padding: int
    dilation: int


class _Task(Struct):
    """The argument of the C function, which documents it."""

    _fields_ = (
        *fields(ctypes.c_void_p, "grad x slope scratch"),
        *fields(ctypes.c_int32, "half height width grad_height grad_width channels"),
        *fields(ctypes.c_int32, "kernel stride padding dilation first last"),
    )


def weight_gradient(
    x: NDArray[Any],  # (B, H, W, C) float32, or int16 with the bits of bfloat16
    grad: NDArray[Any],  # (B, h, w, C) of the same type
    geometry: Geometry,
    threads: int,
) -> NDArray[np.float32]:
    """Return the gradient (C, k, k) of the weight from what was convolved and the result's."""
    images, height, width, channels = x.shape
    g, blocks = geometry, -(-channels // _LANES)
    slopes = np.empty((images, blocks, g.kernel, g.kernel, _LANES), np.float32)

    def work(piece: tuple[int, int]) -> None:
        image, first = piece
        task = _Task(
            *(grad[image], x[image], slopes[image]),
            np.empty((width + 2 * g.padding + grad.shape[2]) * _LANES, np.float32),
            x.dtype == np.int16,
            *(height, width, grad.shape[1], grad.shape[2], channels),
            *(g.kernel, g.stride, g.padding, g.dilation),
            *(first, min(first + _GROUP, channels)),
        )
        call("depthwise_weight_gradient", task)

    in_threads(work, list(product(range(images), range(0, channels, _GROUP))), threads)
    whole: NDArray[np.float32] = slopes.sum(0).transpose(0, 3, 1, 2)  # (blocks, lanes, k, k)
    return whole.reshape(-1, g.kernel, g.kernel)[:channels]
