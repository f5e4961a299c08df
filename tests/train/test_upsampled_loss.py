"""The loss without the big tensor equals the plain one, by the compiled loop and by strips."""

import ctypes
import math
import platform
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_loss import cross_entropy, dice_loss
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from atrous import kernels
from atrous.kernels import LIBRARIES, kernel
from atrous.models.layers import upsample
from atrous.train.loss import kernel as loss_kernel
from atrous.train.loss import strips
from atrous.train.loss.upsampled import upsampled_loss
from atrous.train.recipe import Recipe

EVERYTHING = Recipe(
    class_weights=(1.0, 2.0, 0.5, 0.0, 1.5), label_smoothing=0.1, ohem_fraction=0.4, dice_weight=0.7
)


@pytest.fixture(params=["compiled", "strips"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs by the compiled loop, where there is one, and by strips, several a batch."""
    monkeypatch.setattr(strips, "_STRIP_VALUES", 1 << 12)
    if request.param == "strips":
        monkeypatch.setattr(loss_kernel, "is_available", lambda: False)
    elif kernel("upsampled_loss") is None:
        pytest.skip("no library for this machine")
    return request.param


def batch(
    classes: int, size: tuple[int, int], stride: int, images: int = 2, spread: float = 3.0
) -> tuple[Tensor, Tensor]:
    """Logits, and targets of which a fifth is ignored."""
    generator = torch.Generator().manual_seed(classes * size[0] + size[1])
    cells = [-(-side // stride) for side in size]
    logits = spread * torch.randn(images, classes, *cells, generator=generator)
    target = torch.randint(0, classes, (images, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = 255
    return logits, target.to(torch.uint8)


def plain(
    logits: Tensor, target: Tensor, stride: int, recipe: Recipe, *, aligned: bool = False
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient by the big tensor, in float64."""
    cells = logits.double().requires_grad_()
    size = (target.shape[1], target.shape[2])
    full, labels = upsample(cells, stride, size, aligned=aligned), target.long()
    weights = full.new_tensor(recipe.class_weights) if recipe.class_weights else None
    loss = cross_entropy(full, labels, weights, recipe.label_smoothing, recipe.ohem_fraction)
    loss = loss + recipe.dice_weight * dice_loss(full, labels)
    return loss.detach(), torch.autograd.grad(loss, cells)[0]


def ours(
    logits: Tensor, target: Tensor, stride: int, recipe: Recipe, *, aligned: bool = False
) -> tuple[Tensor, Tensor]:
    cells = logits.clone().requires_grad_()
    loss = upsampled_loss(cells, target, stride, recipe, aligned=aligned)
    return loss.detach(), torch.autograd.grad(loss, cells)[0]


def assert_equal(
    logits: Tensor, target: Tensor, stride: int, recipe: Recipe, *, aligned: bool = False
) -> None:
    loss, gradient = ours(logits, target, stride, recipe, aligned=aligned)
    expected, slope = plain(logits, target, stride, recipe, aligned=aligned)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    rounding = 1e-7  # of pixels' slopes that cancel out; in all they are up to 1
    assert float((gradient - slope).norm()) <= 1e-5 * float(slope.norm()) + rounding
    atol = 1e-6 * float(slope.abs().max()) + rounding
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("size", [(65, 97), (50, 71), (1, 3)])
@pytest.mark.usefixtures("way")
def test_cells_on_pixels_are_as_the_plain_one(size: tuple[int, int]) -> None:
    assert_equal(*batch(5, size, 8), 8, EVERYTHING, aligned=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("hard", [1.0, 0.3])
@pytest.mark.parametrize("dice", [0.0, 0.7])
def test_every_combination_of_options(
    way: str, weighted: bool, smoothing: float, hard: float, dice: float
) -> None:
    weights = tuple(0.25 + (k % 4) for k in range(19)) if weighted else ()
    recipe = Recipe(
        class_weights=weights, label_smoothing=smoothing, ohem_fraction=hard, dice_weight=dice
    )
    assert_equal(*batch(19, (75, 43), 4), 4, recipe)


@pytest.mark.parametrize("available", [True, False])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    classes=st.integers(1, 40),
    height=st.integers(1, 90),
    width=st.integers(1, 30),
    stride=st.sampled_from([1, 2, 3, 4, 8, 16]),
    spread=st.sampled_from([0.1, 3.0, 40.0]),
    smoothing=st.sampled_from([0.0, 0.2]),
    dice=st.sampled_from([0.0, 1.0]),
)
def test_any_size(
    available: bool,
    classes: int,
    height: int,
    width: int,
    stride: int,
    spread: float,
    smoothing: float,
    dice: float,
) -> None:
    logits, target = batch(classes, (height, width), stride, spread=spread)
    target[0, 0, 0] = 0
    recipe = Recipe(label_smoothing=smoothing, dice_weight=dice)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips, "_STRIP_VALUES", 1 << 12)
        if not available:
            patch.setattr(loss_kernel, "is_available", lambda: False)
        assert_equal(logits, target, stride, recipe)


def test_nothing_labelled_costs_nothing(way: str) -> None:
    logits, target = batch(5, (20, 30), 4)
    loss, gradient = ours(logits, torch.full_like(target, 255), 4, EVERYTHING)
    assert loss == 0 and not gradient.any()


def test_pixels_without_weight_cost_nothing(way: str) -> None:
    logits, target = batch(5, (20, 30), 4)
    target.fill_(3)
    recipe = Recipe(class_weights=EVERYTHING.class_weights, label_smoothing=0.1)
    for loss, gradient in (ours(logits, target, 4, recipe), plain(logits, target, 4, recipe)):
        assert loss == 0 and not gradient.any()


def test_one_labelled_pixel(way: str) -> None:
    logits, target = batch(5, (20, 30), 4)
    target.fill_(255)
    target[1, 17, 3] = 2
    assert_equal(logits, target, 4, EVERYTHING)


def test_certain_logits_stay_finite(way: str) -> None:
    logits, target = batch(5, (20, 30), 4, spread=1e4)
    loss, gradient = ours(logits, target, 4, EVERYTHING)
    torch.testing.assert_close(
        loss.double(), plain(logits, target, 4, EVERYTHING)[0], rtol=1e-5, atol=0
    )
    assert gradient.isfinite().all()


def test_what_is_not_a_number_is_not_hidden(way: str) -> None:
    logits, target = batch(5, (20, 30), 4)
    logits[0, 3, 2, 2] = math.nan
    assert upsampled_loss(logits, target, 4, Recipe()).isnan()


def test_a_train_id_beyond_the_classes_is_an_error() -> None:
    """On a CPU; asking for it would keep a GPU waiting."""
    if kernel("upsampled_loss") is None:
        pytest.skip("no library for this machine")
    logits, target = batch(5, (20, 30), 4)
    target[0, 0, 0] = 5
    with pytest.raises(AssertionError, match="train id"):
        upsampled_loss(logits, target, 4, Recipe())


def test_the_gradient_scales_with_the_loss(way: str) -> None:
    logits, target = batch(5, (20, 30), 4)
    _, gradient = ours(logits, target, 4, EVERYTHING)
    cells = logits.clone().requires_grad_()
    loss = 3 * upsampled_loss(cells, target, 4, EVERYTHING)
    for _ in range(2):
        torch.testing.assert_close(
            torch.autograd.grad(loss, cells, retain_graph=True)[0], 3 * gradient
        )


def test_half_precision_is_computed_in_full(way: str) -> None:
    logits, target = batch(5, (20, 30), 4)
    half = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradient = ours(half, target, 4, EVERYTHING)
    expected, slope = ours(half.float(), target, 4, EVERYTHING)
    assert loss == expected and gradient.dtype == torch.bfloat16
    assert torch.equal(gradient, slope.bfloat16())


def test_layout_does_not_matter(way: str) -> None:
    logits, target = batch(5, (20, 30), 4)
    turned = logits.to(memory_format=torch.channels_last)
    for mine, theirs in zip(
        ours(turned, target, 4, EVERYTHING), ours(logits, target, 4, EVERYTHING), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple) else (result,):
            if isinstance(part, Tensor):
                self.values = max(self.values, part.numel())
        return result


def test_no_tensor_has_the_size_of_the_upsampled_logits(way: str) -> None:
    logits, target = batch(64, (240, 32), 8)
    with Largest() as whole:
        plain(logits, target, 8, Recipe())
    with Largest() as largest:
        ours(logits, target, 8, Recipe(dice_weight=1.0))
    assert whole.values >= 64 * target.numel()
    assert largest.values <= max(8 * logits.numel(), target.numel())


def test_threads_do_not_change_a_bit(way: str) -> None:
    logits, target = batch(21, (270, 40), 4, images=3)
    recipe, results = Recipe(dice_weight=1.0), []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(ours(logits, target, 4, recipe))
    assert torch.equal(results[0][0], results[1][0])
    assert way == "strips" or torch.equal(results[0][1], results[1][1])


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="has one level only")
@pytest.mark.parametrize("level", [1, 3])
def test_older_processors_compute_the_same_bits(
    level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = ctypes.CDLL(str(LIBRARIES / f"{sys.platform}-x86_64.bin"))
    if level > library.processor_level():
        pytest.skip("this processor is older")
    logits, target = batch(21, (61, 40), 4)
    best = ours(logits, target, 4, Recipe(label_smoothing=0.1, dice_weight=1.0))
    function = getattr(library, f"upsampled_loss_v{level}")
    monkeypatch.setattr(kernels, "kernel", lambda _: function)
    older = ours(logits, target, 4, Recipe(label_smoothing=0.1, dice_weight=1.0))
    assert torch.equal(best[0], older[0]) and torch.equal(best[1], older[1])
