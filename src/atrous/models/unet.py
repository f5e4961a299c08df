"""U-Net: the backbone's last features are enlarged step by step, and join those of each size.

Paper: Ronneberger et al. 2015, arXiv:1505.04597. Departures:

- the contracting path is any backbone, pretrained or not; the paper's own has 64 channels at full
  size and 1024 at stride 16;
- convolutions are padded and normalised, so that the labels are as large as the image;
- the steps have 256, 128, 64, 32 and 16 channels (the paper's 512, 256, 128 and 64); a step for
  whose size the backbone has no features does without;
- the default enlarges bilinearly. "transposed" is learned, as in the paper, but starts from
  bilinear weights and keeps the channels apart; the paper's 2x2 kernels mix and halve them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atrous.models.backbones import Backbone
from atrous.models.layers import Classifier, ConvNormAct, Upsampling, upsampler
from atrous.models.network import Network

__all__ = ["UNet"]

_LEVELS = (16, 8, 4, 2, 1)
"""Strides of the steps' results; the backbone may have no features at 2, and has none at 1."""


class UNet(Network):
    """Backbone, five steps from its last features to the image's size, head."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Network.Config):
        """Options of U-Net."""

        name = "unet"
        upsampling: Upsampling = "bilinear"
        decoder_channels: int = 256
        """Channels of the first step; each next one has half."""
        head_kernel: int = 1
        """Size of the classifier."""
        dropout: float = 0.1
        """Probability before the classifier."""

    def __init__(self, config: Config, num_classes: int) -> None:
        super().__init__(Backbone(config.backbone), stride=1)
        channels = self.backbone.channels
        inputs, stride = channels[32], config.backbone.output_stride
        self.steps = nn.ModuleList()
        for i, level in enumerate(_LEVELS):
            outputs, skipped = max(config.decoder_channels // 2**i, 1), channels.get(level, 0)
            next_stride = min(level, stride)
            factor = stride // next_stride
            self.steps.append(Step(inputs, skipped, outputs, factor, config.upsampling))
            inputs, stride = outputs, next_stride
        self.head = Classifier(inputs, num_classes, config.dropout, config.head_kernel)
        self.finish(config, num_classes)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the last step's features, (B, D / 16, H, W)."""
        x = features[32]
        for level, step in zip(_LEVELS, self.steps, strict=True):
            x = step(x, features.get(level))
        return x


class Step(nn.Module):
    """Enlarge, append the features of that size, and merge by two 3x3 convolutions."""

    def __init__(
        self, inputs: int, skipped: int, outputs: int, factor: int, upsampling: Upsampling
    ) -> None:
        super().__init__()
        self.enlarge = upsampler(inputs, factor, upsampling)
        self.merge = nn.Sequential(
            ConvNormAct(inputs + skipped, outputs, 3), ConvNormAct(outputs, outputs, 3)
        )

    def forward(
        self, x: Tensor, skipped: Tensor | None
    ) -> Tensor:  # (B, C, h, w), (B, S, f h, f w) -> (B, D, f h, f w)
        """Return the merged features."""
        larger = self.enlarge(x)  # (B, C, f h, f w)
        if skipped is not None:
            larger = torch.cat([larger, skipped], dim=1)
        return self.merge(larger)
