"""bfloat16 on a GPU: all weights are cast at once, not each by its layer."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

_KEPT = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
"""Layers that compute in float32, as under autocast."""


class CastNetwork(nn.Module):
    """A network under autocast to bfloat16 that does not have to cast a weight.

    Parameters stay float32 and get float32 gradients. Results and gradients are autocast's to the
    bit, except where a parameter meets activations outside of a convolution (ConvNeXt's scales).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        kept = {
            parameter
            for layer in network.modules()
            if isinstance(layer, _KEPT)
            for parameter in layer.parameters(recurse=False)
        }
        self.names = [name for name, weight in network.named_parameters() if weight not in kept]

    def forward(self, image: Tensor) -> Any:  # (B, C, H, W)
        """Return what the network returns."""
        weights = map(self.network.get_parameter, self.names)
        cast = _Cast.apply(*weights)
        return functional_call(self.network, dict(zip(self.names, cast, strict=True)), (image,))


class _Cast(torch.autograd.Function):
    """float32 tensors to bfloat16, by one kernel for all; and their gradients back."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # a weight that was not used gets no gradient
        cast = [torch.empty_like(weight, dtype=torch.bfloat16) for weight in weights]
        torch._foreach_copy_(cast, list(weights))
        return tuple(cast)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [grad for grad in grads if grad is not None]
        wide = [torch.empty_like(grad, dtype=torch.float32) for grad in given]
        torch._foreach_copy_(wide, given)
        each = iter(wide)
        return tuple(None if grad is None else next(each) for grad in grads)
