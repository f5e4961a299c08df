"""Variants of timm's networks by other projects, which the weights of these projects need.

Parameters and their names stay timm's; padding and the places of strides change. No variant is
better than timm's network.
"""

from collections.abc import Callable
from typing import Any

from timm.models._efficientnet_blocks import InvertedResidual
from torch import Tensor, nn
from torch.nn import functional as F

from atrous.models.convolution import StaticSameConv


def make_variant(network: nn.Module, name: str) -> None:
    """Change a timm network, already dilated, into the variant `name` of `catalogue.VARIANTS`."""
    _CHANGES[name.rpartition("_")[2]](network)


def _caffe(network: Any) -> None:
    """He et al.'s ResNet in Caffe: strides on a unit's first 1x1, a pooling that rounds up."""
    network.maxpool.ceil_mode = True
    for unit in network.modules():
        if hasattr(unit, "conv3"):
            unit.conv1.stride, unit.conv2.stride = unit.conv2.stride, unit.conv1.stride


def _padded_first(network: Any) -> None:
    """VainF's MobileNetV2: units pad before they expand, the stem at the far sides alone."""
    network.conv_stem.__class__ = StaticSameConv
    for unit in network.modules():
        if isinstance(unit, InvertedResidual):
            unit.conv_dw.padding = (0, 0)
            unit.__class__ = PaddedFirst


class PaddedFirst(InvertedResidual):
    """An inverted residual whose border is what the expansion makes of zeros, instead of zeros."""

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C', h / stride, w / stride)
        """Expand, filter each channel, and reduce."""
        margin: int = self.conv_dw.dilation[0]
        expanded = self.bn1(self.conv_pw(F.pad(x, (margin,) * 4)))
        reduced: Tensor = self.bn3(self.conv_pwl(self.bn2(self.conv_dw(expanded))))
        return reduced + x if self.has_skip else reduced


_CHANGES: dict[str, Callable[[Any], None]] = {"caffe": _caffe, "vainf": _padded_first}
"""By the last word of a variant's name."""
