"""The weight's gradient of a depthwise convolution by the compiled loop is torch's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.kernels import kernel
from atrous.kernels.depthwise import Geometry
from atrous.models.convolution import has_weight_gradient, weight_gradient

pytestmark = pytest.mark.skipif(
    kernel("depthwise_weight_gradient") is None, reason="no library for this machine"
)


def torchs(x: torch.Tensor, grad: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """In float64."""
    g, channels = geometry, x.shape[1]
    weight = torch.zeros(channels, 1, g.kernel, g.kernel, dtype=torch.float64, requires_grad=True)
    result = torch.nn.functional.conv2d(
        x.double(), weight, None, g.stride, g.padding, g.dilation, channels
    )
    return torch.autograd.grad(result, weight, grad.double())[0]


def inputs(
    channels: int, size: tuple[int, int], geometry: Geometry, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(2, channels, *size, generator=generator)
    reach = geometry.dilation * (geometry.kernel - 1) + 1
    sides = [(side + 2 * geometry.padding - reach) // geometry.stride + 1 for side in size]
    return x.to(dtype), torch.randn(2, channels, *sides, generator=generator).to(dtype)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 70),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    kernel=st.integers(2, 7),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    margin=st.integers(0, 3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_it_equals_torchs(channels, height, width, kernel, stride, dilation, margin, dtype):
    reach = dilation * (kernel - 1) + 1
    padding = max(reach // 2, (reach - min(height, width) + 1) // 2) + margin
    geometry = Geometry(kernel, stride, padding, dilation)
    x, grad = inputs(channels, (height, width), geometry, dtype)
    expected = torchs(x, grad, geometry)
    slope = weight_gradient(x, grad, geometry)
    assert slope.dtype == torch.float32
    torch.testing.assert_close(slope.double(), expected, rtol=1e-5, atol=1e-5)


def test_many_channels_make_several_pieces():
    geometry = Geometry(3, 2, 0, 1)
    x, grad = inputs(600, (9, 8), geometry, torch.bfloat16)
    torch.testing.assert_close(
        weight_gradient(x, grad, geometry).double(), torchs(x, grad, geometry), rtol=1e-5, atol=1e-5
    )


def test_threads_do_not_change_a_bit():
    geometry, slopes = Geometry(5, 1, 2, 1), []
    x, grad = inputs(300, (30, 22), geometry, torch.float32)
    for count in (1, 3):
        torch.set_num_threads(count)
        slopes.append(weight_gradient(x, grad, geometry))
    assert torch.equal(*slopes)


def test_what_it_does_not_do_is_left_to_torch():
    x = torch.zeros(1, 4, 8, 8)
    assert has_weight_gradient(x, Geometry(3, 1, 1, 1)) and has_weight_gradient(
        x.bfloat16(), Geometry(7, 2, 3, 1)
    )
    assert not has_weight_gradient(x.double(), Geometry(3, 1, 1, 1))
    assert not has_weight_gradient(x, Geometry(9, 1, 4, 1))
