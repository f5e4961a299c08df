"""Multiply-adds and parameters: by hand, and the same from a network and from its bundle."""

from pathlib import Path

import onnx
import torch
from networks import build
from torch import Tensor, nn

from atrous.evaluation.cost import Cost, cost_of, cost_of_network
from atrous.export.graph import to_onnx
from atrous.infer.runtimes.onnx import OnnxRuntime
from atrous.models.catalogue import normalization
from atrous.models.network import Output
from atrous.models.photo import PhotoNetwork
from atrous.train.recipe import Recipe
from atrous.weights.hub import zoo_path

CONSTANTS = range(6, 20)
"""How many a bundle has besides: the photo's mean and spread are six, then factors of sizes."""


def norm_channels(network: nn.Module) -> int:
    """Each has one number less in a bundle, which has no auxiliary head."""
    named = network.named_modules()
    norms = [m for name, m in named if isinstance(m, nn.BatchNorm2d) and "auxiliary" not in name]
    return sum(norm.num_features for norm in norms)


class Small(nn.Module):
    """A stride of 2: a convolution with norm, a depthwise one, and a transposed one."""

    stride = 2

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, 4, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        nn.init.normal_(self.norm.bias)  # or the export drops it
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 4, 4, 2, 1, groups=4, bias=False)
        self.auxiliary_head = nn.Linear(5, 7)

    def forward(self, image: Tensor) -> Output:
        return Output(self.up(self.depthwise(self.norm(self.down(image)).relu())))


def test_a_bundle_by_hand(tiny_bundle: Path) -> None:
    # a 1x1 convolution from 3 to 4 channels, on every fourth pixel of the padded image
    assert cost_of(tiny_bundle, (30, 41)) == Cost(3 * 4 + 4, 8 * 11 * 3 * 4)


def test_a_network_and_its_bundle_by_hand(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PhotoNetwork(Small(), (0.5,) * 3, (0.5,) * 3).eval()
    cells = 6 * 8  # of an image of 24x32 at stride 4
    multiply_adds = cells * 8 * 27 + cells * 8 * 9 + cells * 8 * 16
    parameters = 8 * 27 + 2 * 8 + (8 * 9 + 8) + 8 * 16
    assert cost_of_network(network, (24, 32)) == Cost(parameters, multiply_adds)
    assert network.network.down.weight.device.type == "cpu"
    onnx.save(to_onnx(network), tmp_path / "small.onnx")
    bundle = cost_of(tmp_path / "small.onnx", (24, 32))
    assert bundle.multiply_adds == multiply_adds
    assert bundle.parameters - (parameters - 8) in CONSTANTS


def test_an_int8_bundle_costs_what_its_network_does() -> None:
    bundle = zoo_path("camvid")
    recipe = Recipe.from_dict(dict(OnnxRuntime(bundle, 1).metadata.recipe) | {"init": None})
    network = PhotoNetwork(build(**recipe.model_options(11)), *normalization(recipe.backbone))
    ours, theirs = cost_of_network(network, (360, 480)), cost_of(bundle, (360, 480))
    assert ours.multiply_adds == theirs.multiply_adds
    assert theirs.parameters - (ours.parameters - norm_channels(network)) in CONSTANTS
