"""DeepLabV2: parallel atrous convolutions whose scores are summed, at several scales of the image.

Paper: Chen et al. 2016, arXiv:1606.00915, sections 3.2 (ASPP-L) and 4.1.2 (three scales, and the
largest score of any). Departures:

- sizes and strides are `network.Network`'s; the paper's output stride is 8;
- the loss in training is that of the fused scores alone; the authors' code adds the losses of each
  scale's own scores;
- no dense CRF within the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from atrous.models.backbones import Backbone
from atrous.models.network import Network
from atrous.models.pyramid import Concatenation, Maximum

__all__ = ["DeepLabV2"]


class DeepLabV2(Network):
    """Backbone, atrous convolutions to the classes, their sum, the maximum over scales."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Network.Config):
        """Options of DeepLabV2."""

        name = "deeplabv2"
        atrous_rates: tuple[int, ...] = (6, 12, 18, 24)
        fusion_scales: tuple[float, ...] = (1.0, 0.75, 0.5)
        """Scales of the image whose largest scores count, 1 first; `pyramid_scales` override."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(Backbone(config.backbone), stride=config.backbone.output_stride)
        self.num_classes = num_classes
        inputs = self.backbone.channels[32]
        self.branches = nn.ModuleList(
            _branch(inputs, num_classes, rate) for rate in config.atrous_rates
        )
        self.head = nn.Identity()
        self.fusion = Maximum(config.fusion_scales)
        self.finish(config, num_classes)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the summed scores, (B, K, h, w) at the output stride."""
        return reduce(torch.add, [branch(features[32]) for branch in self.branches])

    def add_pyramid(self, scales: Sequence[float]) -> None:
        """Concatenate the scores of several scales instead of taking their maximum."""
        self.fusion = Concatenation(self.num_classes, scales)


def _branch(inputs: int, num_classes: int, rate: int) -> nn.Conv2d:
    """An atrous convolution to the classes that starts from almost equal scores."""
    conv = nn.Conv2d(inputs, num_classes, 3, padding=rate, dilation=rate)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
