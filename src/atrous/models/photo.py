"""PhotoNetwork: a network that takes uint8 photos; it is what is exported and served."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from atrous.models.network import Output


class PhotoNetwork(nn.Module):
    """uint8 image in, low-resolution logits out; it normalises the image."""

    scale: Tensor  # (C, 1, 1)
    shift: Tensor  # (C, 1, 1)

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        """Wrap `network` and share its weights; `mean` and `std` are of its channels, 0..1."""
        super().__init__()
        self.network = network
        self.stride = cast(int, network.stride)
        self.aligned = bool(getattr(network, "aligned", False))
        self.channels = len(mean)
        spread = torch.tensor(std).reshape(-1, 1, 1)
        centre = torch.tensor(mean).reshape(-1, 1, 1)
        self.register_buffer("scale", 1 / (255 * spread), persistent=False)
        self.register_buffer("shift", -centre / spread, persistent=False)

    def forward(self, image: Tensor) -> Tensor:  # uint8 (B, H, W, C), sRGB or other bands
        """Return the logits, float32 (B, K, ceil(H / stride), ceil(W / stride))."""
        output: Output = self.network(self.normalize(image))
        return output.logits.float()

    def normalize(self, image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the network's input, (B, C, H, W), from uint8 (B, H, W, C)."""
        # Planes first: onnxruntime is much slower at multiplying along a last axis of three.
        return (image.permute(0, 3, 1, 2).float() * self.scale + self.shift).to(dtype)
