"""Batch normalisation with the activation that follows it, as one on a GPU.

Elsewhere, and for what the kernels do not cover, torch's two layers run. A built layer becomes a
`FusedNorm` or `FusedNormAct` by a change of its class, so that a network from timm keeps its state
dict.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
from timm.layers.norm_act import BatchNormAct2d
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from atrous.models.convolution import runs_in_triton

if TYPE_CHECKING:
    from atrous.kernels.triton.norm import Activation

_ACTIVATIONS: dict[type[nn.Module], "Activation"] = {
    nn.Identity: "none",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardswish: "hardswish",
    nn.SiLU: "silu",
}
_NO_ACTIVATION = nn.Identity()

ADDING_VARIANCE = 1 - 1e-5
"""Of a norm of torch's default eps, 1e-5, that divides by 1."""


class FusedNorm(nn.BatchNorm2d):
    """Batch normalisation alone."""

    def forward(self, input: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h, w)
        """Normalise `input`."""
        if is_fusible(self, _NO_ACTIVATION, input):
            return fused(self, _NO_ACTIVATION, input)
        return super().forward(input)


class FusedNormAct(BatchNormAct2d):
    """timm's batch normalisation that has its activation within it."""

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h, w)
        """Normalise `x`, and apply the activation."""
        if type(self.drop) is nn.Identity and is_fusible(self, self.act, x):
            return fused(self, self.act, x)
        return cast(Tensor, super().forward(x))  # type: ignore[no-untyped-call]


def only_adds(norm: _BatchNorm) -> bool:
    """Return whether a norm adds its bias and does no more: its own was folded into a convolution.

    Other projects' files have such; a training gives no norm exactly this variance in all channels.
    """
    variance = norm.running_var
    return variance is not None and bool((variance == ADDING_VARIANCE).all())


def swap_norms(network: nn.Module) -> None:
    """Turn batch normalisations into those of this module; parameters keep their names."""
    if any(isinstance(module, BasicBlock | Bottleneck) for module in network.modules()):
        _merge_activations(network)
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = FusedNorm
        elif type(module) is BatchNormAct2d:
            module.__class__ = FusedNormAct


def _merge_activations(resnet: nn.Module) -> None:
    """Move activations into the norms right before them, as timm's other networks have it."""
    for block in list(resnet.modules()):
        pairs = [("bn1", "act1")] if block is resnet or isinstance(block, BasicBlock) else []
        if isinstance(block, Bottleneck):
            pairs = [("bn1", "act1"), ("bn2", "act2")]
        if type(getattr(block, "drop_block", None) or _NO_ACTIVATION) is not nn.Identity:
            continue
        for norm_name, act_name in pairs:
            norm: Any = getattr(block, norm_name, None)
            act: Any = getattr(block, act_name, None)
            if type(norm) is nn.BatchNorm2d and type(act) in _ACTIVATIONS:
                norm.drop, norm.act = nn.Identity(), act
                norm.__class__ = BatchNormAct2d
                setattr(block, act_name, nn.Identity())


def is_fusible(norm: nn.BatchNorm2d, act: nn.Module, x: Tensor) -> bool:
    """Return whether the kernels run on `x`, and do what `norm` and `act` would.

    torch does the rest: torch.compile and exports, which do not see into the kernels; gradients
    through running statistics; other activations and options.
    """
    if not runs_in_triton(x) or type(act) not in _ACTIVATIONS:
        return False
    if any(part is None for part in (norm.weight, norm.bias, norm.running_mean)):
        return False
    if norm.training:
        return norm.momentum is not None and x.numel() > x.shape[1]
    needed = x.requires_grad or norm.weight.requires_grad or norm.bias.requires_grad
    return not (needed and torch.is_grad_enabled())


def fused(norm: nn.BatchNorm2d, act: nn.Module, x: Tensor) -> Tensor:  # (B, C, h, w)
    """Return act(norm(x)), channels-last, where `is_fusible`."""
    from atrous.kernels.triton.norm import normalize

    activation = _ACTIVATIONS[type(act)]
    running = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    if not norm.training:
        x = x.contiguous(memory_format=torch.channels_last)
        return normalize(x, *running, norm.weight, norm.bias, norm.eps, activation)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    return cast(
        Tensor,
        _Fused.apply(x, norm.weight, norm.bias, *running, norm.momentum, norm.eps, activation),
    )


class _Fused(torch.autograd.Function):
    """Training's normalisation and activation; keeps its input and nothing else of that size."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
        activation: "Activation",
    ) -> Tensor:
        from atrous.kernels.triton.norm import batch_moments, normalize

        x = x.contiguous(memory_format=torch.channels_last)
        moments = batch_moments(x, running_mean, running_var, momentum)
        ctx.save_for_backward(x, *moments, weight, bias)
        ctx.options = eps, activation
        return normalize(x, *moments, weight, bias, eps, activation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from atrous.kernels.triton.norm import gradients

        _, _, _, weight, bias = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_x, of_weight, of_bias = gradients(grad, *ctx.saved_tensors, *ctx.options)
        return of_x, of_weight.to(weight.dtype), of_bias.to(bias.dtype), *[None] * 5
