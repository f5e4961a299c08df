"""The loss in its plain form, with every tensor at full size, which `upsampled_loss` must equal."""

import torch
import torch.nn.functional as F
from torch import Tensor

from atrous.taxonomy import IGNORE_INDEX
from atrous.train.loss.upsampled import hardest
from atrous.train.recipe import Recipe


def segmentation_loss(logits: Tensor, target: Tensor, recipe: Recipe) -> Tensor:
    """Cross-entropy and weighted Dice loss of logits (B, K, H, W) and targets (B, H, W)."""
    target = target.long()
    weights = logits.new_tensor(recipe.class_weights) if recipe.class_weights else None
    loss = cross_entropy(logits, target, weights, recipe.label_smoothing, recipe.ohem_fraction)
    return loss + recipe.dice_weight * dice_loss(logits, target)


def cross_entropy(
    logits: Tensor,  # (B, K, H, W)
    target: Tensor,  # (B, H, W) int64
    weights: Tensor | None = None,  # (K,)
    label_smoothing: float = 0.0,
    ohem_fraction: float = 1.0,
) -> Tensor:
    """Mean over the labelled pixels or the hardest of them; 0 if none has a weight."""
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
    if ohem_fraction < 1:
        kept = hardest(loss.detach(), labelled, ohem_fraction)
        loss, share = loss[kept], share[kept]
    total = share.sum()
    return loss.sum() / total.where(total > 0, torch.inf)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One less the mean soft Dice coefficient of the batch's classes (Milletari et al. 2016)."""
    labelled = (target != IGNORE_INDEX).unsqueeze(1)  # (B, 1, H, W)
    probabilities = logits.softmax(1) * labelled  # (B, K, H, W)
    truth = F.one_hot(target.where(labelled[:, 0], 0), logits.shape[1])  # (B, H, W, K)
    truth = truth.permute(0, 3, 1, 2) * labelled  # (B, K, H, W)
    common, counts = (probabilities * truth).sum((0, 2, 3)), truth.sum((0, 2, 3))  # (K,)
    values = 1 - (2 * common + 1) / (probabilities.sum((0, 2, 3)) + counts + 1)  # (K,)
    present = counts > 0  # (K,)
    return (values * present).sum() / present.sum().clamp(min=1)
