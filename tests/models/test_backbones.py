import pytest
import timm
import torch
from torch import nn

from atrous.errors import InputError
from atrous.models.backbones import Backbone
from atrous.models.catalogue import BACKBONES, OUTPUT_STRIDES


def built(
    name: str, output_stride: int, multi_grid: tuple[int, ...] | None = (1, 1, 1)
) -> Backbone:
    return Backbone(Backbone.Config(name=name, output_stride=output_stride, multi_grid=multi_grid))


def dilations(backbone: Backbone, level: int) -> list[int]:
    convs = [m for m in backbone.stage(level) if isinstance(m, nn.Conv2d)]
    return [conv.dilation[0] for conv in convs if conv.kernel_size[0] in (3, 5, 7)]


def test_multi_grid_is_absolute():
    backbone = built("resnet50", 16, multi_grid=(1, 2, 4))
    assert dilations(backbone, 32) == [2, 4, 8]
    assert dilations(backbone, 16) == [1] * 6
    backbone = built("resnet50", 8, multi_grid=(1, 2, 4))
    assert dilations(backbone, 32) == [4, 8, 16]
    assert dilations(backbone, 16) == [2] * 6
    assert dilations(built("resnet50", 32, multi_grid=(1, 2, 4)), 32) == [1, 2, 4]


def test_both_convolutions_of_a_basic_block_are_dilated():
    assert dilations(built("resnet18", 16, multi_grid=(1, 2)), 32) == [2, 2, 4, 4]
    assert dilations(built("resnet34", 8), 32) == [4] * 6


def test_grid_repeats_over_the_blocks_of_other_networks():
    backbone = built("tf_efficientnet_lite0", 16, multi_grid=(1, 2))
    assert dilations(backbone, 32) == [2, 4, 2, 4, 2]
    assert dilations(built("convnext_tiny", 16, multi_grid=(1, 2, 4)), 32) == [2, 4, 8]


def test_without_a_grid_the_dilations_are_those_of_timm():
    assert dilations(built("resnet50", 16, multi_grid=None), 32) == [1, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", OUTPUT_STRIDES)
@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_those_of_timm(name, output_stride):
    """On a multiple of the stride, constant padding and depthwise convolutions change nothing."""
    backbone = built(name, output_stride, multi_grid=None).eval()
    theirs = timm.create_model(name, features_only=True, output_stride=output_stride).eval()
    theirs.load_state_dict(backbone.network.state_dict())
    height, width = 64, 96
    image = torch.randn(1, 3, height, width)
    with torch.no_grad():
        ours = backbone(image)
        for level, expected in zip(ours, theirs(image), strict=True):
            stride = min(level, output_stride)
            size = height // stride, width // stride
            assert ours[level].shape == (1, backbone.channels[level], *size)
            torch.testing.assert_close(ours[level], expected)


def test_absolute_dilation_keeps_the_size_of_features():
    for output_stride in OUTPUT_STRIDES:
        backbone = built("tf_efficientnet_lite0", output_stride, multi_grid=(1, 2, 4)).eval()
        features = backbone(torch.randn(1, 3, 64, 64))
        assert features[32].shape[-1] == 64 // output_stride


@pytest.mark.parametrize(
    ("name", "output_stride", "multi_grid", "says"),
    [
        ("resnet50", 4, (1, 1, 1), "8, 16 and 32 are supported"),
        ("resnet5", 16, (1, 1, 1), "Did you mean resnet50"),
        ("nonesuch", 16, (1, 1, 1), "atrous models"),
        ("swin_tiny_patch4_window7_224", 16, (1, 1, 1), "cannot build it at output stride 16"),
        ("resnet18", 16, (), "factors of 1 or more"),
        ("resnet18", 16, (0, 1), "factors of 1 or more"),
    ],
)
def test_what_cannot_be_built_says_so(name, output_stride, multi_grid, says):
    with pytest.raises(InputError, match=says) as caught:
        built(name, output_stride, multi_grid=multi_grid)
    assert "\n" not in str(caught.value)
