"""MobileNetV2 as TensorFlow's DeepLab builds it: any width, and cells that lie on pixels.

Definitions: research/deeplab/core/feature_extractor.py and research/slim/nets/mobilenet of
github.com/tensorflow/models. Departures of its MobileNetV2 from timm's, whose parameters' names are
kept:

- a width other than 1 rounds channels to whole numbers, not to multiples of 8;
- the features of level 4 are those that the last 1x1 of their block projects, six times as wide:
  DeepLabV3+'s decoder takes these;
- `Backbone.aligned`: images are padded to a multiple of the output stride and one more pixel, as it
  was trained (513 = 16 x 32 + 1), and cell (i, j) of features at stride s lies on pixel (s i, s j).
  At such sizes TensorFlow's "same" padding of a stride of 2 is one pixel on each side, which is
  timm's; at even sizes it would be none before and one after.
"""

from functools import partial
from typing import Any, cast

from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.efficientnet import EfficientNetFeatures
from torch import Tensor, nn

STAGES = ((1, 1, 16), (2, 2, 24), (3, 2, 32), (4, 2, 64), (3, 1, 96), (3, 2, 160), (1, 1, 320))
"""Blocks, stride and channels of each stage; the first does not expand, the others do by 6."""

LEVELS = (2, 4, 8, 16, 32)


class TensorFlowMobileNetV2(EfficientNetFeatures):
    """The features of levels 2 to `deepest`."""

    def __init__(self, width: float, output_stride: int, deepest: int) -> None:
        """Build it; `width` is a factor on the channels."""
        super().__init__(
            decode_arch_def(  # type: ignore[no-untyped-call]
                [
                    [f"ir_r{blocks}_k3_s{stride}_e6_c{channels}" if i else "ds_r1_k3_s1_c16"]
                    for i, (blocks, stride, channels) in enumerate(STAGES)
                ]
            ),
            out_indices=tuple(range(LEVELS.index(deepest) + 1)),
            output_stride=output_stride,
            act_layer=nn.ReLU6,
            round_chs_fn=partial(round_channels, multiplier=width, divisor=1),
        )
        stages = cast(Any, self.blocks)
        self.expanded_channels: int = stages[1][-1].conv_pwl.in_channels
        """Channels of level 4."""

    def forward(self, x: Tensor) -> list[Tensor]:  # (B, 3, H, W)
        """Return the features of each level."""
        levels = []
        x = self.bn1(self.conv_stem(x))
        for number, stage in enumerate(cast(Any, self.blocks), start=1):
            if number == 2:
                *blocks, last = stage
                for block in blocks:
                    x = block(x)
                expanded = last.bn2(last.conv_dw(last.bn1(last.conv_pw(x))))
                x = last.bn3(last.conv_pwl(expanded)) + x
                levels.append(expanded)
                continue
            x = stage(x)
            if number in self._stage_out_idx:
                levels.append(x)
        return levels
