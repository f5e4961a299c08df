"""kazuto1011/deeplab-pytorch: DeepLabV2 on Caffe's ResNet, for COCO-Stuff and VOC 2012.

Definitions: libs/models/{deeplabv2,resnet,msc}.py of github.com/kazuto1011/deeplab-pytorch. Its
input is BGR in 0..255 less a mean: here the first convolution's channels are reversed and the mean
is that of RGB.
"""

from atrous.errors import InputError
from atrous.models.backbones import Backbone
from atrous.models.catalogue import VARIANTS
from atrous.models.deeplabv2 import DeepLabV2
from atrous.weights.importers.places import Match, State, count_children, named_resnet

MEAN = (122.675 / 255, 116.669 / 255, 104.008 / 255)
"""Mean of RGB in 0..1."""
STD = (1 / 255,) * 3
"""It does not divide: the network takes 0..255."""

_STEM = "base.layer1.conv1"
_UNITS = {"reduce": "1", "conv3x3": "2", "increase": "3"}
"""The convolutions of a bottleneck, and their numbers in timm's names."""


def match(state: State, output_stride: int | None) -> Match:
    """Recognise DeepLabV2 in its multi-scale wrapper; its output stride is 8."""
    if output_stride not in (None, 8):
        raise InputError(f"--output-stride {output_stride}: this project's networks have 8")
    blocks = [count_children(state, f"base.layer{i}.block") for i in (2, 3, 4, 5)]
    backbone = named_resnet("bottleneck", blocks)
    if f"{backbone}_caffe" not in VARIANTS:
        raise InputError(f"{backbone}, which this project does not publish")
    config = DeepLabV2.Config(
        backbone=Backbone.Config(
            name=f"{backbone}_caffe",
            output_stride=8,
            multi_grid=(1, 1, 1),  # of a stage's blocks, the first is dilated, too
        )
    )
    branches = range(len(config.atrous_rates))
    return Match(
        config=config,
        num_classes=len(state["base.aspp.c0.weight"]),
        state={**state, f"{_STEM}.conv.weight": state[f"{_STEM}.conv.weight"].flip(1)},
        places=_backbone(blocks) | {f"base.aspp.c{i}": f"branches.{i}" for i in branches},
        mean=MEAN,
        std=STD,
    )


def _backbone(blocks: list[int]) -> dict[str, str]:
    """Return the places of a ResNet's tensors, by the number of blocks in each stage."""
    names = {_STEM: ("conv1", "bn1")}
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            theirs, ours = f"base.layer{stage + 1}.block{block + 1}", f"layer{stage}.{block}"
            names[f"{theirs}.shortcut"] = (f"{ours}.downsample.0", f"{ours}.downsample.1")
            for unit, number in _UNITS.items():
                names[f"{theirs}.{unit}"] = (f"{ours}.conv{number}", f"{ours}.bn{number}")
    convs = {f"{name}.conv": f"backbone.network.{conv}" for name, (conv, _) in names.items()}
    norms = {f"{name}.bn": f"backbone.network.{norm}" for name, (_, norm) in names.items()}
    return convs | norms
