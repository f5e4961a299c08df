"""A backbone's last stage once more, on its own features: what DeepLabV3's cascade is made of."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from atrous.errors import InputError
from atrous.models.backbones import Backbone, set_dilations


class Residual(nn.Sequential):
    """Modules that add to their input."""

    def forward(self, input: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h, w)
        """Return the sum."""
        added: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return input + added


def repeated_stage(backbone: Backbone, dilation: int, multi_grid: Sequence[int]) -> nn.Sequential:
    """Copy the last stage of `backbone`, with its weights, so that it goes on at the same size.

    The first unit of a stage widens the features, which a repetition need not. In ResNets (as
    everywhere but in inverted residuals) the second unit stands in for it. Inverted residuals widen
    in later units, too, and so are repeated one by one; the first gets a fresh expansion, which
    takes the stage's own features. Not all of these units add to their input, as ResNet's do: the
    repetition does so as a whole, and begins with adding nothing.

    Raises:
        InputError: the network is of another make.
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
            f"the cascade cannot repeat the last stage of a {type(network).__name__}; take resnet50"
        )
    repetition = kind(*units)
    set_dilations(list(repetition.modules()), dilation, multi_grid)
    return repetition


def _inverted_residuals(network: Any, channels: int) -> list[Any]:
    """Return copies of the last stage's units; none if the first does not expand by `conv_pw`."""
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
