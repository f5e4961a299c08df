"""Weights that are cast at once give what autocast gives, in all networks."""

import pytest
import torch
from networks import build
from torch import Tensor, nn

from atrous.models.catalogue import BACKBONES, MODELS, backbones_of
from atrous.train.precision import CastNetwork

FAMILIES = {family: backbone for backbone, family in reversed(BACKBONES.items())}
"""The first backbone of each family."""
OPTIONS = {"aspp_channels": 16, "decoder_channels": 16, "atrous_rates": (2,)}


def gradients(
    network: nn.Module, image: Tensor, *, cast: bool
) -> tuple[Tensor, dict[str, Tensor | None]]:
    network.zero_grad()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        trained = CastNetwork(network) if cast else network
        output = trained(image)
    logits = output.logits.float()
    (logits * torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)).sum().backward()
    return logits, {name: weight.grad for name, weight in network.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "backbone"),
    [
        *((model, backbones_of(model)[0]) for model in MODELS),
        *(("deeplabv3plus", backbone) for backbone in FAMILIES.values()),
    ],
)
def test_weights_cast_at_once_give_what_autocast_gives(model: str, backbone: str) -> None:
    torch.manual_seed(0)
    options = OPTIONS if model == "deeplabv3plus" else {}
    network = build(model, num_classes=3, backbone=backbone, **options)
    network = network.train().to(memory_format=torch.channels_last)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    image = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    expected, wanted = gradients(network, image, cast=False)
    wanted = {name: None if grad is None else grad.clone() for name, grad in wanted.items()}
    network.load_state_dict(before)
    logits, grads = gradients(network, image, cast=True)
    assert logits.dtype == torch.float32
    for name, grad in grads.items():
        assert (grad is None) == (wanted[name] is None), name
        assert grad is None or grad.dtype == torch.float32, name
    if backbone.startswith("convnext"):
        torch.testing.assert_close(logits, expected, rtol=0.1, atol=0.1)
        return
    assert torch.equal(logits, expected)
    for name, grad in grads.items():
        assert grad is None or torch.equal(grad, wanted[name]), name
