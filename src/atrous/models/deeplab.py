"""DeepLabV3, parallel and cascaded, and DeepLabV3+, on any backbone.

Papers: DeepLabV3 (Chen et al. 2017, arXiv:1706.05587), DeepLabV3+ (Chen et al. 2018,
arXiv:1802.02611). Departures:

- sizes and strides are `network.Network`'s;
- the atrous rates are used as given; the papers double them at output stride 8;
- an auxiliary head can be had, which the papers do without.

`atrous.models.catalogue.build` documents the options, which are the same for all.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atrous.files import InputError
from atrous.models.backbones import Backbone, set_dilations
from atrous.models.layers import (
    ASPP,
    AuxiliaryHead,
    Classifier,
    ConvNormAct,
    resize,
    spatial_conv,
)
from atrous.models.network import Network


class DeepLabV3(Network):
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
        super().__init__(
            Backbone(backbone, output_stride, multi_grid=multi_grid, pretrained=pretrained),
            stride=output_stride,
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

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the pyramid, (B, A, h, w) at the output stride."""
        pyramid: Tensor = self.aspp(features[32])
        return pyramid


class DeepLabV3Plus(Network):
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
        super().__init__(
            Backbone(backbone, output_stride, multi_grid=multi_grid, pretrained=pretrained),
            stride=4,
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

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the refined pyramid, (B, D, h, w) at stride 4."""
        low_level_features = self.reduce(features[4])  # (B, 48, h, w), h = H / 4
        context = resize(self.aspp(features[32]), self.backbone.output_stride // 4)  # (B, A, h, w)
        refined: Tensor = self.decoder(torch.cat([context, low_level_features], dim=1))
        return refined


class DeepLabV3Cascade(Network):
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
        super().__init__(
            Backbone(backbone, output_stride, multi_grid=multi_grid, pretrained=pretrained),
            stride=output_stride,
        )
        channels = self.backbone.channels
        self.block5 = self._next_block(backbone, 2 * 32 // output_stride, multi_grid or (1,))
        self.block6 = self._next_block(backbone, 4 * 32 // output_stride, multi_grid or (1,))
        self.block7 = self._next_block(backbone, 8 * 32 // output_stride, multi_grid or (1,))
        self.head = Classifier(channels[32], num_classes, dropout)
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return block 7's features, (B, C, h, w) at the output stride."""
        deepest: Tensor = self.block7(self.block6(self.block5(features[32])))
        return deepest

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
