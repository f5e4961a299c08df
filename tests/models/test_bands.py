"""Networks of any number of input bands."""

import pytest
import torch
from networks import build
from torch import nn

from atrous.models.bands import of_bands, take_bands
from atrous.models.catalogue import BACKBONES, MODELS
from atrous.models.photo import PhotoNetwork


def first_convolution(network: nn.Module) -> nn.Conv2d:
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2, 4, 8])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_takes_any_number_of_bands(model: str, channels: int) -> None:
    backbone = "resnet18" if MODELS[model].has_backbone else "none"
    options = {"num_classes": 3, "backbone": backbone, "in_channels": channels}
    network = build(model, **options)
    photo = PhotoNetwork(network, (0.5,) * channels, (0.25,) * channels).eval()
    logits = photo(torch.zeros((1, 33, 40, channels), dtype=torch.uint8))
    assert logits.shape == (1, 3, -(-33 // network.stride), -(-40 // network.stride))
    again = build(model, **options)
    again.load_state_dict(network.state_dict(), strict=True)
    assert first_convolution(network).in_channels == channels


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_does(backbone: str) -> None:
    network = build("fcn", num_classes=2, backbone=backbone, output_stride=32, in_channels=5).eval()
    assert network(torch.zeros(1, 5, 64, 64)).logits.isfinite().all()


@pytest.mark.parametrize("colors", [(None,), (None,) * 5, (None, 0, 1, 2), (2, 1, 0, None, None)])
def test_spread_weights_see_grey_as_before(colors: tuple[int | None, ...]) -> None:
    network = build("fcn", num_classes=2, backbone="resnet18", output_stride=32)
    conv = first_convolution(network)
    grey = torch.rand(1, 1, 32, 32)
    before, weight = conv(grey.repeat(1, 3, 1, 1)), conv.weight.detach().clone()
    take_bands(network, colors, keep_weights=True)
    after = conv(grey.repeat(1, len(colors), 1, 1))
    assert torch.allclose(before, after, atol=1e-5)
    for band, color in enumerate(colors):
        own = weight.mean(1) if color is None else weight[:, color]
        assert torch.allclose(conv.weight[:, band], own * 3 / len(colors))


def test_weights_drawn_anew_are_as_spread_and_differ_by_band() -> None:
    torch.manual_seed(0)
    three = first_convolution(build("fcn", num_classes=2, backbone="resnet18"))
    six = first_convolution(build("fcn", num_classes=2, backbone="resnet18", in_channels=6))
    assert float(six.weight.std()) == pytest.approx(float(three.weight.std()) / 2**0.5, rel=0.1)
    assert not torch.equal(six.weight[:, 0], six.weight[:, 1])


def test_imagenet_weights_are_spread() -> None:
    name = "tf_efficientnet_lite2"
    options = {"num_classes": 2, "backbone": name, "pretrained": True}
    three = first_convolution(build("fcn", **options))
    four = first_convolution(build("fcn", **options, in_channels=4))
    assert torch.allclose(four.weight.sum(1), three.weight.sum(1), atol=1e-5)
    assert torch.equal(four.weight[:, 0], four.weight[:, 3])


def test_normalisation_of_bands() -> None:
    assert of_bands((0.1, 0.2, 0.6), (None, 2, 0)) == pytest.approx((0.3, 0.6, 0.1))
