"""The GPU's norm and activation, in Triton's interpreter where there is no GPU, against torch's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from triton_tools import DEVICE, compile_for_gpu, run_with_triton

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

ACTIVATIONS = {
    "none": lambda y: y,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "silu": F.silu,
}
EPS, MOMENTUM = 1e-3, 0.25


def draw(shape: tuple[int, ...], dtype: torch.dtype, mean: float = 0) -> tuple[torch.Tensor, ...]:
    """Return x, a gradient, weight, bias, running mean and variance, channels-last."""
    generator = torch.Generator().manual_seed(sum(shape))
    x, grad = torch.randn(2, *shape, generator=generator)
    x, grad = (t.to(dtype).contiguous(memory_format=torch.channels_last) for t in (x + mean, grad))
    weight, bias, running = torch.randn(3, shape[1], generator=generator)
    return tuple(t.to(DEVICE) for t in (x, grad, weight, bias, running, running.exp()))


def results(
    activation: Any, x: torch.Tensor, grad: torch.Tensor, *rest: torch.Tensor
) -> list[torch.Tensor]:
    """Return y, the running statistics and the gradients of x, weight and bias."""
    from atrous.kernels.triton.norm import batch_moments, gradients, normalize

    weight, bias, *running = (t.clone() for t in rest)
    moments = batch_moments(x, running[0], running[1], MOMENTUM)
    y = normalize(x, *moments, weight, bias, EPS, activation)
    assert y.dtype == x.dtype and y.is_contiguous(memory_format=torch.channels_last)
    return [y, *running, *gradients(grad, x, *moments, weight, bias, EPS, activation)]


def expected(
    activation: Any, x: torch.Tensor, grad: torch.Tensor, *rest: torch.Tensor
) -> list[torch.Tensor]:
    """Return the same by torch, in float64."""
    weight, bias, *running = (t.double().requires_grad_(i < 2) for i, t in enumerate(rest))
    x = x.double().requires_grad_()
    y = F.batch_norm(x, running[0], running[1], weight, bias, True, MOMENTUM, EPS)
    y = ACTIVATIONS[activation](y)
    return [y.detach(), *running, *torch.autograd.grad(y, (x, weight, bias), grad.double())]


def compare(shape: tuple[int, ...], activation: Any, dtype: str = "float32") -> None:
    values = draw(shape, getattr(torch, dtype))
    tolerance = {"float32": 2e-5, "bfloat16": 8e-3, "float16": 1e-3}[dtype]
    exact = {"rtol": 2e-5, "atol": 2e-5}
    for index, (found, right) in enumerate(
        zip(results(activation, *values), expected(activation, *values), strict=True)
    ):
        limits = {"rtol": tolerance, "atol": tolerance} if index in (0, 3) else exact
        torch.testing.assert_close(found.double(), right, **limits)


def compare_all() -> None:
    from atrous.kernels.triton import norm

    for activation in ACTIVATIONS:
        compare((2, 17, 5, 7), activation)
        compare((2, 17, 5, 7), activation, "bfloat16")
    compare((2, 3, 1, 1), "relu")
    compare((1, 1, 1, 5), "relu")
    compare((2, 72, 3, 3), "relu6", "float16")
    norm._SUMMING, norm._WRITING = 4, 8  # several tiles a program
    compare((2, 130, 20, 25), "relu6")
    compare((3, 1, 90, 70), "none", "bfloat16")


def compare_large_means() -> None:
    """Deviations are small beside the mean; then, the first value lies far from all others."""
    values = draw((2, 3, 25, 41), torch.float32, mean=1000)
    for _ in range(2):
        found, right = results("none", *values), expected("none", *values)
        for ours, true in zip(found, right, strict=True):
            torch.testing.assert_close(ours.double(), true, rtol=5e-3, atol=5e-3)
        torch.testing.assert_close(found[2].double(), right[2], rtol=1e-5, atol=0)  # variance
        values[0][0, :, 0, 0] = 0


def use_running_statistics() -> None:
    from atrous.kernels.triton.norm import normalize

    for dtype in (torch.float32, torch.bfloat16):
        x, _, weight, bias, mean, variance = draw((2, 17, 3, 5), dtype)
        found = normalize(x, mean, variance, weight, bias, EPS, "relu6")
        right = F.relu6(F.batch_norm(x, mean, variance, weight, bias, eps=EPS))
        assert found.dtype == right.dtype
        torch.testing.assert_close(found, right)


def repeat() -> None:
    values = draw((2, 40, 30, 31), torch.bfloat16)
    for first, second in zip(results("relu", *values), results("relu", *values), strict=True):
        assert torch.equal(first, second)


def pass_nan_on() -> None:
    x, *rest = draw((1, 3, 2, 2), torch.float32)
    x[0, 1, 1, 1] = torch.nan
    for activation in ACTIVATIONS:
        y, _, _, of_x, _, _ = results(activation, x, *rest)
        for values in (y, of_x):
            assert values[0, 1].isnan().all() and not values[0, ::2].isnan().any(), activation


def test_equals_torch() -> None:
    code = (
        "from test_triton_norm import *; compare_all(); compare_large_means(); "
        "use_running_statistics(); repeat(); pass_nan_on()"
    )
    run_with_triton(code, Path(__file__).parent)


SIZES = [(64, 8, "bf16"), (32, 8, "fp32"), (16, 1, "bf16")]
"""Columns of a tile, values that are read at a time, and their type."""


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("columns", "vector", "dtype"), SIZES)
def test_compiles_for_a_gpu(capability: int, columns: int, vector: int, dtype: str) -> None:
    from atrous.kernels.triton import norm

    kinds = dict.fromkeys(("x", "y", "grad", "of_x"), f"*{dtype}")
    kinds |= dict.fromkeys(("mean", "variance", "weight", "bias", "partial"), "*fp32")
    kinds |= {"of_weight": "*fp32", "of_bias": "*fp32", "eps": "fp32"}
    for kernel in (norm._partial_moments, norm._normalize, norm._partial_slopes, norm._slopes):
        sizes = {"block_r": norm._TILE // columns, "block_c": columns, "vector": vector}
        if "activation" in kernel.arg_names:
            sizes |= {"activation": "hardswish"}
        assert compile_for_gpu(kernel, kinds, sizes, capability=capability).spilled == 0


@pytest.mark.parametrize("capability", [80, 90])
def test_merging_compiles_for_a_gpu(capability: int) -> None:
    from atrous.kernels.triton import norm

    names = ("partial", "mean", "variance", "running_mean", "running_var", "of_weight", "of_bias")
    kinds = dict.fromkeys(names, "*fp32") | {"momentum": "fp32"}
    for kernel in (norm._merge_moments, norm._merge_slopes):
        sizes = {"block_n": norm._SUMMING, "block_c": 4}
        assert compile_for_gpu(kernel, kinds, sizes, capability=capability).spilled == 0
