"""Norms whose class was swapped are torch's on the CPU, and the kernels' where Triton runs."""

import pickle
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from timm.models._efficientnet_blocks import InvertedResidual
from torch import Tensor, nn
from triton_tools import DEVICE, run_with_triton

from atrous.models import convolution
from atrous.models.layers import ConvNormAct, Norm
from atrous.models.normalization import FusedNorm, FusedNormAct, is_fusible, swap_norms

BACKBONES = ("resnet18", "resnet50", "mobilenetv3_large_100")


def start_of(name: str) -> nn.Module:
    """Return the first stages of one of timm's networks."""
    torch.manual_seed(0)
    return timm.create_model(name, features_only=True, pretrained=False, out_indices=(0, 1))


def swapped_start_of(name: str) -> nn.Module:
    network = start_of(name)
    swap_norms(network)
    return network


def step(network: nn.Module, device: str) -> list[Tensor]:
    """Return the features in training and evaluation, the gradients and the buffers."""
    network.to(device, memory_format=torch.channels_last).train()
    image = torch.randn(2, 3, 16, 16, generator=torch.manual_seed(0)).to(device)
    outputs = [output.clone() for output in network(image)]
    sum((o * o.cos()).mean() for o in outputs).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    with torch.inference_mode():
        outputs += network.eval()(image)
    return [*outputs, *gradients, *network.buffers()]


def equal(first: Iterable[Tensor], second: Iterable[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", BACKBONES)
def test_swapped_network_keeps_bits_and_names_on_a_cpu(name: str) -> None:
    plain, swapped = start_of(name), swapped_start_of(name)
    assert list(plain.state_dict()) == list(swapped.state_dict())
    copies = [swapped, deepcopy(swapped), pickle.loads(pickle.dumps(swapped))]
    right = step(plain, "cpu")
    assert all(equal(step(network, "cpu"), right) for network in copies)


def test_activations_of_a_resnet_are_merged_with_the_norms_before_them() -> None:
    kinds = Counter(type(module) for module in swapped_start_of("resnet50").modules())
    # the stem, two in each of three units; the last of a unit, and the shortcut's
    assert kinds[FusedNormAct] == 1 + 3 * 2 and kinds[FusedNorm] == 3 + 1
    kinds = Counter(type(module) for module in swapped_start_of("resnet18").modules())
    assert kinds[FusedNormAct] == 1 + 2 and kinds[FusedNorm] == 2


def test_what_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, relu = torch.zeros(2, 4, 3, 3), nn.ReLU()
    assert not is_fusible(FusedNorm(4), relu, x)  # no Triton on the CPU
    monkeypatch.setattr(convolution, "is_usable", lambda device: True)
    assert is_fusible(FusedNorm(4), relu, x)
    assert not is_fusible(FusedNorm(4), nn.Tanh(), x)
    assert not is_fusible(FusedNorm(4), relu, x.double())
    assert not is_fusible(FusedNorm(4), relu, x[:1, :, :1, :1])
    assert not is_fusible(FusedNorm(4), relu, x[:0])
    for option in ({"momentum": None}, {"affine": False}, {"track_running_stats": False}):
        assert not is_fusible(FusedNorm(4, **option), relu, x)
    norm = FusedNorm(4).eval()
    assert not is_fusible(norm, relu, x)  # a gradient through running statistics
    assert is_fusible(norm.requires_grad_(False), relu, x)
    with torch.no_grad():
        assert is_fusible(norm.requires_grad_(), relu, x)


class Residuals(nn.Sequential):
    """Two units, which have activations within their norms; returns a list, as `start_of`."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        widths = (3, 3), (3, 5)
        act, norm = nn.Hardswish, BatchNormAct2d
        super().__init__(*(InvertedResidual(*w, act_layer=act, norm_layer=norm) for w in widths))

    def forward(self, image: Tensor) -> list[Tensor]:
        return [super().forward(image)]


def compare_with_torch() -> None:
    """Compare networks and layers with the kernels and without; runs where Triton does."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
    usable = convolution.is_usable
    for network in (start_of("resnet18"), Residuals()):
        swap_norms(network)
        found = step(deepcopy(network), DEVICE)
        assert equal(found, step(deepcopy(network), DEVICE))
        convolution.is_usable = lambda device: False
        right = step(network, DEVICE)
        convolution.is_usable = usable
        for ours, expected in zip(found, right, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5)

    layer = ConvNormAct(3, 5, 3).to(DEVICE)
    x = torch.randn(2, 3, 6, 7, device=DEVICE)
    assert type(layer(x).grad_fn).__name__ == "_FusedBackward"
    expected = layer[2](nn.BatchNorm2d(5).to(DEVICE)(layer[0](x)))
    torch.testing.assert_close(layer(x), expected)
    half = deepcopy(layer).bfloat16()
    half(x.bfloat16()).sum().backward()
    assert {p.grad.dtype for p in half.parameters()} == {torch.bfloat16}
    with torch.autocast(DEVICE, torch.bfloat16):
        y = layer(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and layer[1].weight.grad.dtype == torch.float32

    norm, single = Norm(3).to(DEVICE), torch.ones(1, 3, 1, 1, device=DEVICE)
    torch.testing.assert_close(norm(single), single / (1 + norm.eps) ** 0.5)


@pytest.mark.gpu
@pytest.mark.slow
def test_network_with_kernels_equals_torch() -> None:
    pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")
    code = "from test_normalization import *; compare_with_torch()"
    run_with_triton(code, Path(__file__).parent)
