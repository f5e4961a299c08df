"""PSPNet: what lies around a pixel at four scales, on any backbone.

Paper: Zhao et al. 2017, arXiv:1612.01105. Departures:

- sizes and strides are `network.Network`'s;
- `build` gives the last 3x3 convolution 256 channels unless told otherwise; the paper's has 512.

`atrous.models.catalogue.build` documents the options.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from atrous.errors import InputError
from atrous.models.backbones import Backbone
from atrous.models.layers import AuxiliaryHead, Classifier, ConvNormAct, PyramidPooling
from atrous.models.network import Network


class PSPNet(Network):
    """The last features, and their means over 1, 4, 9 and 36 parts of the image."""

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        *,
        output_stride: int = 8,
        multi_grid: Sequence[int] | None = None,
        pooled_level: int = 32,
        project_kernel: int = 3,
        align_corners: bool = False,
        head_kernel: int = 1,
        auxiliary: bool = False,
        decoder_channels: int = 512,
        dropout: float = 0.1,
        pretrained: bool = False,
    ) -> None:
        """Build the network.

        Raises:
            InputError: an auxiliary head is asked for, but the backbone ends before its features.
        """
        if auxiliary and pooled_level < 16:
            raise InputError(f"pooled level {pooled_level}: the auxiliary head needs 16 or 32")
        super().__init__(
            Backbone(
                backbone,
                output_stride,
                multi_grid=multi_grid,
                deepest=pooled_level,
                pretrained=pretrained,
            ),
            stride=min(output_stride, pooled_level),
        )
        channels = self.backbone.channels
        self.pooled_level, inputs = pooled_level, channels[pooled_level]
        self.pyramid = PyramidPooling(inputs, inputs // 4, align_corners=align_corners)
        joined = inputs + 4 * (inputs // 4)
        self.decoder = ConvNormAct(joined, decoder_channels, project_kernel)
        self.head = Classifier(decoder_channels, num_classes, dropout, head_kernel)
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the merged pyramid, (B, D, h, w) at the output stride."""
        deepest = features[self.pooled_level]  # (B, C, h, w)
        merged: Tensor = self.decoder(torch.cat([deepest, self.pyramid(deepest)], dim=1))
        return merged
