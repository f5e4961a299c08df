"""Fully convolutional networks: FCN-32s, 16s and 8s, and the form with a dilated backbone.

Paper: Long, Shelhamer, Darrell 2015, arXiv:1411.4038, sections 3.3 and 4.2. Each stage's features
are scored by a 1x1 convolution; scores are enlarged by transposed convolutions, which begin as
bilinear interpolation, and added to those of the stage before. Departures:

- any backbone instead of VGG, whose last two convolutions (fc6 and fc7) were 7x7 and 1x1;
- all enlargements are learned; the paper keeps the last one fixed, and trains 32s, 16s and 8s one
  after the other (`Recipe.init` can do that: what is new starts at zero, as in the paper);
- an enlargement treats each class by itself: K k^2 weights instead of K^2 k^2, 0.7 M instead of
  120 M for 171 classes from stride 32 to 1. In the paper's, which start bilinear, the rest is zero;
- sizes and strides are `network.Network`'s, so that no offsets are cropped away.

`FCN` is torchvision's and mmsegmentation's: no enlargement, but 3x3 convolutions on dilated
features.
`atrous.models.catalogue.build` documents the options.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atrous.models.backbones import Backbone
from atrous.models.layers import AuxiliaryHead, Classifier, ConvNormAct, spatial_convs
from atrous.models.network import Network
from atrous.models.transposed import TransposedUpsample


class FCN(Network):
    """3x3 convolutions to a quarter of the channels, and a classifier, on dilated features.

    torchvision's has one; mmsegmentation's has two, and another one over both and the features.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        *,
        output_stride: int = 8,
        multi_grid: Sequence[int] | None = None,
        auxiliary: bool = False,
        concat_input: bool = False,
        dropout: float = 0.1,
        pretrained: bool = False,
    ) -> None:
        """Build the network."""
        super().__init__(
            Backbone(backbone, output_stride, multi_grid=multi_grid, pretrained=pretrained),
            stride=output_stride,
        )
        channels = self.backbone.channels
        width = channels[32] // 4
        self.convs = spatial_convs(1 + concat_input, channels[32], width, separable=False)
        self.merge = ConvNormAct(channels[32] + width, width, 3) if concat_input else None
        self.head = Classifier(width, num_classes, dropout)
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the convolved features, (B, C / 4, h, w) at the output stride."""
        convolved: Tensor = self.convs(features[32])
        if self.merge is not None:
            convolved = self.merge(torch.cat([features[32], convolved], dim=1))
        return convolved


class FCN32s(Network):
    """Scores of the last features, enlarged 32 times."""

    levels: tuple[int, ...] = (32,)
    """Strides of the features that are scored, deepest first."""

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        *,
        auxiliary: bool = False,
        dropout: float = 0.1,
        pretrained: bool = False,
    ) -> None:
        """Build the network."""
        super().__init__(Backbone(backbone, 32, multi_grid=None, pretrained=pretrained), stride=1)
        channels = self.backbone.channels
        self.dropout = nn.Dropout(dropout)
        self.score = nn.ModuleDict(
            {str(level): _score(channels[level], num_classes) for level in self.levels}
        )
        self.doublings = nn.ModuleList(
            TransposedUpsample(num_classes, 2) for _ in range(len(self.levels) - 1)
        )
        self.head = TransposedUpsample(num_classes, self.levels[-1])
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the fused scores, (B, K, h, w) at the last of `levels`."""
        scores: Tensor = self.score["32"](self.dropout(features[32]))
        for doubling, level in zip(self.doublings, self.levels[1:], strict=True):
            scores = doubling(scores) + self.score[str(level)](features[level])
        return scores


class FCN16s(FCN32s):
    """FCN-32s with the scores of the features at stride 16."""

    levels = (32, 16)


class FCN8s(FCN32s):
    """FCN-16s with the scores of the features at stride 8."""

    levels = (32, 16, 8)


def _score(inputs: int, num_classes: int) -> nn.Conv2d:
    """A 1x1 convolution that starts at zero, as in the paper."""
    conv = nn.Conv2d(inputs, num_classes, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
