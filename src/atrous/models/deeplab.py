"""DeepLabV3, parallel and cascaded, and DeepLabV3+, on any backbone.

Papers: DeepLabV3 (Chen et al. 2017, arXiv:1706.05587), DeepLabV3+ (Chen et al. 2018,
arXiv:1802.02611). Departures:

- sizes and strides are `network.Network`'s;
- the atrous rates are used as given; the papers double them at output stride 8;
- an auxiliary head can be had, which the papers do without.

`atrous.models.catalogue.build` documents the options, which are the same for all.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from atrous.models.backbones import Backbone
from atrous.models.cascade import repeated_stage
from atrous.models.layers import ASPP, AuxiliaryHead, Classifier, ConvNormAct, resize, spatial_convs
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
        multi_grid: Sequence[int] | None = None,
        auxiliary: bool = False,
        separable: bool = False,
        separable_norm: bool = True,
        aspp_channels: int = 256,
        aspp_convs: int = 0,
        project_kernel: int = 1,
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
            separable_norm=separable_norm,
            project_kernel=project_kernel,
        )
        self.aspp_convs = spatial_convs(
            aspp_convs, aspp_channels, aspp_channels, separable=separable, norm=separable_norm
        )
        self.head = Classifier(aspp_channels, num_classes, dropout)
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the pyramid, (B, A, h, w) at the output stride."""
        pyramid: Tensor = self.aspp_convs(self.aspp(features[32]))
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
        multi_grid: Sequence[int] | None = None,
        auxiliary: bool = False,
        separable: bool = False,
        separable_norm: bool = True,
        aspp_channels: int = 256,
        aspp_convs: int = 0,
        project_kernel: int = 1,
        decoder_channels: int = 256,
        decoder_convs: int = 2,
        align_corners: bool = False,
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
            separable_norm=separable_norm,
            project_kernel=project_kernel,
        )
        self.aspp_convs = spatial_convs(
            aspp_convs, aspp_channels, aspp_channels, separable=separable, norm=separable_norm
        )
        self.reduce = ConvNormAct(channels[4], 48)
        self.align_corners = align_corners
        self.decoder = spatial_convs(
            decoder_convs,
            aspp_channels + 48,
            decoder_channels,
            separable=separable,
            norm=separable_norm,
        )
        self.head = Classifier(decoder_channels, num_classes, dropout)
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the refined pyramid, (B, D, h, w) at stride 4."""
        low_level_features = self.reduce(features[4])  # (B, 48, h, w), h = H / 4
        pyramid = self.aspp_convs(self.aspp(features[32]))
        factor = self.backbone.output_stride // 4
        context = resize(pyramid, factor, align_corners=self.align_corners)  # (B, A, h, w)
        refined: Tensor = self.decoder(torch.cat([context, low_level_features], dim=1))
        return refined


class DeepLabV3Cascade(Network):
    """DeepLabV3 with modules in cascade: blocks 5 to 7 after the last stage, ever more dilated.

    Each repeats the last stage (ResNet's block 4) and doubles the dilation of the one before, with
    the same multi-grid (the paper's best is 1, 2, 1); they start from that stage's weights.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        *,
        output_stride: int = 16,
        multi_grid: Sequence[int] | None = None,
        auxiliary: bool = False,
        dropout: float = 0.1,
        pretrained: bool = False,
    ) -> None:
        """Build the network.

        Raises:
            InputError: the backbone's last stage cannot be repeated.
        """
        super().__init__(
            Backbone(backbone, output_stride, multi_grid=multi_grid, pretrained=pretrained),
            stride=output_stride,
        )
        channels = self.backbone.channels
        base, grid = 32 // output_stride, multi_grid or (1,)
        self.block5 = repeated_stage(self.backbone, 2 * base, grid)
        self.block6 = repeated_stage(self.backbone, 4 * base, grid)
        self.block7 = repeated_stage(self.backbone, 8 * base, grid)
        self.head = Classifier(channels[32], num_classes, dropout)
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return block 7's features, (B, C, h, w) at the output stride."""
        deepest: Tensor = self.block7(self.block6(self.block5(features[32])))
        return deepest
