"""The sums of `strips` by a compiled loop on the CPU, without a tensor of the pixels' size."""

import torch
from torch import Tensor

from atrous import kernels
from atrous.kernels.loss import BAND_ROWS, sum_losses
from atrous.taxonomy import IGNORE_INDEX
from atrous.train.loss.strips import Batch, Factors


def is_available() -> bool:
    """Return whether this machine has the compiled loop."""
    return kernels.is_available("upsampled_loss")


def count(target: Tensor, classes: int) -> Tensor:
    """Compute `strips.count`."""
    counts = torch.bincount(target.flatten(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    assert not counts[classes:].any(), "a train id is not below the number of classes"
    return counts[:classes]


def measure(batch: Batch, factors: Factors) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `strips.measure`."""
    losses = torch.zeros(batch.target.shape)
    _, probabilities, common = _run(batch, factors, losses=losses)
    return losses, probabilities, common


def differentiate(batch: Batch, factors: Factors, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute `strips.differentiate`; the gradient is channels-last."""
    images, classes, height, width = batch.logits.shape
    gradient = torch.zeros(images, height, width, classes)
    seams = torch.zeros(images, (height - 1) // BAND_ROWS, width, classes)
    loss, _, _ = _run(batch, factors, kept=kept, gradient=gradient, seams=seams)
    inner = gradient[:, BAND_ROWS::BAND_ROWS]  # rows that two bands add to
    inner += seams
    return loss, gradient.permute(0, 3, 1, 2)


def _run(
    batch: Batch,
    factors: Factors,
    *,
    kept: Tensor | None = None,
    losses: Tensor | None = None,
    gradient: Tensor | None = None,
    seams: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fill the tensors that are given; return the three sums of `sum_losses`, float64."""
    none = torch.zeros_like(factors.own)
    dice = (none if table is None else table for table in (factors.dice_own, factors.dice_every))
    tables = (factors.own, factors.every, *dice)
    sums = sum_losses(
        batch.logits.detach().float().permute(0, 2, 3, 1).contiguous().numpy(),
        batch.target.contiguous().numpy(),
        batch.stride,
        [table.numpy() for table in tables],
        torch.get_num_threads(),
        aligned=batch.aligned,
        kept=None if kept is None else kept.numpy(),
        losses=None if losses is None else losses.numpy(),
        gradient=None if gradient is None else gradient.numpy(),
        seams=None if seams is None else seams.numpy(),
    )
    classes = batch.logits.shape[1]
    whole = torch.from_numpy(sums)
    return whole[0], whole[1 : 1 + classes], whole[1 + classes :]
