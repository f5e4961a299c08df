"""FRRN-A: a full-resolution residual network, trained from random weights; it has no backbone.

Paper: Pohlen et al. 2017, arXiv:1611.08323, table 1. Two streams: one stays at full size, 32
channels that are only ever added to, and places the borders; the other is pooled and enlarged again
and recognises. As in the authors' code, the pooled stream is enlarged bilinearly, and what a unit
adds to the full stream by repetition. Departures: sizes are padded to a multiple of 16; weights
start from He et al.'s normal distribution, not uniform.

It is expensive: a 360x480 image takes 166 G multiply-adds, and 2.4 GB in training (fp32).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atrous.errors import InputError
from atrous.models.backbones import Backbone
from atrous.models.layers import Classifier, ConvNormAct, Norm, resize, upsample_nearest
from atrous.models.network import Network

__all__ = ["FRRN"]

_BASE, _FULL = 48, 32
"""Channels of the residual units, and of the full stream."""
_UNITS = ((3, 96, 2), (4, 192, 4), (2, 384, 8), (2, 384, 16), (2, 192, 8), (2, 192, 4), (2, 96, 2))
"""How many two-stream units follow each other, of which width, and at which stride."""


_NO_BACKBONE = Backbone.Config(name="none", output_stride=16)


class Pixels(Backbone):
    """The image itself in place of a backbone, padded to a multiple of 16."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.name, self.output_stride = _NO_BACKBONE.name, _NO_BACKBONE.output_stride
        self.aligned = False

    def forward(self, image: Tensor) -> dict[int, Tensor]:  # (B, 3, H, W)
        """Return the image."""
        return {1: image}


class FRRN(Network):
    """Residual units at full size, two streams, residual units, head."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Network.Config):
        """Options of FRRN-A: `pyramid_scales` and `in_channels` alone."""

        name = "frrn_a"
        backbone: Backbone.Config = _NO_BACKBONE

    def __init__(self, config: Config, num_classes: int) -> None:
        if config.auxiliary or config.backbone.multi_grid:
            raise InputError(f"{config.name} has no option auxiliary or multi-grid; leave it out")
        super().__init__(Pixels(), stride=1)
        self.stem = ConvNormAct(3, _BASE, 5)
        self.before = nn.Sequential(*(ResidualUnit(_BASE, _BASE) for _ in range(3)))
        self.split = nn.Conv2d(_BASE, _FULL, 1, bias=False)
        self.split_norm = Norm(_FULL)
        self.stages = nn.ModuleList()
        inputs = _BASE
        for number, channels, stride in _UNITS:
            widths = [inputs] + [channels] * number
            units = [TwoStreamUnit(a, b, stride) for a, b in pairwise(widths)]
            self.stages.append(nn.ModuleList(units))
            inputs = channels
        widths = [inputs + _FULL, _BASE, _BASE, _BASE]
        self.after = nn.Sequential(*(ResidualUnit(a, b) for a, b in pairwise(widths)))
        self.head = Classifier(_BASE, num_classes, 0.0)
        self.finish(config, num_classes)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the merged streams, (B, 48, H, W)."""
        x = self.before(self.stem(features[1]))  # (B, 48, H, W)
        full = self.split_norm(self.split(x))  # (B, 32, H, W)
        stride = 1
        for (_, _, next_stride), stage in zip(_UNITS, self.stages, strict=True):
            x = F.max_pool2d(x, 2) if next_stride > stride else resize(x, 2)
            for unit in cast(nn.ModuleList, stage):
                x, full = unit(x, full)
            stride = next_stride
        return self.after(torch.cat([resize(x, 2), full], dim=1))


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions whose result is added to what they took."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = ConvNormAct(inputs, outputs, 3)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm = Norm(outputs)
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, D, h, w)
        """Return the sum."""
        return self.shortcut(x) + self.norm(self.second(self.first(x)))


class TwoStreamUnit(nn.Module):
    """A full-resolution residual unit: the pooled stream learns of the full one, and adds to it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.merge = nn.Sequential(
            ConvNormAct(inputs + _FULL, outputs, 3), ConvNormAct(outputs, outputs, 3)
        )
        self.residual = nn.Conv2d(outputs, _FULL, 1)

    def forward(
        self, x: Tensor, full: Tensor
    ) -> tuple[Tensor, Tensor]:  # (B, C, H / s, W / s), (B, 32, H, W)
        """Return both streams."""
        pooled = F.max_pool2d(full, self.stride)  # (B, 32, H / s, W / s)
        x = self.merge(torch.cat([x, pooled], dim=1))  # (B, D, H / s, W / s)
        return x, full + upsample_nearest(self.residual(x), self.stride)
