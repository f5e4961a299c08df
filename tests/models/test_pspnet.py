import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import build
from torch import nn
from torch.nn import functional as F

from atrous.models.layers import PyramidPooling, mean_of_parts


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 8))
def test_mean_of_parts_is_adaptive_pooling_at_any_size(height, width, parts):
    x = torch.randn(2, 3, height, width)
    expected = F.adaptive_avg_pool2d(x, parts)
    torch.testing.assert_close(mean_of_parts(x, parts), expected, rtol=1e-5, atol=1e-5)


def test_mean_of_parts_gives_every_cell_its_gradient():
    x = torch.randn(1, 2, 7, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    expected = torch.autograd.grad((F.adaptive_avg_pool2d(x, 3) * weight).sum(), x)
    gradient = torch.autograd.grad((mean_of_parts(x, 3) * weight).sum(), x)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (12, 6)])
def test_the_pyramid_is_the_paper_s_in_plain_torch(size):
    torch.manual_seed(0)
    pyramid = PyramidPooling(8, 2).eval()
    features = torch.randn(1, 8, *size)
    expected = [
        F.interpolate(branch(F.adaptive_avg_pool2d(features, n)), size, mode="bilinear")
        for n, branch in zip((1, 2, 3, 6), pyramid.branches, strict=True)
    ]
    torch.testing.assert_close(pyramid(features), torch.cat(expected, 1), rtol=1e-4, atol=1e-5)


def test_widths_are_the_paper_s_on_resnet50():
    network = build("pspnet", num_classes=150, backbone="resnet50", decoder_channels=512)
    convs = [m for m in network.pyramid.modules() if isinstance(m, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels) for conv in convs] == [(2048, 512)] * 4
    assert network.decoder[0].weight.shape == (512, 4096, 3, 3)
    assert network.stride == 8
