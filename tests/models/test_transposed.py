import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from atrous.models.convolution import TransposedUpsample, enlarge
from atrous.models.layers import resize


@given(st.sampled_from([2, 4, 8, 16]), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_the_product_is_the_transposed_convolution(factor, channels, height, width):
    x = torch.randn(2, channels, height, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(channels, 1, 2 * factor, 2 * factor, dtype=torch.float64)
    weight.requires_grad_()
    ours = enlarge(x, weight)
    theirs = F.conv_transpose2d(x, weight, stride=factor, padding=factor // 2, groups=channels)
    torch.testing.assert_close(ours, theirs)
    slope = torch.randn_like(theirs)
    expected = torch.autograd.grad(theirs, (x, weight), slope)
    torch.testing.assert_close(torch.autograd.grad(ours, (x, weight), slope), expected)


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_it_starts_as_resize_but_at_the_border(factor):
    upsample, x = TransposedUpsample(3, factor), torch.randn(1, 3, 5, 6)
    inner = slice(factor // 2, -factor // 2)
    expected = resize(x, factor)[..., inner, inner]
    for training in (True, False):
        enlarged = upsample.train(training)(x)
        assert enlarged.shape == (1, 3, 5 * factor, 6 * factor)
        torch.testing.assert_close(enlarged[..., inner, inner], expected)
