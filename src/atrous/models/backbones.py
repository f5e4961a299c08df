"""Any timm network as a feature extractor at output stride 8, 16 or 32, with multi-grid.

Features are named by their level: the stride that they have in the plain network. Level 32 is the
last stage, whatever its stride under dilation. Departures from timm:

- dilations are absolute. timm lets the first block of a dilated stage keep the dilation before it;
  here every spatial convolution of a block, the two of a basic block as well, gets the stage's
  dilation x the block's grid factor.
- "same" convolutions, whose padding depends on the size of their input, get the constant padding
  that they have where the image is a multiple of the output stride. All atrous networks pad their
  image so. Exported graphs stay free of shapes.

`catalogue.VARIANTS` are timm's networks as other projects built them, for the weights of these
projects: parameters keep timm's names; padding and the places of strides differ. So do those of
`tensorflow`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.models._efficientnet_blocks import InvertedResidual
from torch import Tensor, nn
from torch.nn import functional as F

from atrous.errors import InputError
from atrous.models.catalogue import (
    OUTPUT_STRIDES,
    VARIANTS,
    check_is_known,
    tensorflow_width,
    timm_name,
)
from atrous.models.convolution import DepthwiseConv, StaticSameConv, is_depthwise
from atrous.models.normalization import swap_norms
from atrous.models.tensorflow import TensorFlowMobileNetV2

__all__ = ["Backbone"]


class Backbone(nn.Module):
    """A timm network without its classifier."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Which network, and how it is dilated."""

        name: str
        """A timm model (`catalogue.BACKBONES` are proven), or one of `catalogue.VARIANTS`."""
        output_stride: int = 16
        """Stride of the last features: 8, 16 or 32."""
        multi_grid: tuple[int, ...] | None = None
        """Factors of the dilations in the blocks of the last stage, repeated if it has more blocks:
        at output stride 16, (1, 2, 4) gives 2, 4, 8. None keeps timm's dilations, where the first
        block of a dilated stage keeps the dilation before it: exactly the taps that the plain
        network was trained with."""

    def __init__(self, config: Config, *, deepest: int = 32) -> None:
        """Build the network up to the level `deepest`: 8, 16 or 32."""
        super().__init__()
        self.name, self.output_stride = config.name, config.output_stride
        width = tensorflow_width(config.name)
        self.aligned = width is not None
        """Cells lie on pixels, where in other networks they cover squares of them."""
        self.network: nn.Module = (
            timm_features(timm_name(config.name), config.output_stride, deepest)
            if width is None
            else TensorFlowMobileNetV2(width, config.output_stride, deepest)
        )
        info: Any = self.network.feature_info
        first = info.reduction()[0]
        levels = [first * 2**i for i in range(len(info.reduction()))]
        if levels[-1] != deepest or 4 not in levels:
            raise InputError(
                f"{self.name}: its features are at strides {levels}; strides 4 to 32 are needed"
            )
        self.levels = tuple(levels)
        self.channels = dict(zip(levels, info.channels(), strict=True))
        if isinstance(self.network, TensorFlowMobileNetV2):
            self.channels[4] = self.network.expanded_channels
        if config.multi_grid is not None:
            self._dilate(config.multi_grid)
        swap_convolutions(self.network)
        swap_norms(self.network)
        if self.name in VARIANTS:
            (_caffe if self.name.endswith("_caffe") else _padded_first)(self.network)

    def forward(self, image: Tensor) -> dict[int, Tensor]:  # (B, 3, H, W)
        """Return the features of each level, (B, C, H/s, W/s) with s = min(level, output stride).

        H and W must be multiples of the output stride, and one more where cells are `aligned`.
        """
        return dict(zip(self.levels, self.network(image), strict=True))

    def stage(self, level: int) -> list[nn.Module]:
        """Return the modules after the features of `level` / 2, up to `level`'s own, in order."""
        info: Any = self.network.feature_info
        ends = [name.replace(".", "_") for name in info.module_name()]
        last = ends[self.levels.index(level)] + "_"
        before = ends[self.levels.index(level) - 1] + "_"
        named = [
            (name.replace(".", "_") + "_", module) for name, module in self.network.named_modules()
        ]
        start = max(i for i, (name, _) in enumerate(named) if name.startswith(before)) + 1
        stop = max(i for i, (name, _) in enumerate(named) if name.startswith(last)) + 1
        return [module for _, module in named[start:stop]]

    def _dilate(self, multi_grid: Sequence[int]) -> None:
        if not multi_grid or min(multi_grid) < 1:
            raise InputError(
                f"multi_grid {tuple(multi_grid)}: give factors of 1 or more, such as 1 2 4"
            )
        if self.levels[-1] < 32:
            raise InputError(f"{self.name}: it ends before the stage that multi_grid dilates")
        set_dilations(self.stage(16), max(1, 16 // self.output_stride), (1,))
        if not set_dilations(self.stage(32), 32 // self.output_stride, multi_grid):
            raise InputError(f"{self.name}: its last stage has no spatial convolution to dilate")


def set_dilations(stage: Sequence[nn.Module], dilation: int, grid: Sequence[int]) -> list[int]:
    """Give block i of `stage` the dilation `dilation` x `grid[i]`, and return the dilations.

    A block is a module that directly holds spatial convolutions; ResNet's basic block holds two,
    and both change.
    """
    dilations: list[int] = []
    for module in stage:
        convs = [conv for conv in module.children() if _is_spatial(conv)]
        if not convs:
            continue
        dilations.append(dilation * grid[len(dilations) % len(grid)])
        for conv in cast("Iterator[nn.Conv2d]", convs):
            conv.dilation = (dilations[-1],) * 2
            if not isinstance(conv, Conv2dSame):
                conv.padding = tuple(dilations[-1] * (k - 1) // 2 for k in conv.kernel_size)
    return dilations


def _is_spatial(module: nn.Module) -> bool:
    """Return whether `module` sees neighbours. Even kernels only downsample, as ConvNeXt's do."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size[0] > 1
        and module.kernel_size[0] % 2 == 1
    )


def timm_features(name: str, output_stride: int = 32, deepest: int = 32) -> nn.Module:
    """Build the feature extractor of timm's network `name`, up to the level `deepest`."""
    if output_stride not in OUTPUT_STRIDES:
        raise InputError(f"output stride {output_stride}: 8, 16 and 32 are supported")
    check_is_known(name)
    try:
        create = partial(timm.create_model, name, features_only=True, pretrained=False)
        if deepest == 32:
            return create(output_stride=output_stride)
        with torch.device("meta"):
            info: Any = create().feature_info
        indices = [i for i, level in enumerate(info.reduction()) if level <= deepest]
        return create(output_stride=output_stride, out_indices=indices)
    except (TypeError, NotImplementedError, RuntimeError, AssertionError) as error:
        raise InputError(
            f"{name}: timm cannot build it at output stride {output_stride}; "
            "`atrous models` lists backbones that work"
        ) from error


def swap_convolutions(network: nn.Module) -> None:
    """Turn convolutions into those of `convolution`; parameters keep their names."""
    for module in network.modules():
        if isinstance(module, Conv2dSame):
            module.__class__ = StaticSameConv  # type: ignore[assignment]
        elif type(module) is nn.Conv2d and is_depthwise(module):
            module.__class__ = DepthwiseConv


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
        margin = self.conv_dw.dilation[0]
        expanded = self.bn1(self.conv_pw(F.pad(x, (margin,) * 4)))
        reduced = self.bn3(self.conv_pwl(self.bn2(self.conv_dw(expanded))))
        return reduced + x if self.has_skip else reduced
