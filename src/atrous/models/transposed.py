"""Learned upsampling by transposed convolution, which also trains fast on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TransposedUpsample(nn.ConvTranspose2d):
    """Learned upsampling of each channel by itself; it starts as `resize`, except at the border.

    The kernel is 2 `factor` wide (Long et al. 2015, arXiv:1411.4038); zeros lie beyond the border,
    where `resize` repeats the last cell.
    """

    def __init__(self, channels: int, factor: int) -> None:
        """Build it; `factor` is even."""
        super().__init__(
            channels, channels, 2 * factor, factor, factor // 2, groups=channels, bias=False
        )
        nearness = 1 - (torch.arange(2 * factor) + 0.5 - factor).abs() / factor  # (2 factor,)
        with torch.no_grad():
            self.weight.copy_(nearness[:, None] * nearness)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Enlarge (B, C, h, w) to (B, C, factor h, factor w)."""
        if self.training and input.device.type == "cpu" and self.stride[0] > 2:
            return enlarge(input, self.weight)
        return super().forward(input)


def enlarge(x: Tensor, weight: Tensor) -> Tensor:  # (B, C, h, w), (C, 1, 2f, 2f)
    """Return `F.conv_transpose2d(x, weight, stride=f, padding=f / 2, groups=C)`, by one product.

    The f x f pixels between the centres of four neighbouring cells follow from these four alone.
    """
    (batch, channels, height, width), factor = x.shape, weight.shape[-1] // 2
    corners = F.pad(x, (1, 1, 1, 1)).unfold(2, 2, 1).unfold(3, 2, 1)  # (B, C, h + 1, w + 1, 2, 2)
    # the upper cell contributes through the lower half of its kernel, and so on
    kernel = weight.reshape(channels, 2, factor, 2, factor).flip(1, 3).transpose(2, 3)
    blocks = corners.reshape(batch, channels, -1, 4) @ kernel.reshape(channels, 4, factor**2)
    blocks = blocks.reshape(batch, channels, height + 1, width + 1, factor, factor)
    pixels = blocks.transpose(3, 4).reshape(batch, channels, (height + 1) * factor, -1)
    inner = slice(factor // 2, -factor // 2)
    return pixels[:, :, inner, inner]  # (B, C, f h, f w)
