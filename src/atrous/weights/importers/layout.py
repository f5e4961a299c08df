"""What an importer says of a checkpoint: which network it is, and where each tensor belongs.

A layout is a function `(state, output_stride) -> Match`. `state` holds tensors under the names that
the other project gave them; all that can be told from names and shapes alone is told from them. The
output stride cannot: it changes no weight. None stands for the project's default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from atrous.errors import InputError

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
class Match:
    """A checkpoint that a layout recognised."""

    options: dict[str, Any]
    """The arguments of `atrous.models.catalogue.build`."""
    state: State
    """The tensors under their names; changed where the other project computes otherwise."""
    places: Mapping[str, str]
    """Their name, or the whole parts that it begins with, to ours; the longest one counts."""
    dropped: tuple[str, ...] = ()
    """Beginnings of their names whose tensors the network has no use for."""
    mean: tuple[float, ...] = IMAGENET[0]
    """Of RGB in 0..1."""
    std: tuple[float, ...] = IMAGENET[1]
    threshold: float = 0.5
    """Of the sigmoid by which the project reads a network with one output."""


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


def aspp_places(prefix: str) -> dict[str, str]:
    """Return the places of an ASPP with three rates, named as torchvision's."""
    return {
        f"{prefix}.convs": "aspp.branches",
        f"{prefix}.convs.4.1": "aspp.image_pooling.0",  # behind the pooling itself
        f"{prefix}.convs.4.2": "aspp.image_pooling.1",
        f"{prefix}.project": "aspp.project",
    }


def resnet_name(state: State, prefix: str = "") -> str:
    """Return timm's name of the ResNet whose tensors are named as torchvision's after `prefix`.

    Raises:
        InputError: it is none of `RESNETS`.
    """
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
