"""PSPNet: the means of the features over parts of the image, at four scales.

Paper: Zhao et al. 2017, arXiv:1612.01105, figure 3. Departures:

- sizes and strides are `network.Network`'s;
- the backbone is any;
- the last 3x3 convolution has 256 channels by default; the paper's has 512.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from atrous.models.backbones import Backbone
from atrous.models.layers import Classifier, ConvNormAct, PyramidPooling
from atrous.models.network import Network

__all__ = ["PSPNet"]


class PSPNet(Network):
    """Backbone, pyramid pooling, one convolution, head."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Network.Config):
        """Options of PSPNet."""

        name = "pspnet"
        pooled_level: int = 32
        """Stride, in the plain backbone, of the features that are pooled: 8, 16 or 32."""
        decoder_channels: int = 256
        project_kernel: int = 3
        """Size of the convolution that joins features and pyramid."""
        align_corners: bool = False
        """Enlarge the pyramid between the centres of the corner cells, as some weights need."""
        head_kernel: int = 1
        """Size of the classifier."""
        dropout: float = 0.1
        """Probability before the classifier."""

    def __init__(self, config: Config, num_classes: int) -> None:
        level = config.pooled_level
        super().__init__(
            Backbone(config.backbone, deepest=level),
            stride=min(config.backbone.output_stride, level),
        )
        self.pooled_level = level
        inputs = self.backbone.channels[level]
        width = inputs // 4
        self.pyramid = PyramidPooling(inputs, width, align_corners=config.align_corners)
        self.decoder = ConvNormAct(
            inputs + 4 * width, config.decoder_channels, config.project_kernel
        )
        self.head = Classifier(
            config.decoder_channels, num_classes, config.dropout, config.head_kernel
        )
        self.finish(config, num_classes)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the merged pyramid, (B, D, h, w) at the output stride."""
        deepest = features[self.pooled_level]  # (B, C, h, w)
        return self.decoder(torch.cat([deepest, self.pyramid(deepest)], dim=1))
