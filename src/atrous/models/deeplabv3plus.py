"""DeepLabV3+: DeepLabV3's pyramid, refined by a decoder that sees the features at stride 4.

Paper: Chen et al. 2018, arXiv:1802.02611, figure 2. Departures: as `deeplabv3`.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from atrous.models.backbones import Backbone
from atrous.models.layers import ASPP, Classifier, ConvNormAct, resize, resize_to
from atrous.models.network import Network

__all__ = ["DeepLabV3Plus"]

_LOW_LEVEL_CHANNELS = 48


class DeepLabV3Plus(Network):
    """Backbone, ASPP, decoder, head."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Network.Config):
        """Options of DeepLabV3+."""

        name = "deeplabv3plus"
        aspp: ASPP.Config = field(default_factory=ASPP.Config)
        """Its `separable` and `separable_norm` hold for the decoder as well."""
        decoder_channels: int = 256
        decoder_convs: int = 2
        """3x3 convolutions of the decoder."""
        align_corners: bool = False
        """Enlarge the pyramid between the centres of the corner cells, as some weights need."""
        dropout: float = 0.1
        """Probability before the classifier."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(Backbone(config.backbone), stride=4)
        channels, aspp = self.backbone.channels, config.aspp
        self.aspp = ASPP(channels[32], aspp)
        self.aspp_convs = aspp.spatial_convs(aspp.convs, aspp.channels, aspp.channels)
        self.reduce = ConvNormAct(channels[4], _LOW_LEVEL_CHANNELS)
        self.align_corners = config.align_corners
        self.decoder = aspp.spatial_convs(
            config.decoder_convs, aspp.channels + _LOW_LEVEL_CHANNELS, config.decoder_channels
        )
        self.head = Classifier(config.decoder_channels, num_classes, config.dropout)
        self.finish(config, num_classes)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the refined pyramid, (B, D, h, w) at stride 4."""
        low_level_features = self.reduce(features[4])  # (B, 48, h, w), h = H / 4
        pyramid = self.aspp_convs(self.aspp(features[32]))
        factor = self.backbone.output_stride // 4
        if self.aligned:  # h = 4 n + 1 of n + 1
            context = resize_to(pyramid, low_level_features.shape[-2:], align_corners=True)
        else:
            context = resize(pyramid, factor, align_corners=self.align_corners)  # (B, A, h, w)
        return self.decoder(torch.cat([context, low_level_features], dim=1))
