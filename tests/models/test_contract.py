"""What every model keeps, with every backbone and output stride that `atrous models` lists."""

import pytest
import torch
from torch import nn

from atrous.models.catalogue import BACKBONES, MODELS, OUTPUT_STRIDES, backbones_of, build
from atrous.models.network import Output

CELLS = [
    (model, backbone, output_stride)
    for model in MODELS
    for backbone in backbones_of(model)
    for output_stride in OUTPUT_STRIDES
]


def small(model: str, backbone: str, output_stride: int = 16) -> nn.Module:
    if model == "deeplabv3_cascade":
        return build(
            model, num_classes=5, backbone=backbone, output_stride=output_stride, auxiliary=True
        )
    return build(
        model,
        num_classes=5,
        backbone=backbone,
        output_stride=output_stride,
        multi_grid=(1, 2, 4),
        auxiliary=True,
        aspp_channels=16,
    )


def assert_geometry(output: Output, network: nn.Module, size: tuple[int, int]) -> None:
    pairs = [(output.logits, network.stride)]
    if output.auxiliary is not None:
        pairs.append((output.auxiliary, network.auxiliary_stride))
    for logits, stride in pairs:
        assert logits.shape == (1, 5, -(-size[0] // stride), -(-size[1] // stride))
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("model", "backbone", "output_stride"), CELLS)
def test_trains_on_one_image_and_predicts_at_any_size(model, backbone, output_stride):
    network = small(model, backbone, output_stride)
    for size in ((output_stride, output_stride), (33, 65)):  # 1x1 features; odd sides
        image = torch.randn(1, 3, *size)
        output = network.train()(image)
        assert output.auxiliary is not None
        assert_geometry(output, network, size)
        (output.logits.square().sum() + output.auxiliary.square().sum()).backward()
        assert all(p.grad is not None for p in network.parameters())
        with torch.no_grad():
            output = network.eval()(image)
        assert output.auxiliary is None
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
    network = build(model, num_classes=2, backbone="resnet18")
    assert network.train()(torch.randn(2, 3, 32, 32)).auxiliary is None


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
    ("deeplabv3", "resnet18"): (-7.91283, -14.63925, -16.18647, 4.62903),
    ("deeplabv3_cascade", "resnet50"): (-32.42615, -64.34181, -35.72982, 33.85478),
    ("deeplabv3plus", "tf_efficientnet_lite0"): (5.34219, 4.29661, 1.35611, 5.30672),
    ("deeplabv3plus", "convnext_tiny"): (4.14403, 4.34827, 1.09679, 5.27812),
}


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
