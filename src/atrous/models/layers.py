"""The layers that the networks are built from, and the one place where tensors change size.

ASPP is of DeepLabV3 (Chen et al. 2017, arXiv:1706.05587), its separable form of DeepLabV3+ (Chen et
al. 2018, arXiv:1802.02611). Departures: image pooling is a plain mean that is broadcast, not
resized, which is the same; `Norm` uses its running statistics where a channel holds a single value.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atrous.models.convolution import DepthwiseConv


class Norm(nn.BatchNorm2d):
    """Batch normalisation that also trains on one value per channel.

    The variance of a single value (batch of one, 1x1 features, as image pooling makes) is
    undefined, and torch raises. There, and only there, training uses the running statistics and
    leaves them as they are.
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
        conv = kind(
            inputs,
            outputs,
            kernel,
            padding=dilation * (kernel - 1) // 2,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        fan_out = kernel * kernel * outputs / groups
        nn.init.normal_(conv.weight, std=(2 / fan_out) ** 0.5)  # He et al. 2015
        super().__init__(conv, Norm(outputs), nn.ReLU(inplace=True))


class SeparableConv(nn.Sequential):
    """Atrous separable convolution: a 3x3 per channel, then a 1x1; each with norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, dilation: int = 1) -> None:
        super().__init__(
            ConvNormAct(inputs, inputs, 3, dilation=dilation, groups=inputs),
            ConvNormAct(inputs, outputs),
        )


def spatial_conv(inputs: int, outputs: int, *, dilation: int, separable: bool) -> nn.Module:
    """Return a 3x3 convolution with norm and ReLU, in the plain or the separable form."""
    if separable:
        return SeparableConv(inputs, outputs, dilation=dilation)
    return ConvNormAct(inputs, outputs, 3, dilation=dilation)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1, a 3x3 per rate and the image's mean, side by side."""

    def __init__(
        self,
        inputs: int,
        channels: int = 256,
        *,
        atrous_rates: Sequence[int] = (6, 12, 18),
        image_pooling: bool = True,
        separable: bool = False,
    ) -> None:
        """Build the branches.

        Args:
            inputs: channels of the features.
            channels: channels of each branch, and of the result.
            atrous_rates: dilation of each 3x3 branch; any number of them, each at least 1.
            image_pooling: whether the mean over the whole image is a branch.
            separable: whether the 3x3 branches are separable.
        """
        super().__init__()
        self.branches = nn.ModuleList([ConvNormAct(inputs, channels)])
        for rate in atrous_rates:
            self.branches.append(spatial_conv(inputs, channels, dilation=rate, separable=separable))
        self.image_pooling = ConvNormAct(inputs, channels) if image_pooling else None
        self.project = ConvNormAct((len(self.branches) + int(image_pooling)) * channels, channels)

    def forward(self, features: Tensor) -> Tensor:  # (B, C, h, w) -> (B, channels, h, w)
        """Return the projected pyramid, of the size of `features`."""
        pyramid = [branch(features) for branch in self.branches]
        if self.image_pooling is not None:
            pooled = self.image_pooling(features.mean((2, 3), keepdim=True))  # (B, channels, 1, 1)
            pyramid.append(pooled.expand_as(pyramid[0]))  # (B, channels, h, w)
        projected: Tensor = self.project(torch.cat(pyramid, dim=1))
        return projected


class Classifier(nn.Sequential):
    """Dropout and a 1x1 convolution to the classes; starts from almost equal logits."""

    def __init__(self, inputs: int, num_classes: int, dropout: float) -> None:
        conv = nn.Conv2d(inputs, num_classes, 1)
        nn.init.normal_(conv.weight, std=0.01)
        super().__init__(nn.Dropout(dropout), conv)


class AuxiliaryHead(nn.Sequential):
    """A classifier on the stage before the last, for an auxiliary loss (Zhao et al. 2017)."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        inner = max(inputs // 4, 64)
        super().__init__(ConvNormAct(inputs, inner, 3), Classifier(inner, num_classes, 0.1))


def pad_image(
    image: Tensor, output_stride: int, *, training: bool
) -> Tensor:  # (B, 3, H, W) -> (B, 3, H', W')
    """Pad with zeros at the right and at the bottom to the next multiple of the output stride.

    All other strides of a network divide it. A single image of one cell is made two cells wide in
    training: else the backbone's last stage would be left with one value per channel, which its
    batch normalisation cannot train on.
    """
    height, width = image.shape[-2:]
    right, bottom = -width % output_stride, -height % output_stride
    if training and image.shape[0] == 1 and max(height, width) <= output_stride:
        right += output_stride
    return F.pad(image, (0, right, 0, bottom))


def crop(logits: Tensor, image: Tensor, stride: int) -> Tensor:  # (B, K, h, w), (B, 3, H, W)
    """Keep the cells that lie on the image: (B, K, ceil(H / stride), ceil(W / stride))."""
    height, width = image.shape[-2:]
    return logits[..., : (height + stride - 1) // stride, : (width + stride - 1) // stride]


def resize(x: Tensor, factor: int) -> Tensor:  # (B, C, h, w) -> (B, C, factor h, factor w)
    """Enlarge bilinearly between pixel areas (`align_corners=False`), as everywhere in atrous."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def upsample(logits: Tensor, stride: int, size: tuple[int, int]) -> Tensor:  # (B, K, h, w)
    """Enlarge `logits` by exactly `stride`, then crop to `size`, the image's (H, W).

    Cell (0, 0) covers the pixels [0, stride), since a network pads at the right and at the bottom.
    """
    return resize(logits, stride)[..., : size[0], : size[1]]
