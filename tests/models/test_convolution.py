import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from atrous.models.convolution import DepthwiseConv, StaticSameConv, is_depthwise

SHAPES = [(3, 1, 1), (3, 1, 6), (5, 1, 2), (7, 1, 1), (3, 2, 1), (5, 2, 1)]


def gradients(conv: nn.Module, image: torch.Tensor, flow: torch.Tensor) -> list[torch.Tensor]:
    image = image.clone().requires_grad_()
    output = conv(image)
    return [output, *torch.autograd.grad(output, [image, conv.weight], flow)]


@pytest.mark.parametrize(("kernel", "stride", "dilation"), SHAPES)
def test_depthwise_trains_as_torch_does(kernel, stride, dilation):
    padding = dilation * (kernel - 1) // 2
    theirs = nn.Conv2d(6, 6, kernel, stride, padding, dilation, groups=6, bias=False).double()
    ours = copy.deepcopy(theirs)
    ours.__class__ = DepthwiseConv
    image = torch.randn(2, 6, 14, 16, dtype=torch.float64)
    flow = torch.randn_like(theirs(image))
    for mine, expected in zip(
        gradients(ours, image, flow), gradients(theirs, image, flow), strict=True
    ):
        torch.testing.assert_close(mine, expected)


def test_depthwise_under_autocast_agrees_to_bfloat16():
    ours = DepthwiseConv(8, 8, 5, padding=2, groups=8, bias=False)
    image = torch.randn(1, 8, 12, 12)
    flow = torch.randn(1, 8, 12, 12)
    expected = gradients(ours, image, flow)
    with torch.autocast("cpu", torch.bfloat16):
        output, *grads = gradients(ours, image, flow.bfloat16())
    assert output.dtype == torch.bfloat16
    assert [g.dtype for g in grads] == [torch.float32, torch.float32]
    for mine, reference in zip([output, *grads], expected, strict=True):
        torch.testing.assert_close(mine.float(), reference, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [*SHAPES, (2, 1, 2), (2, 2, 1)])
def test_static_same_equals_dynamic_same_on_multiples_of_the_stride(
    kernel, stride, dilation, groups
):
    theirs = Conv2dSame(4, 4, kernel, stride, dilation=dilation, groups=groups, bias=False).double()
    ours = copy.deepcopy(theirs)
    ours.__class__ = StaticSameConv
    image = torch.randn(2, 4, 12, 16, dtype=torch.float64)
    flow = torch.randn_like(theirs(image))
    for mine, expected in zip(
        gradients(ours, image, flow), gradients(theirs, image, flow), strict=True
    ):
        torch.testing.assert_close(mine, expected)


def test_what_counts_as_depthwise():
    assert is_depthwise(nn.Conv2d(4, 4, 3, groups=4, bias=False))
    assert not is_depthwise(nn.Conv2d(4, 4, 3, groups=4))
    assert not is_depthwise(nn.Conv2d(4, 4, 1, groups=4, bias=False))
    assert not is_depthwise(nn.Conv2d(4, 8, 3, groups=4, bias=False))
    assert not is_depthwise(nn.Conv2d(4, 4, (3, 5), groups=4, bias=False))
