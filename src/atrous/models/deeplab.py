"""DeepLabV3, parallel and cascaded, and DeepLabV3+, on any backbone.

Papers: DeepLabV3 (Chen et al. 2017, arXiv:1706.05587), DeepLabV3+ (Chen et al. 2018,
arXiv:1802.02611). Departures:

- the image is padded with zeros at the right and at the bottom to a multiple of the output
  stride, and the logits are cropped to ceil(H / s) x ceil(W / s), so that any size works and cell
  (0, 0) always covers the pixels [0, s);
- the atrous rates are used as given; the papers double them at output stride 8;
- the logits stay at the network's stride: `layers.upsample` makes them as large as the image;
- an auxiliary head can be had, which the papers do without.

`atrous.models.catalogue.build` documents the options, which are the same for all.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from atrous.files import InputError
from atrous.models.backbones import Backbone, set_dilations
from atrous.models.layers import (
    ASPP,
    AuxiliaryHead,
    Classifier,
    ConvNormAct,
    crop,
    pad_image,
    resize,
    spatial_conv,
)


class Output(NamedTuple):
    """What a network returns."""

    logits: Tensor  # (B, K, ceil(H / s), ceil(W / s)), s = network.stride
    auxiliary: Tensor | None  # likewise at network.auxiliary_stride; only in training, with a head


class DeepLabV3(nn.Module):
    """DeepLabV3: an atrous spatial pyramid on the last features."""

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        *,
        output_stride: int = 16,
        atrous_rates: Sequence[int] = (6, 12, 18),
        image_pooling: bool = True,
        multi_grid: Sequence[int] | None = (1, 1, 1),
        auxiliary: bool = False,
        separable: bool = False,
        aspp_channels: int = 256,
        dropout: float = 0.1,
        pretrained: bool = False,
    ) -> None:
        """Build the network."""
        super().__init__()
        self.stride = output_stride
        self.auxiliary_stride = min(16, output_stride)
        self.backbone = Backbone(
            backbone, output_stride, multi_grid=multi_grid, pretrained=pretrained
        )
        channels = self.backbone.channels
        self.aspp = ASPP(
            channels[32],
            aspp_channels,
            atrous_rates=atrous_rates,
            image_pooling=image_pooling,
            separable=separable,
        )
        self.head = Classifier(aspp_channels, num_classes, dropout)
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def forward(self, image: Tensor) -> Output:  # (B, 3, H, W), normalised, any size
        """Return the logits at the output stride."""
        padded = pad_image(image, self.backbone.output_stride, training=self.training)
        features = self.backbone(padded)
        logits = self.head(self.aspp(features[32]))  # (B, K, h, w)
        auxiliary = None
        if self.auxiliary_head is not None and self.training:
            auxiliary = crop(self.auxiliary_head(features[16]), image, self.auxiliary_stride)
        return Output(crop(logits, image, self.stride), auxiliary)


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+: the pyramid, refined by a decoder that sees the features at stride 4."""

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        *,
        output_stride: int = 16,
        atrous_rates: Sequence[int] = (6, 12, 18),
        image_pooling: bool = True,
        multi_grid: Sequence[int] | None = (1, 1, 1),
        auxiliary: bool = False,
        separable: bool = False,
        aspp_channels: int = 256,
        decoder_channels: int = 256,
        dropout: float = 0.1,
        pretrained: bool = False,
    ) -> None:
        """Build the network."""
        super().__init__()
        self.stride = 4
        self.auxiliary_stride = min(16, output_stride)
        self.backbone = Backbone(
            backbone, output_stride, multi_grid=multi_grid, pretrained=pretrained
        )
        channels = self.backbone.channels
        self.aspp = ASPP(
            channels[32],
            aspp_channels,
            atrous_rates=atrous_rates,
            image_pooling=image_pooling,
            separable=separable,
        )
        self.reduce = ConvNormAct(channels[4], 48)
        self.decoder = nn.Sequential(
            spatial_conv(aspp_channels + 48, decoder_channels, dilation=1, separable=separable),
            spatial_conv(decoder_channels, decoder_channels, dilation=1, separable=separable),
        )
        self.head = Classifier(decoder_channels, num_classes, dropout)
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def forward(self, image: Tensor) -> Output:  # (B, 3, H, W), normalised, any size
        """Return the logits at stride 4."""
        padded = pad_image(image, self.backbone.output_stride, training=self.training)
        features = self.backbone(padded)
        low_level_features = self.reduce(features[4])  # (B, 48, h, w), h = H / 4
        context = resize(self.aspp(features[32]), self.backbone.output_stride // 4)  # (B, A, h, w)
        logits = self.head(self.decoder(torch.cat([context, low_level_features], dim=1)))
        auxiliary = None
        if self.auxiliary_head is not None and self.training:
            auxiliary = crop(self.auxiliary_head(features[16]), image, self.auxiliary_stride)
        return Output(crop(logits, image, self.stride), auxiliary)


class DeepLabV3Cascade(nn.Module):
    """DeepLabV3 with modules in cascade: blocks 5 to 7 after ResNet's four, ever more dilated.

    Each repeats block 4 and doubles the dilation of the one before, with the same multi-grid (the
    paper's best is 1, 2, 1); they start from block 4's weights.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        *,
        output_stride: int = 16,
        multi_grid: Sequence[int] | None = (1, 1, 1),
        auxiliary: bool = False,
        dropout: float = 0.1,
        pretrained: bool = False,
    ) -> None:
        """Build the network.

        Raises:
            InputError: the backbone is no ResNet.
        """
        super().__init__()
        self.stride = output_stride
        self.auxiliary_stride = min(16, output_stride)
        self.backbone = Backbone(
            backbone, output_stride, multi_grid=multi_grid, pretrained=pretrained
        )
        channels = self.backbone.channels
        self.block5 = self._next_block(backbone, 2 * 32 // output_stride, multi_grid or (1,))
        self.block6 = self._next_block(backbone, 4 * 32 // output_stride, multi_grid or (1,))
        self.block7 = self._next_block(backbone, 8 * 32 // output_stride, multi_grid or (1,))
        self.head = Classifier(channels[32], num_classes, dropout)
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def forward(self, image: Tensor) -> Output:  # (B, 3, H, W), normalised, any size
        """Return the logits at the output stride."""
        padded = pad_image(image, self.backbone.output_stride, training=self.training)
        features = self.backbone(padded)
        logits = self.head(self.block7(self.block6(self.block5(features[32]))))  # (B, K, h, w)
        auxiliary = None
        if self.auxiliary_head is not None and self.training:
            auxiliary = crop(self.auxiliary_head(features[16]), image, self.auxiliary_stride)
        return Output(crop(logits, image, self.stride), auxiliary)

    def _next_block(self, name: str, dilation: int, multi_grid: Sequence[int]) -> nn.Module:
        block4 = getattr(self.backbone.network, "layer4", None)
        if block4 is None:
            raise InputError(
                f"{name}: the cascade repeats the last block of a ResNet; take resnet50"
            )
        # the first unit of block 4 widens the features; a repetition has nothing to widen
        units = [copy.deepcopy(block4[max(i, 1)]) for i in range(len(block4))]
        block = nn.Sequential(*units)
        set_dilations(list(block.modules()), dilation, multi_grid)
        return block
