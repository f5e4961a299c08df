import pytest
import torch
from torch import nn

from atrous.files import InputError
from atrous.models.catalogue import BACKBONES, build, normalization


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
        ({"name": "xyz"}, "There are: deeplabv3, "),
        ({"name": "deeplabv3", "decoder_channels": 64}, "has no option decoder-channels"),
        ({"name": "deeplabv3_cascade", "separable": True}, "has no option separable"),
        ({"name": "deeplabv3_cascade", "backbone": "regnety_008"}, "take resnet50"),
    ],
)
def test_wrong_names_and_options_say_so(options, says):
    with pytest.raises(InputError, match=says):
        build(**{"num_classes": 2, "backbone": "resnet18"} | options)


def test_normalization():
    assert normalization("tf_efficientnet_lite2") == ((0.5,) * 3, (0.5,) * 3)
    assert normalization("resnet50")[0] == (0.485, 0.456, 0.406)
    assert all(len(normalization(name)[1]) == 3 for name in BACKBONES)
    with pytest.raises(InputError, match="no such network"):
        normalization("nonesuch")
