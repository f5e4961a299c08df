"""Fully convolutional networks: FCN-32s, 16s and 8s, and the form with a dilated backbone.

Paper: Long, Shelhamer, Darrell 2015, arXiv:1411.4038, sections 3.3 and 4.2. Each stage's features
are scored by a 1x1 convolution; scores are enlarged by transposed convolutions, which start as
bilinear interpolation, and added to those of the stage before. Departures:

- any backbone instead of VGG, whose last two convolutions (fc6 and fc7) were 7x7 and 1x1;
- all enlargements are learned; the paper keeps the last one fixed, and trains 32s, 16s and 8s one
  after the other (`Recipe.init` can do that: what is new starts at zero, as in the paper);
- an enlargement treats each class by itself: K k^2 weights instead of K^2 k^2, 0.7 M instead of
  120 M for 171 classes from stride 32 to 1. In the paper's, which start bilinear, the rest is zero;
- sizes and strides are `network.Network`'s, so that no offsets are cropped away.

`FCN` is torchvision's and mmsegmentation's: no enlargement, but 3x3 convolutions on dilated
features.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from atrous.models.backbones import Backbone
from atrous.models.convolution import TransposedUpsample
from atrous.models.layers import Classifier, ConvNormAct
from atrous.models.network import Network

__all__ = ["FCN", "FCN8s", "FCN16s", "FCN32s"]


class FCN(Network):
    """Dilated backbone, 3x3 convolutions to a quarter of the channels, head."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Network.Config):
        """Options of FCN."""

        name = "fcn"
        concat_input: bool = False
        """mmsegmentation's form: two convolutions, and a third over their result and the input;
        torchvision's has one."""
        dropout: float = 0.1
        """Probability before the classifier."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(Backbone(config.backbone), stride=config.backbone.output_stride)
        inputs, concat = self.backbone.channels[32], config.concat_input
        width = inputs // 4
        widths = pairwise([inputs] + [width] * (2 if concat else 1))
        self.convs = nn.Sequential(*(ConvNormAct(a, b, 3) for a, b in widths))
        self.merge = ConvNormAct(inputs + width, width, 3) if concat else None
        self.head = Classifier(width, num_classes, config.dropout)
        self.finish(config, num_classes)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the convolved features, (B, C / 4, h, w) at the output stride."""
        convolved = self.convs(features[32])
        if self.merge is not None:
            convolved = self.merge(torch.cat([features[32], convolved], dim=1))
        return convolved


class FCN32s(Network):
    """Backbone, scores of the last features, enlarged 32 times."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Network.Config):
        """Options of FCN-32s, 16s and 8s; the backbone's output stride is 32."""

        name = "fcn32s"
        dropout: float = 0.1
        """Probability before the scores of the last features."""

    levels: tuple[int, ...] = (32,)
    """Strides of the features that are scored, deepest first."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(Backbone(config.backbone), stride=1)
        channels = self.backbone.channels
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.ModuleDict(
            {str(level): _score(channels[level], num_classes) for level in self.levels}
        )
        self.doublings = nn.ModuleList(
            TransposedUpsample(num_classes, 2) for _ in range(len(self.levels) - 1)
        )
        self.head = TransposedUpsample(num_classes, self.levels[-1])
        self.finish(config, num_classes)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the fused scores, (B, K, h, w) at the last of `levels`."""
        scores = self.score["32"](self.dropout(features[32]))
        for doubling, level in zip(self.doublings, self.levels[1:], strict=True):
            scores = doubling(scores) + self.score[str(level)](features[level])
        return scores


class FCN16s(FCN32s):
    """FCN-32s with the scores of the features at stride 16."""

    @dataclass(frozen=True, kw_only=True)
    class Config(FCN32s.Config):
        """Options of FCN-16s."""

        name = "fcn16s"

    levels = (32, 16)


class FCN8s(FCN32s):
    """FCN-16s with the scores of the features at stride 8."""

    @dataclass(frozen=True, kw_only=True)
    class Config(FCN32s.Config):
        """Options of FCN-8s."""

        name = "fcn8s"

    levels = (32, 16, 8)


def _score(inputs: int, num_classes: int) -> nn.Conv2d:
    """A 1x1 convolution that starts at zero, as in the paper."""
    conv = nn.Conv2d(inputs, num_classes, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
