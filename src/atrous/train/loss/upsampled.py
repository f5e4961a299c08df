"""Loss at full size from logits at low resolution, without the upsampled logits in memory.

The upsampled logits (B, K, H, W) are the largest tensor of a training, and a plain loss holds them
four times. They are not needed: a pixel's loss and its gradient depend on four cells of logits. The
forward pass computes both for each pixel, and keeps the gradient with respect to the cells. An
earlier pass computes the values that depend on all pixels: the losses, whose largest are the
hardest pixels, and the sums over each class, for Dice.

`kernel` computes the sums over pixels in C on a CPU, `gpu` in Triton, `strips` in torch on any
device. Nothing here waits for a GPU, so that a training step can be captured in a CUDA graph.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atrous.kernels.triton import is_usable
from atrous.taxonomy import IGNORE_INDEX
from atrous.train.loss import kernel as loss_kernel
from atrous.train.loss import strips
from atrous.train.loss.strips import Batch, Factors
from atrous.train.processes import num_processes, summed
from atrous.train.recipe import Recipe


def upsampled_loss(
    logits: Tensor, target: Tensor, stride: int, recipe: Recipe, *, aligned: bool = False
) -> Tensor:
    """Return the cross-entropy and weighted Dice loss of the upsampled logits; 255 is ignored.

    The cross-entropy is the mean over the labelled pixels, weighted by their classes' weights, or
    over the hardest of them (online hard example mining: Shrivastava et al. 2016). The Dice loss is
    one less the mean soft Dice coefficient of the batch's classes (Milletari et al. 2016). Where
    several processes train, means are over the batch of all, so that the processes' average is the
    loss of one with the whole batch; the hardest pixels are those of each process.
    tests/train/plain_loss.py has the plain form.

    Args:
        logits: (B, K, h, w), any float type; computed in float32.
        target: (B, H, W) train ids.
        stride: the network's; h = ceil(H / stride).
        recipe: class_weights, label_smoothing, ohem_fraction, dice_weight.
        aligned: the network's cells lie on pixels.
    """
    batch = Batch(logits, target.to(torch.uint8), stride, aligned)
    loss: Tensor = _UpsampledLoss.apply(logits, batch, recipe)
    return loss


class _UpsampledLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, batch: Batch, recipe: Recipe) -> Tensor:
        loss, gradient = loss_and_gradient(replace(batch, logits=logits), recipe)
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * factor).to(ctx.dtype), None, None


def loss_and_gradient(batch: Batch, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient with respect to `batch.logits`, both float32."""
    device, classes, target = batch.target.device, batch.logits.shape[1], batch.target
    sums = _backend(device.type)
    assert recipe.class_weights != "auto", "a training turns it into numbers"
    weights, factors = _tables(recipe.class_weights, recipe.label_smoothing, classes, device)
    own_counts, kept = sums.count(target, classes).to(weights.dtype), None
    counts, processes = summed(own_counts), num_processes()
    share = (counts * weights).sum()
    if recipe.dice_weight or recipe.ohem_fraction < 1:
        losses, probabilities, common = sums.measure(batch, Factors(*factors.float()))
    if recipe.ohem_fraction < 1:
        kept = hardest(losses, target != IGNORE_INDEX, recipe.ohem_fraction)
        hard = sums.count(target.where(kept, IGNORE_INDEX), classes).to(weights.dtype)
        share = (summed(hard) * weights).sum()
    factors = processes * factors / share.masked_fill(share <= 0, torch.inf)
    if recipe.dice_weight:
        probabilities, common = summed(torch.stack((probabilities, common)))
        dice, *slopes = weighted_dice(probabilities, common, counts, recipe.dice_weight)
        factors = torch.stack((*factors, *(processes * slope for slope in slopes)))
    loss, gradient = sums.differentiate(batch, Factors(*factors.float()), kept)
    return loss.float() + dice.float() if recipe.dice_weight else loss.float(), gradient


class _Backend(Protocol):
    """The functions of `strips`."""

    def count(self, target: Tensor, classes: int) -> Tensor: ...
    def measure(self, batch: Batch, factors: Factors) -> tuple[Tensor, Tensor, Tensor]: ...
    def differentiate(
        self, batch: Batch, factors: Factors, kept: Tensor | None
    ) -> tuple[Tensor, Tensor]: ...


def _backend(device: str) -> _Backend:
    if is_usable(device):
        from atrous.train.loss import gpu

        return gpu
    return loss_kernel if device == "cpu" and loss_kernel.is_available() else strips


@lru_cache  # so that nothing is copied to the device in a step
def _tables(
    class_weights: tuple[float, ...], smoothing: float, classes: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the weights, (K,), and `own` and `every` of `Factors` for a sum, (2, K)."""
    precise = torch.float32 if device.type == "mps" else torch.float64  # which mps has not
    weights = torch.tensor(class_weights or [1.0] * classes, dtype=torch.float64)
    own, every = (1 - smoothing) * weights, smoothing / classes * weights
    return weights.to(device, precise), torch.stack((own, every)).to(device, precise)


def hardest(losses: Tensor, labelled: Tensor, fraction: float) -> Tensor:
    """Mark the given fraction of the labelled pixels, at least one: those with the largest losses.

    Args:
        losses: (B, H, W), 0 or more where labelled.
        labelled: (B, H, W) bool.
        fraction: over 0, up to 1.

    Returns:
        (B, H, W) bool.
    """
    count: int | Tensor
    if losses.is_cuda:  # whose count of labelled pixels is not known here
        most = max(1, int(fraction * labelled.numel()))
        count = (fraction * labelled.sum().double()).long().clamp(min=1)
    else:
        most = count = max(1, int(fraction * int(labelled.sum())))
    return largest(losses.where(labelled, -1.0), count, most) & labelled


def largest(values: Tensor, count: int | Tensor, most: int) -> Tensor:
    """Mark the `count` largest values, up to `most`."""
    chosen = values.flatten().topk(most).indices  # (most,), from the largest
    counts = torch.arange(most, device=values.device) < count
    mask = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    return mask.scatter_(0, chosen, counts).reshape(values.shape)


def weighted_dice(
    probabilities: Tensor, common: Tensor, counts: Tensor, weight: float, smooth: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weighted Dice loss, and its derivatives by `common` and `probabilities`, (K,).

    Args:
        probabilities: (K,), sum of the class's probability over all labelled pixels.
        common: (K,), the same over the pixels of the class.
        counts: (K,), pixels of the class.
        weight: of the Dice loss.
        smooth: pixels added to both sides of the fraction.
    """
    present = counts.sign()  # (K,)
    share = present * weight / present.sum().clamp(min=1)  # (K,)
    both = probabilities + counts + smooth  # (K,)
    coefficient = (2 * common + smooth) / both  # (K,)
    slope = share / both  # (K,)
    return (share * (1 - coefficient)).sum(), -2 * slope, slope * coefficient
