"""U-Net: the backbone's features are enlarged step by step, and meet those of each size before.

Paper: Ronneberger et al. 2015, arXiv:1505.04597. Departures:

- the contracting path is any backbone, pretrained or not; the paper's own has 64 channels at full
  size and 1024 at stride 16;
- convolutions are padded and normalised, so that the labels are as large as the image;
- the steps have 256, 128, 64, 32 and 16 channels (the paper's 512, 256, 128 and 64); one for whose
  size the backbone has no features does without;
- the default enlarges bilinearly. "transposed" is learned, as in the paper, but starts from
  bilinear weights and keeps the channels apart; the paper's 2x2 kernels mix and halve them.

`atrous.models.catalogue.build` documents the options.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from atrous.models.backbones import Backbone
from atrous.models.layers import AuxiliaryHead, Classifier, ConvNormAct, Upsampling, enlarger
from atrous.models.network import Network


class UNet(Network):
    """A backbone, and five steps from its last features back to the image's size."""

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        *,
        output_stride: int = 32,
        multi_grid: Sequence[int] | None = None,
        auxiliary: bool = False,
        upsampling: Upsampling = "bilinear",
        decoder_channels: int = 256,
        head_kernel: int = 1,
        dropout: float = 0.0,
        pretrained: bool = False,
    ) -> None:
        """Build the network."""
        super().__init__(
            Backbone(backbone, output_stride, multi_grid=multi_grid, pretrained=pretrained),
            stride=1,
        )
        channels = self.backbone.channels
        inputs, stride = channels[32], output_stride
        self.steps = nn.ModuleList()
        for i, level in enumerate(_LEVELS):
            outputs, skipped = max(decoder_channels // 2**i, 1), channels.get(level, 0)
            next_stride = min(level, stride)
            step = Step(inputs, skipped, outputs, stride // next_stride, upsampling)
            self.steps.append(step)
            inputs, stride = outputs, next_stride
        self.head = Classifier(inputs, num_classes, dropout, head_kernel)
        self.auxiliary_head = AuxiliaryHead(channels[16], num_classes) if auxiliary else None

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Return the last step's features, (B, D / 16, H, W)."""
        x = features[32]
        for level, step in zip(_LEVELS, self.steps, strict=True):
            x = step(x, features.get(level))
        return x


_LEVELS = (16, 8, 4, 2, 1)


class Step(nn.Module):
    """Enlarge, add the features of that size, and let two 3x3 convolutions merge them."""

    def __init__(
        self, inputs: int, skipped: int, outputs: int, factor: int, upsampling: Upsampling
    ) -> None:
        super().__init__()
        self.enlarge = enlarger(inputs, factor, upsampling)
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
        merged: Tensor = self.merge(larger)
        return merged
