"""A network whose weights are bfloat16, for inference on GPUs: autocast would cast them per call.

Batch norms keep their float32 parameters and statistics, which torch mixes with bfloat16 features.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from atrous.models.photo import PhotoNetwork


class Bf16(nn.Module):
    """A PhotoNetwork that computes in bfloat16; it changes the weights of the one that it wraps."""

    def __init__(self, photo: PhotoNetwork) -> None:
        """Cast the weights of `photo`, but for batch norms."""
        super().__init__()
        self.photo = photo
        for module in photo.network.modules():
            if isinstance(module, _BatchNorm):
                continue
            tensors = *module.parameters(recurse=False), *module.buffers(recurse=False)
            for tensor in tensors:
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(torch.bfloat16)

    def forward(self, image: Tensor) -> Tensor:  # uint8 (B, H, W, C)
        """Return the logits, float32 (B, K, ceil(H / stride), ceil(W / stride))."""
        narrow = self.photo.normalize(image).to(torch.bfloat16)
        logits: Tensor = self.photo.network(narrow).logits
        return logits.float()
