"""The layers of the networks, and the one place where tensors are resized.

ASPP is of DeepLabV3 (Chen et al. 2017, arXiv:1706.05587), its separable form of DeepLabV3+ (Chen et
al. 2018, arXiv:1802.02611). Departures: image pooling is a plain mean that is broadcast, not
resized, with equal results; `Norm` uses its running statistics where a channel holds a single
value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from atrous.models.convolution import DepthwiseConv, TransposedUpsample, runs_in_triton
from atrous.models.normalization import FusedNorm, fused, is_fusible


class Norm(FusedNorm):
    """Batch normalisation that also trains on one value per channel.

    The variance of a single value (batch of one, 1x1 features, as after image pooling) is
    undefined, and torch raises. In this case alone, training uses the running statistics and
    leaves them unchanged.
    """

    def forward(self, input: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h, w)
        """Normalise `input`."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch normalisation, ReLU; the size is kept."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, *, dilation: int = 1, groups: int = 1
    ) -> None:
        kind = DepthwiseConv if groups == inputs == outputs else nn.Conv2d
        padding = dilation * (kernel - 1) // 2
        conv = kind(inputs, outputs, kernel, 1, padding, dilation, groups, bias=False)
        fan_out = kernel * kernel * outputs / groups
        nn.init.normal_(conv.weight, std=(2 / fan_out) ** 0.5)  # He et al. 2015
        super().__init__(conv, Norm(outputs), nn.ReLU(inplace=True))

    def forward(self, input: Tensor) -> Tensor:  # (B, C, h, w) -> (B, D, h, w)
        """Convolve, normalise and activate; the latter two as one where that is possible."""
        conv, norm, act = self
        x = conv(input)
        if isinstance(norm, Norm) and is_fusible(norm, act, x):
            return fused(norm, act, x)
        return act(norm(x))


class SeparableConv(nn.Sequential):
    """Atrous separable convolution: a 3x3 per channel, then a 1x1; each with norm and ReLU.

    Without `norm`, the first has neither, as in segmentation_models.pytorch.
    """

    def __init__(self, inputs: int, outputs: int, *, dilation: int = 1, norm: bool = True) -> None:
        depthwise = ConvNormAct(inputs, inputs, 3, dilation=dilation, groups=inputs)
        super().__init__(depthwise if norm else depthwise[0], ConvNormAct(inputs, outputs))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1, a 3x3 per rate and the image's mean, concatenated."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options of an ASPP."""

        channels: int = 256
        """Channels of each branch, and of the result."""
        atrous_rates: tuple[int, ...] = (6, 12, 18)
        """Dilation of each 3x3 branch; any number of them, each at least 1."""
        pointwise_branch: bool = True
        """Begin with a 1x1 branch."""
        atrous_branches: bool = True
        """Have the 3x3 branches."""
        image_pooling: bool = True
        """Add a branch for the mean over the whole image."""
        separable: bool = False
        """Make the 3x3 convolutions separable."""
        separable_norm: bool = True
        """Give these norm and ReLU after their first convolution, too."""
        project_kernel: int = 1
        """Size of the convolution that joins the branches; odd."""
        convs: int = 0
        """3x3 convolutions that follow the ASPP; torchvision's DeepLabV3 has one."""

        def spatial_conv(self, inputs: int, outputs: int, dilation: int = 1) -> nn.Module:
            """Return a 3x3 convolution with norm and ReLU, plain or separable."""
            if self.separable:
                return SeparableConv(inputs, outputs, dilation=dilation, norm=self.separable_norm)
            return ConvNormAct(inputs, outputs, 3, dilation=dilation)

        def spatial_convs(self, count: int, inputs: int, outputs: int) -> nn.Sequential:
            """Return `count` of `spatial_conv`, one after the other."""
            pairs = pairwise([inputs] + [outputs] * count)
            return nn.Sequential(*(self.spatial_conv(a, b) for a, b in pairs))

    def __init__(self, inputs: int, config: Config) -> None:
        """Build the branches on features of `inputs` channels."""
        super().__init__()
        width = config.channels
        self.branches = nn.ModuleList()
        if config.pointwise_branch:
            self.branches.append(ConvNormAct(inputs, width))
        for rate in config.atrous_rates if config.atrous_branches else ():
            self.branches.append(config.spatial_conv(inputs, width, rate))
        self.image_pooling = ConvNormAct(inputs, width) if config.image_pooling else None
        pyramid = (len(self.branches) + int(config.image_pooling)) * width
        self.project = ConvNormAct(pyramid, width, config.project_kernel)

    def forward(self, features: Tensor) -> Tensor:  # (B, C, h, w) -> (B, channels, h, w)
        """Return the projected pyramid, of the size of `features`."""
        pyramid = [branch(features) for branch in self.branches]
        if self.image_pooling is not None:
            pooled = self.image_pooling(features.mean((2, 3), keepdim=True))  # (B, channels, 1, 1)
            pyramid.append(pooled.expand_as(pyramid[0]))  # (B, channels, h, w)
        return self.project(torch.cat(pyramid, dim=1))


class PyramidPooling(nn.Module):
    """The means over 1, 4, 9 and 36 parts of the image, concatenated (Zhao et al. 2017)."""

    bins = (1, 2, 3, 6)

    def __init__(self, inputs: int, channels: int, *, align_corners: bool = False) -> None:
        """Build a 1x1 convolution with norm and ReLU, to `channels`, for each of `bins`."""
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList([ConvNormAct(inputs, channels) for _ in self.bins])

    def forward(self, features: Tensor) -> Tensor:  # (B, C, h, w) -> (B, 4 channels, h, w)
        """Return the pyramid, of the size of `features`."""
        pooled = [
            branch(mean_of_parts(features, n))  # (B, channels, n, n)
            for n, branch in zip(self.bins, self.branches, strict=True)
        ]
        size = features.shape[-2:]
        return torch.cat([resize_to(x, size, align_corners=self.align_corners) for x in pooled], 1)


Upsampling = Literal["bilinear", "transposed", "nearest"]


def upsampler(channels: int, factor: int, upsampling: Upsampling) -> nn.Module:
    """Return a module that enlarges (B, channels, h, w) by `factor`, which is 1 or even."""
    if factor == 1:
        return nn.Identity()
    if upsampling == "transposed":
        return TransposedUpsample(channels, factor)
    kind = BilinearUpsample if upsampling == "bilinear" else nn.Upsample
    return kind(scale_factor=float(factor), mode=upsampling)


class BilinearUpsample(nn.Upsample):
    """`resize` as a module."""

    def forward(self, input: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, factor h, factor w)
        """Enlarge `input`."""
        return resize(input, cast(float, self.scale_factor))


class Classifier(nn.Sequential):
    """Dropout and a convolution to the classes, 1x1 by default; starts from almost equal logits."""

    def __init__(self, inputs: int, num_classes: int, dropout: float, kernel: int = 1) -> None:
        conv = nn.Conv2d(inputs, num_classes, kernel, padding=kernel // 2)
        nn.init.normal_(conv.weight, std=0.01)
        super().__init__(nn.Dropout(dropout), conv)


class AuxiliaryHead(nn.Sequential):
    """A classifier on features of the backbone, for an auxiliary loss (Zhao et al. 2017)."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        inner = max(inputs // 4, 64)
        super().__init__(ConvNormAct(inputs, inner, 3), Classifier(inner, num_classes, 0.1))


def pad_image(
    image: Tensor, output_stride: int, *, training: bool, aligned: bool = False
) -> Tensor:  # (B, 3, H, W) -> (B, 3, H', W')
    """Pad with zeros at the right and at the bottom to the next multiple of the output stride.

    All other strides of a network divide it. Where cells are `aligned`, lie on pixels, it is one
    pixel more, so that the last one lies on the last pixel. A single image of one cell is made two
    cells wide in training: with one value per channel, the batch normalisation of the backbone's
    last stage cannot train.
    """
    height, width = image.shape[-2:]
    more = int(aligned)
    right, bottom = (more - width) % output_stride, (more - height) % output_stride
    one_cell = 1 if aligned else output_stride
    if training and image.shape[0] == 1 and max(height, width) <= one_cell:
        right += output_stride
    return F.pad(image, (0, right, 0, bottom))


def crop(logits: Tensor, image: Tensor, stride: int) -> Tensor:  # (B, K, h, w), (B, 3, H, W)
    """Keep the cells that lie on the image: (B, K, ceil(H / stride), ceil(W / stride))."""
    height, width = image.shape[-2:]
    return logits[..., : (height + stride - 1) // stride, : (width + stride - 1) // stride]


def resize(
    x: Tensor, factor: float, *, align_corners: bool = False
) -> Tensor:  # (B, C, h, w) -> (B, C, factor h, factor w)
    """Resize bilinearly between pixel areas; `align_corners` is for weights trained with it."""
    if runs_in_triton(x):
        return cast(Tensor, _Resize.apply(x, None, float(factor), align_corners))
    return F.interpolate(
        x, scale_factor=float(factor), mode="bilinear", align_corners=align_corners
    )


def resize_to(
    x: Tensor, size: Sequence[int], *, align_corners: bool = False
) -> Tensor:  # (B, C, h, w) -> (B, C, *size)
    """As `resize`, to any size."""
    if runs_in_triton(x):
        return cast(Tensor, _Resize.apply(x, list(size), None, align_corners))
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=align_corners)


class _Resize(torch.autograd.Function):
    """`F.interpolate` with a deterministic backward pass in Triton.

    torch's forward pass is taken below `F.interpolate`, which under deterministic algorithms would
    replace it by many small operations.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, size: list[int] | None, factor: float | None, align_corners: bool
    ) -> Tensor:
        factors = None if factor is None else [factor, factor]
        result: Tensor = torch.ops.aten.upsample_bilinear2d.vec(x, size, align_corners, factors)
        ctx.size, ctx.align_corners = (x.shape[2], x.shape[3]), align_corners
        if align_corners:
            pairs = zip(x.shape[2:], result.shape[2:], strict=True)
            ctx.scales = tuple((cells - 1) / max(pixels - 1, 1) for cells, pixels in pairs)
        elif factor is not None:
            ctx.scales = 1 / factor, 1 / factor
        else:
            ctx.scales = x.shape[2] / result.shape[2], x.shape[3] / result.shape[3]
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from atrous.kernels.triton.resize import resize_gradient

        grad = grad.contiguous(memory_format=torch.channels_last)
        grad = resize_gradient(grad, ctx.size, ctx.scales, align_corners=ctx.align_corners)
        return grad, None, None, None


def upsample_nearest(
    x: Tensor, factor: int
) -> Tensor:  # (B, C, h, w) -> (B, C, factor h, factor w)
    """Enlarge by repeating each cell."""
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")


def mean_of_parts(x: Tensor, parts: int) -> Tensor:  # (B, C, h, w) -> (B, C, parts, parts)
    """As `F.adaptive_avg_pool2d`, by two matrix products, which export at a free size."""
    height, width = x.shape[-2:]
    return _shares(height, parts, x) @ x @ _shares(width, parts, x).mT


def _shares(length: int, parts: int, like: Tensor) -> Tensor:
    """The weight of each of `length` cells in the mean of each part, (parts, length).

    A part takes every cell that it overlaps.
    """
    part = torch.arange(parts, device=like.device)[:, None] * length  # in 1 / parts of a cell
    cell = torch.arange(length, device=like.device) * parts
    overlaps = (cell < part + length) & (cell + parts > part)
    weights = overlaps.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


def upsample(
    logits: Tensor, stride: int, size: tuple[int, int], *, aligned: bool = False
) -> Tensor:  # (B, K, h, w) -> (B, K, *size)
    """Enlarge `logits` by exactly `stride`, then crop to `size`, the image's (H, W).

    Cell (0, 0) covers the pixels [0, stride): a network pads at the right and at the bottom.
    `aligned` cells lie on the pixels 0, stride, 2 stride, ...; pixels after the last equal it.
    """
    if not aligned:
        return resize(logits, stride)[..., : size[0], : size[1]]
    between = [(cells - 1) * stride + 1 for cells in logits.shape[-2:]]
    full = resize_to(logits, between, align_corners=True)
    return F.pad(full, (0, stride - 1) * 2, mode="replicate")[..., : size[0], : size[1]]
