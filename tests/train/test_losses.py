import numpy as np
import pytest
import torch
from plain_loss import cross_entropy, dice_loss, segmentation_loss
from torch.nn import functional as F

from atrous.train.recipe import Recipe


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 7, generator=generator)
    target = torch.randint(0, 3, (2, 5, 7), generator=generator)
    target[:, :2] = 255
    return logits, target


def test_cross_entropy_is_torchs_mean(batch) -> None:
    weights = torch.tensor([1.0, 2.0, 0.5])
    for weight in (None, weights):
        expected = F.cross_entropy(*batch, weight, ignore_index=255)
        torch.testing.assert_close(cross_entropy(*batch, weight), expected)


def test_hard_pixels_are_the_largest_losses(batch) -> None:
    logits, target = batch
    each = F.cross_entropy(logits, target, ignore_index=255, reduction="none")[target != 255]
    expected = each.sort(descending=True).values[: len(each) // 4].mean()
    torch.testing.assert_close(cross_entropy(logits, target, ohem_fraction=0.25), expected)


def test_dice_by_hand() -> None:
    # One labelled pixel of each class, both predicted as class 0 with certainty; one is ignored.
    logits = torch.tensor([[[[100.0, 100.0, -100.0]], [[-100.0, -100.0, 100.0]]]])
    target = torch.tensor([[[0, 1, 255]]])
    first, second = (2 * 1 + 1) / (2 + 1 + 1), (0 + 1) / (0 + 1 + 1)
    expected = 1 - (first + second) / 2
    np.testing.assert_allclose(dice_loss(logits, target).item(), expected, rtol=1e-6)


def test_nothing_labelled_costs_nothing(batch) -> None:
    logits, target = batch[0].requires_grad_(), torch.full_like(batch[1], 255)
    loss = segmentation_loss(logits, target, Recipe(dice_weight=1.0, ohem_fraction=0.5))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_ignored_pixels_have_no_gradient(batch) -> None:
    logits, target = batch[0].requires_grad_(), batch[1]
    recipe = Recipe(dice_weight=1.0, class_weights=(1.0, 2.0, 3.0), label_smoothing=0.1)
    segmentation_loss(logits, target, recipe).backward()
    ignored = (target == 255).unsqueeze(1).expand_as(logits)
    assert not logits.grad[ignored].any() and logits.grad[~ignored].all()
