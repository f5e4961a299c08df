"""The weight's gradient in a depthwise convolution on the CPU, by a compiled loop.

torch's takes up to thirty times as long as the forward pass, which is as much arithmetic. Here the
sums are over rows first, then over these, in float32; each image and group of channels is a piece
of its own, so that threads do not change a bit.
"""

import ctypes
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from atrous.kernels import in_threads, kernel

_LARGEST_KERNEL = 7
_LANES = 16
_GROUP = 16 * _LANES
"""Channels of a piece."""


class _Task(ctypes.Structure):
    """The argument of the C function, which documents it."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("grad", "x", "slope", "scratch")),
        *((name, ctypes.c_int32) for name in ("half", "height", "width")),
        *((name, ctypes.c_int32) for name in ("grad_height", "grad_width", "channels")),
        *((name, ctypes.c_int32) for name in ("kernel", "stride", "padding", "dilation")),
        *((name, ctypes.c_int32) for name in ("first", "last")),
    )


@dataclass(frozen=True)
class Geometry:
    """Of a square convolution; each the same in both directions."""

    kernel: int
    stride: int
    padding: int
    dilation: int


def is_available(x: Tensor, geometry: Geometry) -> bool:
    """Whether the compiled loop fits this machine, `x` and the convolution.

    Not within torch.compile, which cannot look into it and makes loops of its own.
    """
    if torch.compiler.is_compiling():
        return False
    fits = x.dtype in (torch.float32, torch.bfloat16) and geometry.kernel <= _LARGEST_KERNEL
    return fits and kernel("depthwise_weight_gradient") is not None


def weight_gradient(x: Tensor, grad: Tensor, geometry: Geometry) -> Tensor:
    """Return the gradient (C, 1, k, k), float32, of the weight.

    Args:
        x: (B, C, H, W), what was convolved; float32 or bfloat16.
        grad: (B, C, h, w), the gradient of the result, of the same type.
        geometry: of the convolution.
    """
    function = kernel("depthwise_weight_gradient")
    assert function is not None and x.dtype == grad.dtype
    x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    images, channels, height, width = x.shape
    g, blocks = geometry, -(-channels // _LANES)
    slopes = np.empty((images, blocks, g.kernel, g.kernel, _LANES), np.float32)

    def work(piece: tuple[int, int]) -> None:
        image, first = piece
        scratch = np.empty((width + 2 * g.padding + grad.shape[3]) * _LANES, np.float32)
        task = _Task(
            grad[image].data_ptr(),
            x[image].data_ptr(),
            slopes[image].ctypes.data,
            scratch.ctypes.data,
            x.dtype == torch.bfloat16,
            *(height, width, grad.shape[2], grad.shape[3], channels),
            *(g.kernel, g.stride, g.padding, g.dilation),
            *(first, min(first + _GROUP, channels)),
        )
        function(ctypes.byref(task))

    pieces = product(range(images), range(0, channels, _GROUP))
    in_threads(work, list(pieces), torch.get_num_threads())
    whole = torch.from_numpy(slopes.sum(0))  # (blocks, k, k, lanes)
    return whole.permute(0, 3, 1, 2).reshape(-1, 1, g.kernel, g.kernel)[:channels]
