"""Two kinds of `nn.Conv2d`: one exports better, the other trains faster on a CPU.

A built convolution can be turned into either by its class, so that a network from timm keeps its
state dict.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class StaticSameConv(nn.Conv2d):
    """TensorFlow's "same" convolution for inputs whose sides are a multiple of its stride.

    "Same" padding depends on the size in general, and would leave shape arithmetic in exported
    graphs. For such sizes it is (k - 1) d + 1 - s in all, the larger half on the right and at the
    bottom.
    """

    def forward(self, input: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H/s, W/s)
        """Pad by constants and convolve."""
        pads: list[int] = []
        for k, s, d in zip(
            self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1], strict=True
        ):
            total = max(0, (k - 1) * d + 1 - s)
            pads += [total // 2, total - total // 2]
        return convolve(self, F.pad(input, pads), padding=0)


class DepthwiseConv(nn.Conv2d):
    """A convolution of each channel by itself that trains several times faster on a CPU."""

    def forward(self, input: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H/s, W/s)
        """Convolve."""
        return convolve(self, input, padding=cast(int, self.padding[0]))


def convolve(conv: nn.Conv2d, x: Tensor, padding: int) -> Tensor:  # (B, C, H, W) -> (B, C', h, w)
    """Apply `conv` to `x`, by `_CpuDepthwise` where a depthwise `conv` trains on a CPU."""
    weight = conv.weight
    if not (conv.training and x.device.type == "cpu" and is_depthwise(conv)):
        return F.conv2d(x, weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight = x.to(dtype), weight.to(dtype)
    return cast(Tensor, _CpuDepthwise.apply(x, weight, conv.stride[0], padding, conv.dilation[0]))


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Whether `conv` treats each channel by itself, without bias, by a square kernel above 1x1."""
    k, s, d = conv.kernel_size, conv.stride, conv.dilation
    square = k[0] == k[1] > 1 and s[0] == s[1] and d[0] == d[1]
    return conv.groups == conv.in_channels == conv.out_channels and conv.bias is None and square


class _CpuDepthwise(torch.autograd.Function):
    """Depthwise convolution with a backward pass of its own.

    oneDNN's bf16 backward falls to reference code for 5x5 kernels, dilation and stride 2: 140 ms
    where the forward pass takes 1.5 (1248 channels, 22x30, one thread). The input's gradient at
    stride 1 is a forward convolution by the turned kernel; the weight's is fast in float32 and
    channels last. Together 19 ms.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, dilation
        return F.conv2d(x, weight, None, stride, padding, dilation, weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        grad_x = None
        if wants_x and stride == 1:
            whole = dilation * (weight.shape[-1] - 1)
            turned = weight.flip(2, 3)
            grad_x = F.conv2d(grad, turned, None, 1, whole - padding, dilation, weight.shape[0])
        dtype = torch.promote_types(x.dtype, torch.float32)
        wide = [t.to(dtype, memory_format=torch.channels_last) for t in (grad, x, weight)]
        wanted = [wants_x and grad_x is None, wants_weight, False]
        slow_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            *wide,
            None,
            [stride] * 2,
            [padding] * 2,
            [dilation] * 2,
            False,
            [0, 0],
            weight.shape[0],
            wanted,
        )
        if grad_x is None and slow_x is not None:
            grad_x = slow_x.to(x.dtype)
        return (
            grad_x,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None,
            None,
            None,
        )
