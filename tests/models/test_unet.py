import pytest
import torch
from networks import build
from torch import nn

from atrous.models.layers import TransposedUpsample, resize


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_transposed_upsampling_starts_as_the_bilinear_one(factor):
    x = torch.randn(2, 3, 6, 5)
    learned, bilinear = TransposedUpsample(3, factor)(x), resize(x, factor)
    assert learned.shape == bilinear.shape
    inner = (..., slice(factor // 2, -factor // 2), slice(factor // 2, -factor // 2))
    torch.testing.assert_close(learned[inner], bilinear[inner])


def unet(backbone, **options):
    return build("unet", num_classes=3, backbone=backbone, decoder_channels=32, **options)


def test_each_step_meets_the_features_of_its_size():
    network = unet("resnet18").eval()
    joined = []
    for step in network.steps:
        step.merge.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0].shape[1:]))
    network(torch.zeros(1, 3, 64, 96))
    channels = [512 + 256, 32 + 128, 16 + 64, 8 + 64, 4]
    sizes = [(4, 6), (8, 12), (16, 24), (32, 48), (64, 96)]
    assert joined == [(c, *size) for c, size in zip(channels, sizes, strict=True)]
    assert [step.merge[1][0].out_channels for step in network.steps] == [32, 16, 8, 4, 2]


def test_a_backbone_without_features_at_stride_2_does_without():
    network = unet("convnext_tiny")
    assert 2 not in network.backbone.levels
    assert network.steps[3].merge[0][0].in_channels == 8
    assert network.eval()(torch.zeros(1, 3, 33, 65)).logits.shape == (1, 3, 33, 65)


@pytest.mark.parametrize(("output_stride", "enlargements"), [(32, 5), (16, 4), (8, 3)])
def test_a_dilated_backbone_needs_fewer_enlargements(output_stride, enlargements):
    network = unet("resnet18", output_stride=output_stride)
    assert sum(not isinstance(step.enlarge, nn.Identity) for step in network.steps) == enlargements
    assert network.eval()(torch.zeros(1, 3, 33, 65)).logits.shape == (1, 3, 33, 65)


@pytest.mark.slow
@pytest.mark.parametrize("upsampling", ["bilinear", "transposed", "nearest"])
def test_every_upsampling_trains_and_keeps_the_size(upsampling):
    network = unet("resnet18", upsampling=upsampling).train()
    logits = network(torch.randn(2, 3, 40, 50)).logits
    assert logits.shape == (2, 3, 40, 50)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.steps[0].parameters())
