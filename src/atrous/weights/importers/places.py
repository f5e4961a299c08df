"""What an importer says of a checkpoint: which network it is, and where each tensor belongs.

A layout is a function `(state, output_stride) -> Match`. `state` holds tensors under the names that
the other project gave them; whatever names and shapes tell is told from them. They do not tell the
output stride, which changes no weight; None is the project's default.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.models.network import Network

State = Mapping[str, Tensor]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of RGB in 0..1 that almost all projects use."""

RESNETS = {
    ("basic", 2, 2, 2, 2): "resnet18",
    ("basic", 3, 4, 6, 3): "resnet34",
    ("bottleneck", 3, 4, 6, 3): "resnet50",
    ("bottleneck", 3, 4, 23, 3): "resnet101",
    ("bottleneck", 3, 8, 36, 3): "resnet152",
    ("grouped", 3, 4, 6, 3): "resnext50_32x4d",
}
"""timm's names, by the kind of block and the blocks of each stage."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """Tensors of another project, and where they belong."""

    state: State
    """The tensors under their names; changed where the other project computes otherwise."""
    places: Mapping[str, str]
    """Their name, or the whole parts that it begins with, to ours; the longest one counts."""
    dropped: tuple[str, ...] = ()
    """Beginnings of their names whose tensors the network has no use for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Match(Placement):
    """A checkpoint that a layout recognised."""

    config: Network.Config
    num_classes: int
    mean: tuple[float, ...] = IMAGENET[0]
    """Of RGB in 0..1."""
    std: tuple[float, ...] = IMAGENET[1]
    threshold: float = 0.5
    """Of the sigmoid by which the project reads a network with one output."""


def load_strictly(network: nn.Module, placement: Placement, name: str) -> tuple[str, ...]:
    """Copy all tensors into `network`, called `name`; return the names of those dropped.

    Counters of batches (num_batches_tracked) may be missing; files older than they are have none.
    The network may be without data, on the meta device. An error names every tensor that does not
    fit.
    """
    dropped = tuple(key for key in placement.state if begins(key, placement.dropped))
    theirs = {key: tensor for key, tensor in placement.state.items() if key not in dropped}
    places = {key: place_of(key, placement.places) for key in theirs}
    ours = network.state_dict()
    if faults := _faults(theirs, places, ours):
        raise InputError(f"does not fit {name}: {'; '.join(faults)}")
    tensors = {places[key]: tensor for key, tensor in theirs.items()}
    network.load_state_dict(
        {
            our: tensors.get(our, torch.zeros(())).to(like.dtype, copy=True).contiguous()
            for our, like in ours.items()
        },
        assign=True,
    )
    return dropped


def _faults(theirs: State, places: Mapping[str, str], ours: State) -> list[str]:
    """Return what does not fit, each kind with all its names; [] if everything does."""
    placed = {key: place for key, place in places.items() if place in ours}
    needed = {our for our in ours if not our.endswith("num_batches_tracked")}
    first: dict[str, str] = {}
    kinds = {
        "no place for": [key for key in places if key not in placed],
        "nothing for": sorted(needed - set(places.values())),
        "another shape:": [
            f"{key} {_size(theirs[key])} for {_size(ours[place])}"
            for key, place in placed.items()
            if theirs[key].shape != ours[place].shape
        ],
        "whole numbers:": [
            key
            for key, place in placed.items()
            if ours[place].is_floating_point() and not theirs[key].is_floating_point()
        ],
        "one place for": [
            f"{first[place]} and {key}"
            for key, place in placed.items()
            if first.setdefault(place, key) != key
        ],
    }
    return [f"{kind} {', '.join(keys)}" for kind, keys in kinds.items() if keys]


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def place_of(name: str, places: Mapping[str, str]) -> str:
    """Return our name of their tensor, or "" if no beginning of its name is in `places`.

    >>> place_of("classifier.4.weight", {"classifier": "head", "classifier.4": "head.1"})
    'head.1.weight'
    """
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        beginning = ".".join(parts[:count])
        if beginning in places:
            return ".".join([places[beginning], *parts[count:]])
    return ""


def begins(name: str, beginnings: tuple[str, ...]) -> bool:
    """Whether `name` is one of `beginnings`, or a part below one."""
    return any(name == beginning or name.startswith(beginning + ".") for beginning in beginnings)


def count_children(state: State, prefix: str) -> int:
    """Return how many numbers follow `prefix` in the names: layers of a Sequential, say."""
    numbers = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    return sum(number.isdigit() for number in numbers)


def conv_norm(conv: str, norm: str, ours: str) -> dict[str, str]:
    """Return the places of a convolution and of its norm: a `layers.ConvNormAct`."""
    return {conv: f"{ours}.0", norm: f"{ours}.1"}


def aspp_places(prefix: str) -> dict[str, str]:
    """Return the places of an ASPP with three rates, named as torchvision's."""
    return {
        f"{prefix}.convs": "aspp.branches",
        **conv_norm(f"{prefix}.convs.4.1", f"{prefix}.convs.4.2", "aspp.image_pooling"),
        f"{prefix}.project": "aspp.project",
    }


def swapped(state: State, name: str, first: int) -> State:
    """Return `state` with the first `first` input channels of the convolution `name` put last."""
    weight = state[name]
    return {**state, name: torch.cat([weight[:, first:], weight[:, :first]], dim=1)}


def resnet_name(state: State, prefix: str = "") -> str:
    """Return timm's name of the ResNet whose tensors are named as torchvision's after `prefix`."""
    kind = "basic"
    if f"{prefix}layer1.0.conv3.weight" in state:
        shape = state[f"{prefix}layer1.0.conv2.weight"].shape
        kind = "bottleneck" if shape[0] == shape[1] else "grouped"
    one, two, three, four = (count_children(state, f"{prefix}layer{i}.") for i in (1, 2, 3, 4))
    name = RESNETS.get((kind, one, two, three, four))
    if name is None:
        raise InputError(
            f"a ResNet of {one}, {two}, {three} and {four} {kind} blocks; "
            f"there are: {', '.join(RESNETS.values())}"
        )
    return name
