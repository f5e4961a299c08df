"""Auxiliary heads: which features they are on, and what stays as it is without them."""

import pytest
import torch
from networks import build
from torch import nn

from atrous.data.shapes import TAXONOMY
from atrous.errors import InputError
from atrous.export.graph import to_onnx
from atrous.models.catalogue import normalization
from atrous.models.create import config_from_options, options_of
from atrous.models.photo import PhotoNetwork
from atrous.run import Normalization, Run
from atrous.train.loss.upsampled import upsampled_loss
from atrous.train.plan import network_of
from atrous.train.recipe import Recipe
from atrous.train.training import Training

IMAGE = (33, 65)


def network_with(model: str, backbone: str, levels: tuple[int, ...], **options: object):
    torch.manual_seed(0)
    heads = {"auxiliary": bool(levels), "auxiliary_levels": levels or None}
    return build(model, num_classes=5, backbone=backbone, **heads, **options)


@pytest.mark.parametrize(
    ("model", "backbone", "output_stride", "strides"),
    [
        ("fcn8s", "resnet10t", 32, (16, 8)),
        ("pspnet", "regnety_002", 32, (16, 8)),
        ("deeplabv3plus", "mobilenetv3_small_050", 16, (16, 8)),
        ("deeplabv3", "convnext_atto", 8, (8, 8)),  # dilated: level 16 is at stride 8
        ("unet", "tf_efficientnet_lite0", 32, (16, 8)),
    ],
)
def test_two_heads_have_their_strides(model, backbone, output_stride, strides):
    network = network_with(model, backbone, (16, 8), output_stride=output_stride).train()
    assert network.auxiliary_strides == strides
    output = network(torch.randn(2, 3, *IMAGE))
    for logits, stride in zip(output.auxiliary, strides, strict=True):
        assert logits.shape == (2, 5, *(-(-side // stride) for side in IMAGE))
    channels = [network.backbone.channels[level] for level in (16, 8)]
    heads = [network.auxiliary_head, network.auxiliary_head_8]
    assert [head[0][0].in_channels for head in heads] == channels
    sum(logits.square().sum() for logits in output.auxiliary).backward()
    assert all(p.grad is not None for head in heads for p in head.parameters())
    assert network.eval()(torch.randn(2, 3, *IMAGE)).auxiliary == ()


@pytest.mark.parametrize("levels", [(8,), (16, 4), (32, 16, 8)])
def test_heads_are_named_by_their_level_and_the_first_one_of_old_files_as_ever(levels):
    network = network_with("fcn8s", "resnet10t", levels)
    names = {name.split(".")[0] for name in network.state_dict() if "auxiliary" in name}
    assert names == {"auxiliary_head" if n == 16 else f"auxiliary_head_{n}" for n in levels}


def test_one_head_is_what_it_was():
    """An old table of options has no levels; the head of level 16 keeps its name and its bits."""
    old = {"name": "fcn", "backbone": "resnet10t", "output_stride": 16, "auxiliary": True}
    config = config_from_options(old)
    assert config.auxiliary_levels == (16,)
    assert config_from_options(options_of(config, 5)) == config
    one = network_with("fcn", "resnet10t", (16,), output_stride=16).state_dict()
    two = network_with("fcn", "resnet10t", (16, 8), output_stride=16).state_dict()
    assert {name for name in two if name not in one} == {
        name for name in two if name.startswith("auxiliary_head_8.")
    }
    assert all(torch.equal(two[name], tensor) for name, tensor in one.items())


def test_a_level_that_the_backbone_lacks_is_refused():
    with pytest.raises(InputError, match="auxiliary level 32: resnet18 has features of 2 4 8 16 "):
        network_with("pspnet", "resnet18", (16, 32), pooled_level=16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"auxiliary_levels": (16, 8)}, "but auxiliary_weight is 0; give one, such as 0.4"),
        ({"auxiliary_levels": (8, 8), "auxiliary_weight": 0.4}, "name each level once"),
        ({"auxiliary_levels": (2,), "auxiliary_weight": 0.4}, "auxiliary_levels is 2; "),
    ],
)
def test_impossible_levels_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Recipe(**fields)


def test_an_exported_graph_is_the_same_as_without():
    statistics = normalization("resnet10t")
    plain, headed = (
        to_onnx(PhotoNetwork(network_with("fcn", "resnet10t", levels), *statistics).eval())
        for levels in ((), (16, 8))
    )
    assert plain.SerializeToString() == headed.SerializeToString()


def test_the_weight_counts_for_each_head():
    class Accelerated:
        device, num_processes, scaler = torch.device("cpu"), 1, None

        def prepare(self, *values: object) -> tuple[object, ...]:
            return values

    recipe = Recipe(
        model="fcn",
        backbone="resnet10t",
        pretrained=False,
        dropout=0.0,
        auxiliary_weight=0.3,
        auxiliary_levels=(16, 8),
    )
    training = Training(recipe, 5, (0, 1, 2), Accelerated(), fresh=False)
    for module in training.network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    training.network.train()
    image = torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    target = torch.randint(0, 5, (2, 48, 64), dtype=torch.uint8)
    output = training.network(training.photo.normalize(image))
    strides = (training.network.stride, *training.network.auxiliary_strides)
    parts = [
        upsampled_loss(logits, target, stride, recipe)
        for logits, stride in zip((output.logits, *output.auxiliary), strides, strict=True)
    ]
    expected = parts[0] + 0.3 * (parts[1] + parts[2])
    torch.testing.assert_close(training._loss(image, target), expected)


def test_a_plan_from_a_run_takes_no_heads(tmp_path):
    recipe = Recipe(auxiliary_weight=0.4, auxiliary_levels=(16, 8))
    mean = Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)
    Run(model=recipe.model_options(4), normalization=mean, taxonomy=TAXONOMY).write(tmp_path)
    assert Recipe(**network_of(str(tmp_path))).auxiliary_weight == 0
