import pytest
import torch
from networks import build
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import segmentation

from atrous.errors import InputError
from atrous.models.catalogue import BACKBONES, normalization
from atrous.train.recipe import Recipe

DEEPLABV3 = {"name": "deeplabv3", "atrous_rates": (12, 24, 36), "aspp_convs": 1}
"""In torchvision's form."""


def dilations(block: nn.Module) -> list[int]:
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] == 3]
    return [conv.dilation[0] for conv in convs]


def test_cascade_doubles_the_dilation_from_block_to_block():
    network = build("deeplabv3_cascade", num_classes=2, backbone="resnet50", multi_grid=(1, 2, 1))
    assert dilations(network.backbone.network.layer4) == [2, 4, 2]
    assert dilations(network.block5) == [4, 8, 4]
    assert dilations(network.block6) == [8, 16, 8]
    assert dilations(network.block7) == [16, 32, 16]


def test_cascade_starts_from_the_weights_of_block_four():
    network = build("deeplabv3_cascade", num_classes=2, backbone="resnet50")
    layer4 = network.backbone.network.layer4
    assert torch.equal(network.block7[2].conv2.weight, layer4[2].conv2.weight)
    assert network.block7[2].conv2.weight is not layer4[2].conv2.weight


@pytest.mark.parametrize(
    ("backbone", "expansion", "copied"),
    [
        ("tf_efficientnet_lite0", "0.conv_pw", "4.conv_pwl"),
        ("mobilenetv3_large_100", "0.conv_pw", "3.conv"),
    ],
)
def test_cascade_on_inverted_residuals_expands_the_stage_s_own_features(
    backbone, expansion, copied
):
    network = build("deeplabv3_cascade", num_classes=2, backbone=backbone, output_stride=32)
    channels = network.backbone.channels[32]
    assert network.block5.get_submodule(expansion).in_channels == channels
    last = list(network.backbone.network.blocks[6].children())[-1]
    weight = network.block6.get_submodule(copied).weight
    assert torch.equal(weight, last.get_submodule(copied[2:]).weight)
    features = torch.randn(1, channels, 3, 4)
    assert torch.equal(network.eval().block7(features), features)  # it begins with adding nothing
    assert {conv.dilation[0] for conv in spatial(network.block5)} == {2}
    assert {conv.dilation[0] for conv in spatial(network.block7)} == {8}


def spatial(block: nn.Module) -> list[nn.Conv2d]:
    return [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]


@pytest.mark.parametrize("backbone", ["regnety_008", "convnext_tiny"])
def test_cascade_repeats_the_second_unit_in_place_of_the_first(backbone):
    network = build("deeplabv3_cascade", num_classes=2, backbone=backbone)
    first, second, *_ = (list(unit.parameters()) for unit in network.block5)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0] is not second[0]


@pytest.mark.parametrize(
    "model", ["fcn", "pspnet", "deeplabv3", "deeplabv3_cascade", "deeplabv3plus"]
)
def test_without_a_multi_grid_the_dilations_are_those_of_the_pretraining(model):
    recipe = Recipe(model=model, backbone="resnet50", output_stride=16)
    with torch.device("meta"):
        network = build(**recipe.model_options(2))
    assert dilations(network.backbone.network.layer4) == [1, 2, 2]


def test_what_is_left_out_is_the_paper_s():
    network = build("deeplabv2", num_classes=2, backbone="resnet18")
    assert network.backbone.output_stride == 8
    assert [branch.dilation[0] for branch in network.branches] == [6, 12, 18, 24]
    assert build("fcn32s", num_classes=2, backbone="resnet18").backbone.output_stride == 32
    options = Recipe(model="deeplabv2", backbone="resnet18").model_options(2)
    built = build(**options)
    assert built.backbone.output_stride == options["output_stride"] == 8
    assert built.fusion.others == (0.75, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "weights"),
    [
        (DEEPLABV3 | {"backbone": "resnet50"}, segmentation.DeepLabV3_ResNet50_Weights),
        (DEEPLABV3 | {"backbone": "resnet101"}, segmentation.DeepLabV3_ResNet101_Weights),
        ({"name": "fcn", "backbone": "resnet50"}, segmentation.FCN_ResNet50_Weights),
        ({"name": "fcn", "backbone": "resnet101"}, segmentation.FCN_ResNet101_Weights),
    ],
)
def test_parameters_and_multiply_adds_are_torchvision_s(options, weights):
    """Its published figures are of 520x520 with the auxiliary head, which ours has in training."""
    with torch.device("meta"):
        network = build(**options, num_classes=21, output_stride=8, auxiliary=True).train()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, 520, 520))
    published = weights.DEFAULT.meta
    assert sum(p.numel() for p in network.parameters()) == published["num_params"]
    assert round(counter.get_total_flops() / 2e9, 3) == published["_ops"]


def test_separable_changes_pyramid_and_decoder():
    plain = build("deeplabv3plus", num_classes=2, backbone="resnet18")
    separable = build("deeplabv3plus", num_classes=2, backbone="resnet18", separable=True)

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert count(separable.aspp) < count(plain.aspp) / 2
    assert count(separable.decoder) < count(plain.decoder) / 5


def test_json_lists_are_taken_as_tuples():
    network = build(
        "deeplabv3", num_classes=2, backbone="resnet18", atrous_rates=[3], multi_grid=[1, 2]
    )
    assert len(network.aspp.branches) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "deeplabv3+"}, "Did you mean deeplabv3"),
        ({"name": "xyz"}, "There are: fcn, "),
        ({"name": "deeplabv3", "decoder_channels": 64}, "has no option decoder-channels"),
        ({"name": "deeplabv3_cascade", "separable": True}, "has no option separable"),
        ({"name": "deeplabv3plus", "repeated_blocks": 1}, "has no option repeated-blocks"),
        ({"name": "deeplabv3_cascade", "backbone": "mobilenetv4_conv_small"}, "take resnet50"),
        ({"name": "fcn8s", "output_stride": 16}, "output stride 16; it works with 32"),
        ({"name": "unet", "backbone": "none"}, "give it one, such as resnet50"),
        ({"name": "frrn_a"}, 'give it "none"'),
        ({"name": "frrn_a", "backbone": "none", "auxiliary": True}, "has no option auxiliary"),
        ({"name": "unet", "pyramid_scales": (0.5, 1)}, "begin with 1"),
        ({"name": "unet", "pyramid_scales": (1, 0.3)}, "multiples of 0.25"),
        ({"name": "deeplabv3", "fusion_scales": (1, 0.5)}, "has no option fusion-scales"),
        (
            {"name": "deeplabv2", "fusion_scales": (1, 0.5), "pyramid_scales": (1, 0.5)},
            "leave one out",
        ),
    ],
)
def test_wrong_names_and_options_say_so(options, says):
    with pytest.raises(InputError, match=says):
        build(**{"num_classes": 2, "backbone": "resnet18"} | options)


def test_normalization():
    assert normalization("tf_efficientnet_lite2") == ((0.5,) * 3, (0.5,) * 3)
    assert normalization("resnet50")[0] == (0.485, 0.456, 0.406)
    assert all(len(normalization(name)[1]) == 3 for name in BACKBONES)
    assert normalization("none") == normalization("resnet50")
    with pytest.raises(InputError, match="no such network"):
        normalization("nonesuch")
