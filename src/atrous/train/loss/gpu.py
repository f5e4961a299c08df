"""The sums of `strips` by kernels in Triton on a GPU, where `atrous.kernels.triton.is_usable`."""

from torch import Tensor

from atrous.kernels.triton import loss
from atrous.train.loss.strips import Batch, Factors


def count(target: Tensor, classes: int) -> Tensor:
    """Compute `strips.count`."""
    return loss.count_classes(target, classes)


def measure(batch: Batch, factors: Factors) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `strips.measure`; the sums are float64."""
    losses, sums = loss.measure(
        batch.logits,
        batch.target,
        batch.stride,
        factors.own,
        factors.every,
        aligned=batch.aligned,
    )
    return losses, sums[0], sums[1]


def differentiate(batch: Batch, factors: Factors, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute `strips.differentiate`; the sum is float64, the gradient channels-last."""
    return loss.differentiate(
        batch.logits,
        batch.target,
        batch.stride,
        factors.own,
        factors.every,
        factors.dice_own,
        factors.dice_every,
        kept,
        aligned=batch.aligned,
    )
