"""DeepLabV3's cascade: the backbone's last stage three times more, ever more dilated.

Paper: Chen et al. 2017, arXiv:1706.05587, section 3.2 and figure 3. Blocks 5 to 7 repeat ResNet's
block 4; each doubles the dilation of the one before, with the same multi-grid (the paper's best is
1, 2, 1). They start from block 4's weights. Departures: as `deeplabv3`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from atrous.errors import InputError
from atrous.models.backbones import Backbone, set_dilations
from atrous.models.layers import Classifier
from atrous.models.network import Network

__all__ = ["DeepLabV3Cascade", "repeated_stages"]


class DeepLabV3Cascade(Network):
    """Backbone, three more blocks, head."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Network.Config):
        """Options of the cascade."""

        name = "deeplabv3_cascade"
        dropout: float = 0.1
        """Probability before the classifier."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(Backbone(config.backbone), stride=config.backbone.output_stride)
        self.multi_grid = config.backbone.multi_grid or (1,)
        self.backbone_loaded()
        self.head = Classifier(self.backbone.channels[32], num_classes, config.dropout)
        self.finish(config, num_classes)

    def backbone_loaded(self) -> None:
        """Build blocks 5 to 7 from the last stage as it is now."""
        blocks = repeated_stages(self.backbone, 3, self.multi_grid)
        self.block5, self.block6, self.block7 = blocks

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return block 7's features, (B, C, h, w) at the output stride."""
        return self.block7(self.block6(self.block5(features[32])))


class Residual(nn.Sequential):
    """Modules whose result is added to their input."""

    def forward(self, input: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h, w)
        """Return the sum."""
        return input + super().forward(input)  # type: ignore[no-untyped-call]


def repeated_stages(
    backbone: Backbone, count: int, multi_grid: Sequence[int]
) -> list[nn.Sequential]:
    """Copy the last stage of `backbone` `count` times, to follow it at the same size.

    Each copy, (B, C, h, w) -> (B, C, h, w), doubles the dilation of the one before.
    """
    base = 32 // backbone.output_stride
    return [_repeated_stage(backbone, base << i, multi_grid) for i in range(1, count + 1)]


def _repeated_stage(backbone: Backbone, dilation: int, multi_grid: Sequence[int]) -> nn.Sequential:
    """Copy the last stage of `backbone`, with its weights, to follow it at the same size.

    The first unit of a stage widens the features, which a repetition need not. In ResNets (as
    everywhere but in inverted residuals) a copy of the second unit replaces it. Inverted residuals
    widen in later units, too, so each is copied; the first gets a fresh expansion, which takes the
    stage's own features. Not all of these units add to their input, as ResNet's do: the repetition
    does so as a whole, and starts by adding zero.
    """
    network: Any = backbone.network
    kind = nn.Sequential
    if hasattr(network, "blocks"):
        units, kind = _inverted_residuals(network, backbone.channels[32]), Residual
    else:
        names = ("layer4", "s4", "stages_3")  # of ResNet, RegNet, ConvNeXt
        stages = [getattr(network, name) for name in names if hasattr(network, name)]
        members = [unit for stage in stages for unit in getattr(stage, "blocks", stage).children()]
        units = copy.deepcopy(members[1:2]) + copy.deepcopy(members[1:])
    if not units:
        raise InputError(
            f"the last stage of a {type(network).__name__} cannot be repeated; take resnet50"
        )
    repetition = kind(*units)
    set_dilations(list(repetition.modules()), dilation, multi_grid)
    return repetition


def _inverted_residuals(network: Any, channels: int) -> list[Any]:
    """Return copies of the last stage's units; [] if the first does not expand by `conv_pw`."""
    before = int(network.feature_info.module_name()[-2].rpartition(".")[2])  # "blocks.4"
    units = [copy.deepcopy(unit) for part in network.blocks[before + 1 :] for unit in part]
    first = units[0]
    if not hasattr(first, "conv_pw") or not hasattr(first, "conv_dw"):
        return []
    expansion = nn.Conv2d(channels, first.conv_pw.out_channels, 1, bias=False)
    nn.init.kaiming_normal_(expansion.weight, mode="fan_out")
    first.conv_pw, first.conv_dw.stride, first.has_skip = expansion, (1, 1), False
    *_, last = (m for unit in units for m in unit.modules() if isinstance(m, nn.BatchNorm2d))
    nn.init.zeros_(last.weight)
    return units
