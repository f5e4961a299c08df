"""Configs and the flat options of recipes and run.json say the same."""

from dataclasses import replace

import pytest
import torch
from networks import build

from atrous.errors import InputError
from atrous.models.backbones import Backbone
from atrous.models.catalogue import MODELS
from atrous.models.create import NETWORKS, config_from_options, create_model, options_of
from atrous.models.deeplabv3 import DeepLabV3
from atrous.models.layers import ASPP
from atrous.weights.imagenet import load_pretrained


def test_each_model_has_a_class():
    assert NETWORKS.keys() == MODELS.keys()


@pytest.mark.parametrize("model", MODELS)
def test_options_come_back_from_a_config(model):
    backbone = "resnet18" if MODELS[model].has_backbone else "none"
    config = config_from_options({"name": model, "backbone": backbone})
    assert config.name == model
    options = options_of(config, 3)
    assert (options["name"], options["num_classes"]) == (model, 3)
    assert options["output_stride"] == MODELS[model].output_strides[0]
    assert config_from_options(options) == config


def test_a_nested_config_is_the_flat_table():
    config = DeepLabV3.Config(
        backbone=Backbone.Config(name="resnet18", output_stride=8, multi_grid=(1, 2)),
        aspp=ASPP.Config(
            channels=8, pointwise_branch=False, atrous_rates=(3,), separable=True, convs=1
        ),
        repeated_blocks=1,
        dropout=0.5,
    )
    flat = {
        "name": "deeplabv3",
        "num_classes": 7,
        "backbone": "resnet18",
        "output_stride": 8,
        "multi_grid": [1, 2],
        "aspp_channels": 8,
        "pointwise_branch": False,
        "atrous_rates": [3],
        "separable": True,
        "aspp_convs": 1,
        "repeated_blocks": 1,
        "dropout": 0.5,
        "fusion_scales": None,
        "pretrained": True,
    }
    assert config_from_options(flat) == config
    with torch.device("meta"):
        assert create_model(config, 7).head[1].out_channels == 7


def test_an_unknown_option_is_refused():
    options = {"name": "unet", "backbone": "resnet18", "rates": 3}
    with pytest.raises(InputError, match="unet has no option rates"):
        config_from_options(options)


def test_a_config_is_checked_when_its_network_is_built():
    config = config_from_options({"name": "fcn8s", "backbone": "resnet18"})
    other = replace(config, backbone=replace(config.backbone, output_stride=16))
    with pytest.raises(InputError, match="output stride 16; it works with 32"):
        create_model(other, 2)


def test_a_cascade_starts_from_the_imagenet_weights_of_its_last_stage():
    name = "tf_efficientnet_lite0"
    network = build("deeplabv3_cascade", num_classes=2, backbone=name)
    load_pretrained(network)
    last = list(network.backbone.network.blocks[6].children())[-1]
    assert torch.equal(network.block7[4].conv_pwl.weight, last.conv_pwl.weight)


def test_so_do_repeated_blocks_before_the_aspp():
    network = build("deeplabv3", num_classes=2, backbone="resnet18", repeated_blocks=2)
    weights = {n: torch.randn_like(p) for n, p in network.backbone.named_parameters()}
    network.backbone.load_state_dict(weights, strict=False)
    network.backbone_loaded()
    last = network.backbone.network.layer4[1].conv2.weight
    assert all(torch.equal(block[1].conv2.weight, last) for block in network.blocks)
    assert [block[0].conv1.dilation[0] for block in network.blocks] == [4, 8]


def test_a_network_without_a_backbone_has_no_imagenet_weights():
    network = build("frrn_a", num_classes=2, backbone="none")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_pretrained(network)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
