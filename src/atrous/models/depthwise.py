"""The weight's gradient in a depthwise convolution on the CPU, by a compiled loop."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous import kernels
from atrous.kernels.depthwise import LARGEST_KERNEL, Geometry
from atrous.kernels.depthwise import weight_gradient as compiled_gradient


def is_available(x: Tensor, geometry: Geometry) -> bool:
    """Return whether the compiled loop fits this machine, `x` and the convolution.

    It does not within torch.compile, which cannot look into it and makes loops of its own.
    """
    if torch.compiler.is_compiling():
        return False
    fits = x.dtype in (torch.float32, torch.bfloat16) and geometry.kernel <= LARGEST_KERNEL
    return fits and kernels.is_available("depthwise_weight_gradient")


def weight_gradient(x: Tensor, grad: Tensor, geometry: Geometry) -> Tensor:
    """Return the gradient (C, 1, k, k), float32, of the weight.

    Args:
        x: (B, C, H, W), what was convolved; float32 or bfloat16.
        grad: (B, C, h, w), the gradient of the result, of the same type.
        geometry: of the convolution.
    """
    assert x.dtype == grad.dtype
    threads = torch.get_num_threads()
    slope = compiled_gradient(_pixels(x), _pixels(grad), geometry, threads)
    return torch.from_numpy(slope)[:, None]


def _pixels(batch: Tensor) -> NDArray[Any]:  # (B, C, H, W) -> (B, H, W, C)
    """Return a view on the values; NumPy has no bfloat16, so its bits go as int16."""
    bits = batch.view(torch.int16) if batch.dtype == torch.bfloat16 else batch
    return bits.detach().contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()
