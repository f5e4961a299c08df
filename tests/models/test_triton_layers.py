"""Layers that run in Triton on a GPU, in its interpreter where there is none, against torch."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from triton_tools import DEVICE, compile_for_gpu, run_with_triton

from atrous.models.convolution import DepthwiseConv, StaticSameConv
from atrous.models.layers import (
    ASPP,
    ConvNormAct,
    SeparableConv,
    resize,
    resize_to,
    upsampler,
)

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.003}
HERE = Path(__file__).parent


def compare_depthwise() -> None:
    """Kernel, stride, dilation and padding; channels; size; layout; type."""
    last, first = torch.channels_last, torch.contiguous_format
    whole, half = torch.float32, torch.bfloat16
    for k, s, d, padding, channels, size, layout, dtype in (
        (3, 1, 1, 1, 5, (2, 5, 7), last, whole),
        (3, 2, 1, 1, 33, (1, 6, 5), first, half),
        (5, 1, 2, 4, 17, (1, 5, 3), last, half),
        (5, 2, 3, 1, 3, (2, 12, 13), first, whole),
        (7, 1, 1, 3, 1, (2, 4, 6), last, torch.float16),
        (3, 1, 9, 9, 4, (1, 5, 3), last, whole),  # dilated beyond the image
        (3, 1, 1, 1, 64, (1, 3, 4), last, whole),
        (2, 2, 1, 0, 3, (1, 5, 6), last, whole),
        (3, 1, 1, 1, 1, (1, 1, 1), last, whole),
    ):
        conv = nn.Conv2d(channels, channels, k, s, padding, d, groups=channels, bias=False)
        compare_conv(conv, DepthwiseConv, size, layout, dtype)
    for k, s, d in (3, 2, 1), (5, 2, 1), (2, 1, 2), (5, 1, 2):
        conv = nn.Conv2d(3, 3, k, s, 0, d, groups=3, bias=False)
        compare_conv(conv, StaticSameConv, (1, 6, 4), last, whole)


def compare_conv(
    conv: nn.Conv2d,
    kind: type[nn.Conv2d],
    size: tuple[int, ...],
    layout: torch.memory_format,
    dtype: torch.dtype,
) -> None:
    """Check a convolution in Triton and its gradients by torch's in float64."""
    images, height, width = size
    ours = copy.deepcopy(conv.to(dtype)).to(DEVICE)
    theirs = conv.double()
    ours.__class__ = theirs.__class__ = kind
    x = torch.randn(images, conv.in_channels, height, width)
    x = x.to(DEVICE, dtype, memory_format=layout).requires_grad_()
    result = ours(x)
    assert type(result.grad_fn).__name__ == "_TritonDepthwiseBackward"
    assert result.dtype == dtype and result.is_contiguous(memory_format=torch.channels_last)
    reference = x.detach().double().cpu().requires_grad_()
    expected = theirs(reference)  # by torch: the kernels take no float64
    flow = torch.randn_like(expected).to(dtype)
    grads = torch.autograd.grad(result, [x, ours.weight], flow.contiguous().to(DEVICE))
    check([result, *grads], [expected, *gradients(expected, [reference, theirs.weight], flow)])


def use_without_training() -> None:
    conv = DepthwiseConv(4, 4, 3, padding=1, groups=4, bias=False).to(DEVICE)
    x = torch.randn(1, 4, 5, 5, device=DEVICE)
    trained = conv(x)
    assert torch.equal(conv.eval()(x), trained)
    with torch.inference_mode():
        assert torch.equal(conv(x), trained)


def repeat_to_the_bit() -> None:
    conv = DepthwiseConv(4, 4, 3, padding=1, groups=4, bias=False).to(DEVICE)
    x = torch.randn(2, 4, 9, 5, device=DEVICE, requires_grad=True)
    result = resize(conv(x), 2)
    # the gradient of a sum has strides of 0
    pairs = [torch.autograd.grad(result.sum(), [x, conv.weight], retain_graph=True) for _ in "ab"]
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def gradients(output: Tensor, inputs: list[Tensor], flow: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output, inputs, flow.double())


def check(found: list[Tensor], expected: list[Tensor]) -> None:
    for mine, reference in zip(found, expected, strict=True):
        assert mine.shape == reference.shape
        error = (mine.detach().cpu().double() - reference).abs().max()
        assert error <= TOLERANCES[mine.dtype] * reference.abs().max(), error


def use_autocast() -> None:
    conv = DepthwiseConv(4, 4, 3, padding=1, groups=4, bias=False).to(DEVICE)
    x = torch.randn(1, 4, 5, 5, device=DEVICE, requires_grad=True)
    with torch.autocast(DEVICE, torch.bfloat16):
        result = conv(x)
    assert result.dtype == torch.bfloat16
    grads = torch.autograd.grad(result.sum(), [x, conv.weight])
    assert [g.dtype for g in grads] == [torch.float32, torch.float32]


def leave_to_torch() -> None:
    conv = DepthwiseConv(2, 2, 9, padding=4, groups=2, bias=False).to(DEVICE)
    assert "Triton" not in type(conv(torch.randn(1, 2, 9, 9, device=DEVICE)).grad_fn).__name__
    conv = DepthwiseConv(2, 2, 3, padding=1, groups=2, bias=False).to(DEVICE)
    assert conv(torch.randn(0, 2, 9, 9, device=DEVICE)).shape == (0, 2, 9, 9)
    program = torch.export.export(conv, (torch.randn(1, 2, 9, 9, device=DEVICE),))
    assert any("conv" in str(node.target) for node in program.graph.nodes)


def compare_resize() -> None:
    """Gradients of resizing by factors and to sizes; both ways of aligning."""
    whole, half = torch.float32, torch.bfloat16
    for align_corners in (False, True):
        for size, factor, dtype in (
            ((2, 5, 3, 4), 2, whole),
            ((1, 17, 5, 3), 4, half),
            ((1, 3, 7, 9), 0.75, whole),
            ((1, 2, 9, 9), 1 / 1.25, whole),
            ((1, 3, 1, 2), 3, whole),
        ):
            compare_resized(size, dtype, resize, factor, align_corners)
        for size, to in (((1, 4, 1, 1), (7, 5)), ((1, 4, 6, 6), (13, 15)), ((1, 1, 3, 6), (1, 4))):
            compare_resized(size, whole, resize_to, to, align_corners)


def compare_resized(
    size: tuple[int, ...], dtype: torch.dtype, by: Any, to: Any, align_corners: bool
) -> None:
    x = torch.randn(size).to(DEVICE, dtype).requires_grad_()
    result = by(x, to, align_corners=align_corners)
    assert type(result.grad_fn).__name__ == "_ResizeBackward"
    reference = x.detach().cpu().double().requires_grad_()
    expected = by(reference, to, align_corners=align_corners)
    flow = torch.randn_like(expected).to(dtype)
    grads = torch.autograd.grad(result, x, flow.to(DEVICE), retain_graph=True)
    check([result, *grads], [expected, *gradients(expected, [reference], flow)])
    assert torch.equal(grads[0], torch.autograd.grad(result, x, flow.to(DEVICE))[0])


def train_network() -> None:
    """Check a small network in training against itself in float64, which goes by torch."""
    torch.manual_seed(0)
    stem = StaticSameConv(3, 3, 3, 2, groups=3, bias=False)
    aspp = ASPP(4, ASPP.Config(channels=5, atrous_rates=(2, 6), separable=True))
    network = nn.Sequential(
        stem, ConvNormAct(3, 4), SeparableConv(4, 4, norm=False), aspp, upsampler(5, 2, "bilinear")
    )
    for module in network.modules():
        if isinstance(module, ConvNormAct):
            module[2] = nn.Softplus()  # rounding flips the gradient of a ReLU
    ours, theirs = copy.deepcopy(network).to(DEVICE), network.double()
    image = torch.randn(2, 3, 8, 12)
    found, expected = ours(image.to(DEVICE)), theirs(image.double())
    flow = torch.randn_like(expected).float()
    found.backward(flow.to(DEVICE))
    expected.backward(flow.double())
    check([found], [expected])
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None and reference.grad is not None
        error = (mine.grad.cpu() - reference.grad).abs().max()
        assert error < 1e-4 * (1 + reference.grad.abs().max())
    assert {"_TritonDepthwiseBackward", "_ResizeBackward"} <= functions(found)


def functions(result: Tensor) -> set[str]:
    """Return the names of all functions in the graph of `result`."""
    seen, waiting = set(), [result.grad_fn]
    while waiting:
        function = waiting.pop()
        if function is not None and function not in seen:
            seen.add(function)
            waiting += [following for following, _ in function.next_functions]
    return {type(function).__name__ for function in seen}


@pytest.mark.parametrize(
    "check_names",
    [
        ("compare_depthwise",),
        ("compare_resize", "use_autocast", "use_without_training"),
        ("leave_to_torch", "repeat_to_the_bit", "train_network"),
    ],
)
def test_in_triton(check_names: tuple[str, ...]) -> None:
    calls = "; ".join(f"{name}()" for name in check_names)
    run_with_triton(f"from test_triton_layers import *; {calls}", Path(__file__).parent)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kind", ["*bf16", "*fp32"])
def test_depthwise_compiles_without_spills(kind: str, capability: int) -> None:
    from atrous.kernels.triton.depthwise import _add, _filter, _weight_sums

    def spilled(kernel: Any, tensors: str, constants: dict[str, Any], warps: int = 4) -> bool:
        kinds = {name: "*fp32" if name in ("taps", "sums") else kind for name in tensors.split()}
        found = compile_for_gpu(
            kernel, kinds, constants, aligned=list(kinds),
            num_warps=warps, capability=capability,
        )  # fmt: skip
        return found.spilled > 32  # ptxas prefers a few bytes to fewer warps at a time

    for kernel, stride, transposed in (7, 1, False), (5, 1, True), (5, 2, True):
        constants = {"stride": stride, "kernel": kernel, "transposed": transposed, "vector": 8}
        constants |= {"pixels": 32 if kind == "*bf16" else 16, "block": 64}
        assert not spilled(_filter, "source taps result", constants)
    warps = 4 if kind == "*bf16" else 8
    for kernel, stride in (3, 1), (5, 1), (5, 2), (7, 1):
        constants = {"stride": stride, "kernel": kernel, "vector": 8, "lanes": 32, "block": 32}
        constants["phases"] = 32 // kernel
        assert not spilled(_weight_sums, "source grad sums", constants, warps)
    constants = {"taps": 25, "chunk": 512, "block": 16}
    assert not spilled(_add, "sums result", constants, 8)


@pytest.mark.parametrize("capability", [80, 90])
def test_resize_compiles_without_spills(capability: int) -> None:
    from atrous.kernels.triton.resize import _collect_cells

    for before, after in ("*bf16", "*fp32"), ("*fp32", "*bf16"), ("*fp32", "*fp32"):
        kinds = {"grad": before, "result": after, "scale": "fp32", "inverse": "fp32"}
        found = compile_for_gpu(
            _collect_cells, kinds, {"aligned": False, "group": 8, "block": 128},
            aligned=["grad", "result", "inner"], capability=capability,
        )  # fmt: skip
        assert found.spilled == 0
