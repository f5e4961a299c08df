"""What every model keeps, with every backbone and output stride that `atrous models` lists."""

import pytest
import torch
from networks import build
from torch import nn

from atrous.models.catalogue import BACKBONES, MODELS, OUTPUT_STRIDES
from atrous.models.network import Output


def small_backbone(model: str) -> str:
    """Return the smallest that there is; a cascade needs two units in a stage."""
    if not MODELS[model].has_backbone:
        return "none"
    return "resnet18" if model == "deeplabv3_cascade" else "resnet10t"


EVERY_MODEL = [  # at all of its output strides, on the smallest backbone
    (model, small_backbone(model), output_stride)
    for model, entry in MODELS.items()
    for output_stride in entry.output_strides
]
EVERY_BACKBONE = [  # under a head without a decoder
    ("deeplabv3", name, output_stride) for name in BACKBONES for output_stride in OUTPUT_STRIDES
]
EVERY_FAMILY = [
    (model, next(name for name in BACKBONES if BACKBONES[name] == family), 16)
    for model in ("deeplabv3_cascade", "deeplabv3plus", "unet")  # each takes other features
    for family in ("efficientnet", "mobilenet", "regnet", "convnext")
]
CELLS = sorted({*EVERY_MODEL, *EVERY_BACKBONE, *EVERY_FAMILY})

NARROW = {
    "deeplabv3": {"multi_grid": (1, 2, 4), "aspp_channels": 16},
    "deeplabv3plus": {"multi_grid": (1, 2, 4), "aspp_channels": 16},
    "deeplabv3_cascade": {"multi_grid": (1, 1, 1)},
}


def small(model: str, backbone: str, output_stride: int | None = None, **options) -> nn.Module:
    return build(
        model,
        num_classes=5,
        backbone=backbone,
        output_stride=output_stride,
        auxiliary=backbone != "none",
        **NARROW.get(model, {}) | options,
    )


def assert_geometry(output: Output, network: nn.Module, size: tuple[int, int]) -> None:
    pairs = [(output.logits, network.stride)]
    if network.training:
        pairs += zip(output.auxiliary, network.auxiliary_strides, strict=True)
    for logits, stride in pairs:
        assert logits.shape == (1, 5, -(-size[0] // stride), -(-size[1] // stride))
        assert torch.isfinite(logits).all()


@pytest.mark.slow
@pytest.mark.parametrize(("model", "backbone", "output_stride"), CELLS)
def test_trains_on_one_image_and_predicts_at_any_size(model, backbone, output_stride):
    assert_trains_and_predicts(small(model, backbone, output_stride), output_stride)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(BACKBONES.values())))
@pytest.mark.parametrize("separable", [False, True])
def test_so_it_does_with_repeated_blocks_before_an_aspp_of_3x3_branches(family, separable):
    backbone = next(name for name, its in BACKBONES.items() if its == family)
    own = {"repeated_blocks": 2, "pointwise_branch": False, "atrous_rates": (1, 2)}
    assert_trains_and_predicts(small("deeplabv3", backbone, 16, separable=separable, **own), 16)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_so_it_does_in_a_pyramid(model):
    network = small(model, small_backbone(model), pyramid_scales=(1, 0.75, 0.5))
    assert_trains_and_predicts(network, MODELS[model].output_strides[0])


def assert_trains_and_predicts(network: nn.Module, output_stride: int) -> None:
    for size in ((output_stride, output_stride), (33, 65)):  # 1x1 features; odd sides
        image = torch.randn(1, 3, *size)
        output = network.train()(image)
        assert_geometry(output, network, size)
        logits = (output.logits, *output.auxiliary)
        sum(part.square().sum() for part in logits).backward()
        assert all(p.grad is not None for p in network.parameters())
        with torch.no_grad():
            output = network.eval()(image)
        assert output.auxiliary == ()
        assert_geometry(output, network, size)


@pytest.mark.parametrize("family", sorted(set(BACKBONES.values())))
def test_padding_is_the_same_as_zeros_around_the_image(family):
    """A 33x65 image gives the logits of the 48x80 image whose rest is zero, cropped."""
    backbone = next(name for name, its in BACKBONES.items() if its == family)
    network = small("deeplabv3plus", backbone).eval()
    image = torch.randn(1, 3, 33, 65)
    padded = torch.zeros(1, 3, 48, 80)
    padded[..., :33, :65] = image
    with torch.no_grad():
        torch.testing.assert_close(network(image).logits, network(padded).logits[..., :9, :17])


@pytest.mark.parametrize("model", MODELS)
def test_no_auxiliary_head_unless_asked_for(model):
    network = build(model, num_classes=2, backbone=small_backbone(model))
    assert network.auxiliary_levels == ()
    assert network.train()(torch.randn(2, 3, 32, 32)).auxiliary == ()


def fill(network: nn.Module) -> None:
    """Set all weights by a formula, so that no version of torch's random numbers counts."""
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            steps = torch.arange(parameter.numel(), dtype=torch.float64)
            waves = torch.sin(steps * 12.9898 + index).reshape(parameter.shape)
            fan_in = max(1, parameter[0].numel())
            scale = 2 / fan_in**0.5 if parameter.dim() == 4 else 0.5
            parameter.copy_(waves * scale + (parameter.dim() == 1) * 0.5)


STORED = {  # two logits, mean and deviation, as first written; float64 agrees to five digits
    ("fcn", "resnet18"): (1.15479, 3.20683, 1.95128, 7.9936),
    ("fcn32s", "resnet18"): (0.28629, 4.70041, 4e-05, 3.09256),
    ("fcn16s", "tf_efficientnet_lite0"): (0.01124, 0.15552, -0.00035, 0.26473),
    ("fcn8s", "resnet18"): (-0.82807, 0.26966, 0.02195, 1.54147),
    ("pspnet", "resnet18"): (-4.40567, -3.77171, -0.02656, 12.55034),
    ("unet", "resnet18"): (1.76569, -2.31334, -0.41945, 1.61895),
    ("deeplabv2", "resnet18"): (0.58986, 1.10162, 1.95363, 1.48028),
    ("deeplabv3_cascade", "tf_efficientnet_lite0"): (-12.72506, -11.53054, -1.81176, 15.29393),
    ("frrn_a", "none"): (23.15259, 24.46611, 3.22228, 21.19144),
    ("deeplabv3", "resnet18"): (-7.91283, -14.63925, -16.18647, 4.62903),
    ("deeplabv3_cascade", "resnet50"): (-32.42615, -64.34181, -35.72982, 33.85478),
    ("deeplabv3plus", "tf_efficientnet_lite0"): (5.34219, 4.29661, 1.35611, 5.30672),
    ("deeplabv3plus", "convnext_tiny"): (4.14403, 4.34827, 1.09679, 5.27812),
}


@pytest.mark.slow
@pytest.mark.parametrize(("model", "backbone"), STORED)
def test_output_is_what_it_was(model, backbone):
    network = small(model, backbone).eval()
    fill(network)
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(80.0), indexing="ij")
    image = torch.zeros(3, 64, 96)  # as networks padded then, to a multiple of 32
    image[:, :48, :80] = torch.stack(
        [torch.sin(rows / 5), torch.cos(columns / 7), torch.sin(rows * columns)]
    )
    with torch.no_grad():
        logits = network(image[None]).logits[0, :, : 48 // network.stride, : 80 // network.stride]
    sample = torch.stack([logits[0, 0, 0], logits[4, -1, -1], logits.mean(), logits.std()])
    expected = torch.tensor(STORED[model, backbone])
    torch.testing.assert_close(sample, expected, rtol=1e-3, atol=1e-4)


def test_each_network_has_a_stored_output():
    assert {model for model, _ in STORED} == set(MODELS)
