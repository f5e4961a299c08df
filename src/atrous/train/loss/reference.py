"""Losses on logits (B, K, H, W) and targets (B, H, W), where 255 is ignored.

The plain form, with every tensor at full size: what `upsampled_loss` must equal. Training uses that
one, and of this module what it shares.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.taxonomy import IGNORE_INDEX
from atrous.train.recipe import Recipe


def segmentation_loss(logits: Tensor, target: Tensor, recipe: Recipe) -> Tensor:
    """The recipe's cross-entropy, and its Dice loss if it has one.

    Args:
        logits: (B, K, H, W), any float type; computed in float32.
        target: (B, H, W) train ids.
        recipe: class_weights, label_smoothing, hard_pixels, dice_weight.
    """
    logits, target = logits.float(), target.long()
    weights = logits.new_tensor(recipe.class_weights) if recipe.class_weights else None
    loss = cross_entropy(logits, target, weights, recipe.label_smoothing, recipe.hard_pixels)
    if recipe.dice_weight:
        loss = loss + recipe.dice_weight * dice_loss(logits, target)
    return loss


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    hard_pixels: float = 1.0,
) -> Tensor:
    """Mean cross-entropy over the labelled pixels or the hardest of them; 0 if none has a weight.

    Hard-pixel mining (Shrivastava et al. 2016) keeps the fraction `hard_pixels` with the largest
    loss.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) int64.
        weights: (K,), a factor on each pixel's loss by its class; the mean is weighted too.
        label_smoothing: 0 to 1.
        hard_pixels: over 0, up to 1.
    """
    loss = F.cross_entropy(
        logits,
        target,
        weights,
        ignore_index=IGNORE_INDEX,
        reduction="none",
        label_smoothing=label_smoothing,
    )  # (B, H, W)
    labelled = target != IGNORE_INDEX  # (B, H, W)
    share = labelled.float() if weights is None else weights[target.where(labelled, 0)] * labelled
    if hard_pixels < 1:
        kept = hardest(loss.detach(), labelled, hard_pixels)
        loss, share = loss[kept], share[kept]
    total = share.sum()
    return loss.sum() / total.where(total > 0, torch.inf)


def hardest(losses: Tensor, labelled: Tensor, fraction: float) -> Tensor:
    """Mark the given fraction of the labelled pixels, at least one, with the largest losses.

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


def dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """One less the mean soft Dice coefficient of the batch's classes (Milletari et al. 2016).

    Args:
        logits: (B, K, H, W).
        target: (B, H, W) int64.
        smooth: pixels added to both sides of the fraction.
    """
    labelled = (target != IGNORE_INDEX).unsqueeze(1)  # (B, 1, H, W)
    probabilities = logits.softmax(1) * labelled  # (B, K, H, W)
    truth = F.one_hot(target.where(labelled[:, 0], 0), logits.shape[1])  # (B, H, W, K)
    truth = truth.permute(0, 3, 1, 2) * labelled  # (B, K, H, W)
    common = (probabilities * truth).sum((0, 2, 3))  # (K,)
    return dice(probabilities.sum((0, 2, 3)), common, truth.sum((0, 2, 3)), smooth)


def dice(probabilities: Tensor, common: Tensor, counts: Tensor, smooth: float = 1.0) -> Tensor:
    """The Dice loss of each class's sums, (K,).

    Args:
        probabilities: its sum over all labelled pixels.
        common: its sum over the pixels of the class.
        counts: pixels of the class.
        smooth: pixels added to both sides of the fraction.
    """
    present = counts > 0  # (K,)
    values = 1 - (2 * common + smooth) / (probabilities + counts + smooth)  # (K,)
    return (values * present).sum() / present.sum().clamp(min=1)
