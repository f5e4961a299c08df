"""The GPU's loss, in Triton's interpreter where there is no GPU, against the plain one."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from test_upsampled_loss import batch, plain
from torch._subclasses.fake_tensor import FakeTensorMode
from triton_tools import DEVICE, compile_for_gpu, run_with_triton

from atrous.kernels.triton import is_usable
from atrous.train.loss import gpu, strips, upsampled
from atrous.train.loss.strips import Batch
from atrous.train.loss.upsampled import loss_and_gradient, upsampled_loss
from atrous.train.recipe import Recipe

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")


def recipe(classes: int) -> Recipe:
    """Every option at once; a class in four has no weight."""
    return Recipe(
        class_weights=tuple(0.5 * ((k + 1) % 4) for k in range(classes)),
        label_smoothing=0.1,
        ohem_fraction=0.4,
        dice_weight=0.7,
    )


def compare(
    classes: int,
    size: tuple[int, int],
    stride: int,
    options: Recipe,
    dtype: str = "float32",
    layout: torch.memory_format = torch.channels_last,
    aligned: bool = False,
) -> None:
    logits, target = batch(classes, size, stride, images=1 if stride > 8 else 2, spread=2.0)
    logits = logits.to(DEVICE, getattr(torch, dtype)).to(memory_format=layout)
    target = target.to(DEVICE)
    expected, slope = plain(logits, target, stride, options, aligned=aligned)
    loss = upsampled_loss(logits.requires_grad_(), target, stride, options, aligned=aligned)
    assert abs(loss - expected) <= 1e-5 * abs(expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.dtype == logits.dtype
    tolerance = 1e-5 if dtype == "float32" else 5e-3  # of the gradient's own rounding
    assert (gradient.double() - slope).norm() <= tolerance * slope.norm() + 1e-7


def compare_options() -> None:
    assert upsampled._backend(DEVICE) is gpu
    compare(11, (9, 7), 4, Recipe(), layout=torch.contiguous_format)
    compare(11, (9, 7), 4, Recipe(label_smoothing=0.1))
    compare(11, (9, 7), 4, Recipe(ohem_fraction=0.3))
    compare(11, (9, 7), 4, Recipe(dice_weight=1.0), "bfloat16")
    compare(11, (9, 7), 4, recipe(11), layout=torch.contiguous_format)
    compare(11, (9, 7), 4, recipe(11), aligned=True)


def compare_sizes() -> None:
    compare(33, (5, 4), 1, recipe(33))
    compare(182, (3, 3), 2, recipe(182))
    compare(2, (10, 11), 3, recipe(2))
    compare(19, (8, 8), 8, recipe(19))
    compare(182, (9, 7), 8, Recipe(label_smoothing=0.1), "bfloat16")
    compare(5, (17, 6), 16, recipe(5), "float16")
    compare(12, (5, 3), 32, Recipe())
    compare(1, (5, 6), 4, Recipe(dice_weight=1.0, label_smoothing=0.1))


def use_special_targets() -> None:
    logits, target = (part.to(DEVICE) for part in batch(5, (6, 4), 4))
    ignored = torch.full_like(target, 255)
    loss, gradient = loss_and_gradient(Batch(logits, ignored, 4), recipe(5))
    assert loss == 0 and not gradient.any()
    weightless = torch.full_like(target, 3)
    options = Recipe(class_weights=recipe(5).class_weights, label_smoothing=0.1)
    loss, gradient = loss_and_gradient(Batch(logits, weightless, 4), options)
    assert loss == 0 and not gradient.any()
    one = ignored.clone()
    one[1, 5, 2] = 2
    loss, gradient = loss_and_gradient(Batch(logits, one, 4), recipe(5))
    expected, slope = plain(logits, one, 4, recipe(5))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-4, atol=1e-7)
    turned = target.mT.contiguous().mT  # not contiguous
    results = [loss_and_gradient(Batch(logits, t, 4), recipe(5)) for t in (target, turned)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    loss, _ = loss_and_gradient(Batch(1e4 * logits, target, 4), recipe(5))
    expected, _ = plain(1e4 * logits, target, 4, recipe(5))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    logits[0, 3, 1, 0] = torch.nan
    assert loss_and_gradient(Batch(logits, target, 4), Recipe())[0].isnan()


def count_many() -> None:
    target = torch.randint(0, 256, (3, 11, 57), generator=torch.Generator().manual_seed(0))
    for classes in (1, 255):
        counts = gpu.count(target.to(DEVICE, torch.uint8), classes)
        assert torch.equal(counts.cpu().long(), torch.bincount(target.flatten())[:classes])
        assert torch.equal(strips.count(target, classes), counts.cpu().long())


@pytest.mark.gpu
@pytest.mark.slow
def test_equals_the_plain_loss() -> None:
    checks = "compare_options(); compare_sizes(); use_special_targets(); count_many()"
    run_with_triton(f"from test_triton_loss import *; {checks}", Path(__file__).parent)


def test_nothing_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without values, on a GPU that need not be there: asking for a value raises."""
    from atrous.kernels.triton import loss as kernels

    monkeypatch.setattr(upsampled, "is_usable", lambda device: True)
    for name in ("_count", "_measure", "_differentiate"):
        monkeypatch.setattr(kernels, name, MagicMock())
    upsampled._tables.cache_clear()
    try:
        with FakeTensorMode():
            logits = torch.empty(2, 11, 5, 6, dtype=torch.bfloat16, device="cuda:0")
            target = torch.empty(2, 18, 23, dtype=torch.uint8, device="cuda:0")
            loss, gradient = loss_and_gradient(Batch(logits, target, 4), recipe(11))
        assert loss.device == gradient.device == logits.device
        assert gradient.shape == logits.shape
        assert gradient.is_contiguous(memory_format=torch.channels_last)
    finally:
        upsampled._tables.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("classes", "stride"), [(11, 4), (19, 8), (33, 16), (182, 8)])
def test_compiles_for_a_gpu(classes: int, stride: int, capability: int) -> None:
    from atrous.kernels.triton import loss as kernels

    kinds = {"logits": "*bf16", "target": "*u8", "kept": "*i1"}
    tables = ("own", "every", "dice_own", "dice_every", "losses", "shares", "sums")
    kinds |= dict.fromkeys(tables, "*fp32")
    sizes = {"stride": stride, "aligned": False, **kernels.tile_sizes(classes, stride)}
    plain_sizes = sizes | dict.fromkeys(("kept", "dice_own", "dice_every"))
    for kernel, constants in (
        (kernels._measure, sizes),
        (kernels._differentiate, sizes),
        (kernels._differentiate, plain_sizes),
    ):
        found = compile_for_gpu(kernel, kinds, constants, num_warps=1, capability=capability)
        assert found.spilled <= 32  # ptxas prefers a few bytes to fewer warps at a time


def test_counting_compiles_for_a_gpu() -> None:
    from atrous.kernels.triton.loss import _count

    constants = {"pixels": 1024, "step": 8, "block": 256}
    kinds = {"target": "*u8", "counts": "*i32"}
    assert compile_for_gpu(_count, kinds, constants, num_warps=1).spilled == 0


def test_device_ranks_what_the_host_would_count() -> None:
    values = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    for count in (1, 20, 70):
        expected = upsampled.largest(values, count, count)
        assert expected.sum() == count
        assert torch.equal(upsampled.largest(values, torch.tensor(count), 70), expected)


def test_the_cpu_does_not_take_the_interpreter() -> None:
    assert not is_usable("cpu")
