"""Sums over pixels for the loss, a strip of rows at a time, on any device.

The sums are linear in the log-probabilities (cross-entropy) and in the probabilities (Dice, once
its derivatives are known), so the gradient of a strip does not depend on other strips.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from atrous.models.layers import upsample

_STRIP_VALUES = 1 << 24
"""Upsampled values at a time: 64 MiB."""


@dataclass(frozen=True)
class Batch:
    """Logits of a network, and the targets at full size."""

    logits: Tensor
    """(B, K, h, w), any float type; computed in float32."""
    target: Tensor
    """(B, H, W) uint8 train ids; K and above is ignored."""
    stride: int
    """Pixels per cell of the logits, in both directions."""
    aligned: bool = False
    """The cells lie on the pixels 0, stride, 2 stride, ... (docs/conventions.md)."""


@dataclass(frozen=True)
class Factors:
    """Factors of what a pixel of class y and probabilities p adds to the sums, each (K,) float32.

    Cross-entropy: -own[y] log p[y] - sum(every log p). Dice: dice_own[y] p[y] + sum(dice_every p).
    """

    own: Tensor
    every: Tensor
    dice_own: Tensor | None = None
    dice_every: Tensor | None = None


def count(target: Tensor, classes: int) -> Tensor:  # uint8, any shape
    """Return the pixels of each class, (K,)."""
    # torch.bincount would wait for a GPU
    return torch.stack([(target == k).sum() for k in range(classes)])


def measure(batch: Batch, factors: Factors) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the inputs of `differentiate` that couple pixels.

    Returns:
        The cross-entropy of each pixel, (B, H, W), 0 where it is ignored; each class's sum of
        probabilities over the labelled pixels, (K,), and over the pixels of the class, (K,).
    """
    losses = torch.zeros_like(batch.target, dtype=torch.float32)
    sums = torch.zeros(2, batch.logits.shape[1], device=batch.logits.device)
    for cells, pixels in _strips(batch):
        full, truth = _upsampled(batch.logits[:, :, cells].float(), cells, pixels, batch)
        log_p = full.log_softmax(1)  # (B, K, n, W)
        losses[:, pixels] = _cross_entropy(log_p, truth, factors)
        p = log_p.exp() * truth.any(1, keepdim=True)  # (B, K, n, W)
        sums += torch.stack([p.sum((0, 2, 3)), (p * truth).sum((0, 2, 3))])
    return losses, sums[0], sums[1]


def differentiate(batch: Batch, factors: Factors, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the sum of the cross-entropy, and the gradient of both sums, (B, K, h, w) float32.

    Args:
        batch: the pixels.
        factors: of the two sums.
        kept: (B, H, W) bool, the pixels whose cross-entropy counts; None for all.
    """
    loss = torch.zeros((), device=batch.logits.device)
    gradient = torch.zeros_like(batch.logits, dtype=torch.float32)
    for cells, pixels in _strips(batch):
        part = batch.logits[:, :, cells].detach().float().requires_grad_()
        with torch.enable_grad():
            full, truth = _upsampled(part, cells, pixels, batch)
            log_p = full.log_softmax(1)  # (B, K, n, W)
            each = _cross_entropy(log_p, truth, factors)  # (B, n, W)
            entropy = total = (each if kept is None else each * kept[:, pixels]).sum()
            if factors.dice_own is not None and factors.dice_every is not None:
                dice = log_p.exp() * _factor(truth, factors.dice_own, factors.dice_every)
                total = entropy + dice.sum()
            (slope,) = torch.autograd.grad(total, part)
        gradient[:, :, cells] += slope
        loss += entropy.detach()
    return loss, gradient


def _strips(batch: Batch) -> Iterator[tuple[slice, slice]]:
    """Yield rows of cells, with one neighbour on each side, and the rows of their pixels."""
    images, classes, height, width = batch.logits.shape
    values = images * classes * batch.stride**2 * width  # of one row of cells
    step = max(1, _STRIP_VALUES // values)
    for start in range(0, height, step):
        stop = min(start + step, height)
        yield (
            slice(max(start - 1, 0), min(stop + 1, height)),
            slice(start * batch.stride, min(stop * batch.stride, batch.target.shape[1])),
        )


def _upsampled(part: Tensor, cells: slice, pixels: slice, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return a strip's logits, and a mask of each class; both (B, K, n, W)."""
    target = batch.target[:, None, pixels]  # (B, 1, n, W)
    first = pixels.start - cells.start * batch.stride
    size = first + target.shape[2], target.shape[3]
    full = upsample(part, batch.stride, size, aligned=batch.aligned)[:, :, first:]
    classes = torch.arange(part.shape[1], device=part.device).reshape(-1, 1, 1)
    return full, target == classes


def _cross_entropy(log_p: Tensor, truth: Tensor, factors: Factors) -> Tensor:  # (B, K, n, W)
    """Return the cross-entropy of each pixel, (B, n, W)."""
    return -(log_p * _factor(truth, factors.own, factors.every)).sum(1)


def _factor(truth: Tensor, own: Tensor, every: Tensor) -> Tensor:
    """Return `every`, plus `own` at a pixel's class; 0 at ignored pixels. (B, K, n, W)."""
    spread = truth.any(1, keepdim=True) * every.reshape(-1, 1, 1)
    return truth * own.reshape(-1, 1, 1) + spread
