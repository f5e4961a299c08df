"""Convolutions that export better, or run faster, than torch's.

A built `nn.Conv2d` becomes a `StaticSameConv` or a `DepthwiseConv` by a change of its class, so
that a network from timm keeps its state dict.
"""

from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from atrous import kernels
from atrous.kernels.depthwise import LARGEST_KERNEL, Geometry
from atrous.kernels.depthwise import weight_gradient as compiled_gradient
from atrous.kernels.triton import is_usable


class StaticSameConv(nn.Conv2d):
    """TensorFlow's "same" convolution for inputs whose sides are a multiple of its stride.

    "Same" padding depends on the size in general, and would leave shape arithmetic in exported
    graphs. For these sizes it is (k - 1) d + 1 - s in all, the larger half on the right and at the
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
        if runs_in_triton(input) and fits_triton(self):
            return _in_triton(self, input, pads)
        return convolve(self, F.pad(input, pads), padding=0)


class DepthwiseConv(nn.Conv2d):
    """A convolution of each channel by itself that trains several times faster."""

    def forward(self, input: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H/s, W/s)
        """Convolve."""
        return convolve(self, input, padding=cast(int, self.padding[0]))


def convolve(conv: nn.Conv2d, x: Tensor, padding: int) -> Tensor:  # (B, C, H, W) -> (B, C', h, w)
    """Apply `conv` to `x`: a depthwise `conv` by `_TritonDepthwise`, or as it trains on a CPU."""
    weight = conv.weight
    if runs_in_triton(x) and fits_triton(conv):
        return _in_triton(conv, x, [padding] * 4)
    if not (conv.training and x.device.type == "cpu" and is_depthwise(conv)):
        return F.conv2d(x, weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)
    x, weight = _autocast(x), _autocast(weight)
    return cast(Tensor, _CpuDepthwise.apply(x, weight, conv.stride[0], padding, conv.dilation[0]))


def _autocast(x: Tensor) -> Tensor:
    """Do for a custom function what autocast does for torch's."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def runs_in_triton(x: Tensor) -> bool:
    """Return whether kernels in Triton take `x`: not within torch.compile and not in an export."""
    if torch.compiler.is_compiling() or not is_usable(x.device.type):
        return False
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    return x.numel() > 0 and x.dtype in (torch.float32, torch.bfloat16, torch.float16)


def is_depthwise(conv: nn.Conv2d) -> bool:
    """Return whether `conv` is depthwise: without bias, and by a square kernel above 1x1."""
    k, s, d = conv.kernel_size, conv.stride, conv.dilation
    square = k[0] == k[1] > 1 and s[0] == s[1] and d[0] == d[1]
    return conv.groups == conv.in_channels == conv.out_channels and conv.bias is None and square


class _CpuDepthwise(torch.autograd.Function):
    """Depthwise convolution with its own backward pass.

    oneDNN's bf16 backward falls to reference code for 5x5 kernels, dilation and stride 2: 140 ms
    where the forward pass takes 1.5 (1248 channels, 22x30, one thread). Here the input's gradient
    at stride 1 is a forward convolution by the turned kernel, and that at stride 2 is torch's in
    float32, which is fast; the weight's is ours.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = Geometry(weight.shape[-1], stride, padding, dilation)
        return F.conv2d(x, weight, None, stride, padding, dilation, weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        grad_x = grad_weight = None
        if wants_x and geometry.stride == 1:
            whole = geometry.dilation * (geometry.kernel - 1)
            turned, padding = weight.flip(2, 3), whole - geometry.padding
            grad_x = F.conv2d(grad, turned, None, 1, padding, geometry.dilation, len(weight))
        elif wants_x:
            grad_x = _by_torch(x, weight, grad, geometry, of_weight=False).to(x.dtype)
        if wants_weight and has_weight_gradient(x, geometry):
            grad_weight = weight_gradient(x, grad, geometry).to(weight.dtype)
        elif wants_weight:
            grad_weight = _by_torch(x, weight, grad, geometry, of_weight=True).to(weight.dtype)
        return grad_x, grad_weight, None, None, None


def fits_triton(conv: nn.Conv2d) -> bool:
    """Return whether `conv` is a depthwise convolution that kernels in Triton compute."""
    return is_depthwise(conv) and conv.kernel_size[0] <= LARGEST_KERNEL


def _in_triton(
    conv: nn.Conv2d, x: Tensor, pads: list[int]
) -> Tensor:  # (B, C, H, W) -> (B, C, h, w)
    """Apply a depthwise `conv` with zeros at the left, at the right, above and below."""
    x, weight = _autocast(x), _autocast(conv.weight)
    return cast(
        Tensor, _TritonDepthwise.apply(x, weight, conv.stride[0], conv.dilation[0], tuple(pads))
    )


class _TritonDepthwise(torch.autograd.Function):
    """Depthwise convolution on a GPU; pads by `pads` without a copy of its input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        stride: int,
        dilation: int,
        pads: tuple[int, int, int, int],
    ) -> Tensor:
        from atrous.kernels.triton import depthwise

        left, right, top, bottom = pads
        (height, width), kernel = x.shape[2:], weight.shape[-1]
        beyond = dilation * (kernel - 1) + 1
        size = (
            (height + top + bottom - beyond) // stride + 1,
            (width + left + right - beyond) // stride + 1,
        )
        geometry = depthwise.Geometry(kernel, stride, dilation, top, left)
        x, taps = x.contiguous(memory_format=torch.channels_last), depthwise.taps_of(weight)
        ctx.save_for_backward(x, taps)
        ctx.geometry, ctx.dtype = geometry, weight.dtype
        return depthwise.convolve(x, taps, geometry, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from atrous.kernels.triton import depthwise

        x, taps = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        grad_x = grad_weight = None
        if wants_x:
            size = x.shape[2], x.shape[3]
            grad_x = depthwise.input_gradient(grad, taps, ctx.geometry, size)
        if wants_weight:
            grad_weight = depthwise.weight_gradient(x, grad, ctx.geometry, ctx.dtype)
        return grad_x, grad_weight, None, None, None


def _by_torch(
    x: Tensor, weight: Tensor, grad: Tensor, geometry: Geometry, *, of_weight: bool
) -> Tensor:
    """The gradient of `weight` or of `x`, in at least float32, where torch's code is fastest."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if not of_weight:
        x = torch.empty_like(x, dtype=dtype)  # only its shape is looked at
    wide = [t.to(dtype, memory_format=torch.channels_last) for t in (grad, x, weight)]
    g = geometry
    sides: tuple[list[int], ...] = ([g.stride] * 2, [g.padding] * 2, [g.dilation] * 2)
    wanted = [not of_weight, of_weight, False]
    grads: list[Tensor] = torch.ops.aten.convolution_backward(
        *wide, None, *sides, False, [0, 0], len(weight), wanted
    )
    return grads[of_weight]


def has_weight_gradient(x: Tensor, geometry: Geometry) -> bool:
    """Return whether the compiled loop fits this machine, `x` and the convolution.

    It does not within torch.compile, which cannot see into it and generates its own loops.
    """
    if torch.compiler.is_compiling():
        return False
    fits = x.dtype in (torch.float32, torch.bfloat16) and geometry.kernel <= LARGEST_KERNEL
    return fits and kernels.is_available("depthwise_weight_gradient")


def weight_gradient(x: Tensor, grad: Tensor, geometry: Geometry) -> Tensor:
    """Return the gradient (C, 1, k, k), float32, of the weight.

    Args:
        x: (B, C, H, W), the convolution's input; float32 or bfloat16.
        grad: (B, C, h, w), the gradient of the result, of the same type.
        geometry: of the convolution.
    """
    assert x.dtype == grad.dtype
    slope = compiled_gradient(_pixels(x), _pixels(grad), geometry, torch.get_num_threads())
    return torch.from_numpy(slope)[:, None]


def _pixels(batch: Tensor) -> NDArray[Any]:  # (B, C, H, W) -> (B, H, W, C)
    """Return a view on the values; NumPy has no bfloat16, so its bits go as int16."""
    bits = batch.view(torch.int16) if batch.dtype == torch.bfloat16 else batch
    return bits.detach().contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()


class TransposedUpsample(nn.ConvTranspose2d):
    """Learned upsampling of each channel by itself; it starts as `resize`, except at the border.

    The kernel is 2 `factor` wide (Long et al. 2015, arXiv:1411.4038); zeros lie beyond the border,
    where `resize` repeats the last cell.
    """

    def __init__(self, channels: int, factor: int) -> None:
        """Build it; `factor` is even."""
        super().__init__(
            channels, channels, 2 * factor, factor, factor // 2, groups=channels, bias=False
        )
        nearness = 1 - (torch.arange(2 * factor) + 0.5 - factor).abs() / factor  # (2 factor,)
        with torch.no_grad():
            self.weight.copy_(nearness[:, None] * nearness)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Enlarge (B, C, h, w) to (B, C, factor h, factor w)."""
        if self.training and input.device.type == "cpu" and self.stride[0] > 2:
            return enlarge(input, self.weight)
        return super().forward(input)


def enlarge(x: Tensor, weight: Tensor) -> Tensor:  # (B, C, h, w), (C, 1, 2f, 2f)
    """Return `F.conv_transpose2d(x, weight, stride=f, padding=f / 2, groups=C)`, by one product.

    The f x f pixels between the centres of four neighbouring cells follow from these four alone.
    """
    (batch, channels, height, width), factor = x.shape, weight.shape[-1] // 2
    corners = F.pad(x, (1, 1, 1, 1)).unfold(2, 2, 1).unfold(3, 2, 1)  # (B, C, h + 1, w + 1, 2, 2)
    # the upper cell contributes through the lower half of its kernel, and so on
    kernel = weight.reshape(channels, 2, factor, 2, factor).flip(1, 3).transpose(2, 3)
    blocks = corners.reshape(batch, channels, -1, 4) @ kernel.reshape(channels, 4, factor**2)
    blocks = blocks.reshape(batch, channels, height + 1, width + 1, factor, factor)
    pixels = blocks.transpose(3, 4).reshape(batch, channels, (height + 1) * factor, -1)
    inner = slice(factor // 2, -factor // 2)
    return pixels[:, :, inner, inner]  # (B, C, f h, f w)
