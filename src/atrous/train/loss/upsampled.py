"""Loss at full size from logits at low resolution, without the upsampled logits in memory.

The upsampled logits (B, K, H, W) are the largest tensor of a training, and a plain loss holds them
four times. They are not needed: a pixel's loss and its gradient depend on four cells of logits. The
forward pass computes both for each pixel, and keeps the gradient with respect to the cells. An
earlier pass computes the values that depend on all pixels: the losses, whose largest are the
hardest pixels, and the sums over each class, for Dice.

`kernel` computes the sums over pixels in C on a CPU, `strips` in torch on any device.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atrous.taxonomy import IGNORE_INDEX
from atrous.train.loss import kernel as loss_kernel
from atrous.train.loss import strips
from atrous.train.loss.strips import Batch, Factors
from atrous.train.recipe import Recipe


def upsampled_loss(logits: Tensor, target: Tensor, stride: int, recipe: Recipe) -> Tensor:
    """Return the cross-entropy and weighted Dice loss of the upsampled logits; 255 is ignored.

    The cross-entropy is the mean over the labelled pixels, weighted by their classes' weights, or
    over the hardest of them (online hard example mining: Shrivastava et al. 2016). The Dice loss is
    one less the mean soft Dice coefficient of the batch's classes (Milletari et al. 2016).
    tests/train/plain_loss.py has the plain form.

    Args:
        logits: (B, K, h, w), any float type; computed in float32.
        target: (B, H, W) train ids.
        stride: the network's; h = ceil(H / stride).
        recipe: class_weights, label_smoothing, ohem_fraction, dice_weight.
    """
    pixels = target.to(torch.uint8)
    loss: Tensor = _UpsampledLoss.apply(logits.float(), pixels, stride, recipe)
    return loss


class _UpsampledLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, stride: int, recipe: Recipe) -> Tensor:
        loss, gradient = loss_and_gradient(Batch(logits, target, stride), recipe)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * factor, None, None, None


def loss_and_gradient(batch: Batch, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient with respect to `batch.logits`."""
    measure, differentiate = loss_kernel.measure, loss_kernel.differentiate
    if batch.logits.device.type != "cpu" or not loss_kernel.is_available():
        measure = strips.measure
        differentiate = partial(strips.differentiate, compiled=recipe.compile)
    classes, smoothing = batch.logits.shape[1], recipe.label_smoothing
    counts = _counts(batch.target, classes)
    weights = torch.tensor(recipe.class_weights or [1.0] * classes, dtype=torch.float64)
    own, every = (1 - smoothing) * weights, smoothing / classes * weights
    dice_own = dice_every = torch.zeros_like(weights)
    share, kept, added = (counts * weights).sum(), None, torch.zeros(())
    if recipe.dice_weight or recipe.ohem_fraction < 1:
        factors = _factors(batch.logits.device, own, every, dice_own, dice_every)
        losses, probabilities, common = measure(batch, factors)
    if recipe.ohem_fraction < 1:
        kept = hardest(losses, batch.target != IGNORE_INDEX, recipe.ohem_fraction)
        share = (_counts(batch.target[kept], classes) * weights).sum()
    if recipe.dice_weight:
        added, dice_own, dice_every = _dice_slopes(
            probabilities, common, counts, recipe.dice_weight
        )
    share = share.where(share > 0, torch.inf)
    factors = _factors(batch.logits.device, own / share, every / share, dice_own, dice_every)
    loss, gradient = differentiate(batch, factors, kept)
    return loss.float() + added.to(loss.device, torch.float32), gradient


def _counts(target: Tensor, classes: int) -> Tensor:
    """Return the pixels of each class, (K,) float64, on the CPU."""
    counts = torch.bincount(target.flatten(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX].cpu()
    assert not counts[classes:].any(), "a train id is not below the number of classes"
    return counts[:classes].double()


def _factors(device: torch.device, *tables: Tensor) -> Factors:
    return Factors(*(table.to(device, torch.float32) for table in tables))


def _dice_slopes(
    probabilities: Tensor, common: Tensor, counts: Tensor, weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weighted Dice loss, and its derivatives by `common` and `probabilities`, (K,)."""
    sums = [table.cpu().double().requires_grad_() for table in (common, probabilities)]
    with torch.enable_grad():
        value = weight * dice(sums[1], sums[0], counts)
    own, every = torch.autograd.grad(value, sums)
    return value.detach(), own, every


def hardest(losses: Tensor, labelled: Tensor, fraction: float) -> Tensor:
    """Mark the given fraction of the labelled pixels, at least one: those with the largest losses.

    Args:
        losses: (B, H, W), 0 or more where labelled.
        labelled: (B, H, W) bool.
        fraction: over 0, up to 1.

    Returns:
        (B, H, W) bool.
    """
    count = max(1, int(fraction * int(labelled.sum())))
    chosen = losses.where(labelled, -1.0).flatten().topk(count).indices  # (count,)
    mask = torch.zeros_like(labelled.flatten())
    mask[chosen] = True
    return mask.reshape(labelled.shape) & labelled


def dice(probabilities: Tensor, common: Tensor, counts: Tensor, smooth: float = 1.0) -> Tensor:
    """Return the Dice loss.

    Args:
        probabilities: (K,), sum of the class's probability over all labelled pixels.
        common: (K,), the same over the pixels of the class.
        counts: (K,), pixels of the class.
        smooth: pixels added to both sides of the fraction.
    """
    present = counts > 0  # (K,)
    values = 1 - (2 * common + smooth) / (probabilities + counts + smooth)  # (K,)
    return (values * present).sum() / present.sum().clamp(min=1)
