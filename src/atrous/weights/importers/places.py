"""What an importer says of a checkpoint: which network it is, and where each tensor belongs.

A layout is a function `(state, output_stride) -> Match`. `state` holds tensors under the names that
the other project gave them, and the network follows from names and shapes. The output stride does
not, as it changes no weight; None is the project's default.

torchvision's ResNets have timm's names. Its MobileNets have others, but their layers are in the
same order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.models.backbones import timm_features
from atrous.models.catalogue import BACKBONES
from atrous.models.network import Network
from atrous.models.normalization import ADDING_VARIANCE

State = Mapping[str, Tensor]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of RGB in 0..1 that almost all projects use."""

RESNETS: dict[tuple[str | int, ...], str] = {
    ("basic", 2, 2, 2, 2): "resnet18",
    ("basic", 3, 4, 6, 3): "resnet34",
    ("bottleneck", 3, 4, 6, 3): "resnet50",
    ("bottleneck", 3, 4, 23, 3): "resnet101",
    ("bottleneck", 3, 8, 36, 3): "resnet152",
    ("grouped", 3, 4, 6, 3): "resnext50_32x4d",
}
"""timm's names, by the kind of block and the blocks of each stage."""


MOBILENET_EPS = 1e-3
"""Epsilon of the norms in torchvision's MobileNetV3; timm's have torch's default."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """Tensors of another project, and where they belong."""

    state: State
    """The tensors under their names; changed where the other project computes otherwise."""
    places: Mapping[str, str]
    """Their name, or the whole parts that it begins with, to ours; the longest one counts."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Whole parts of their names after that beginning, to ours."""
    dropped: tuple[str, ...] = ()
    """Beginnings of their names whose tensors the network has no use for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Match(Placement):
    """A checkpoint that a layout recognised."""

    config: Network.Config
    num_classes: int
    mean: tuple[float, ...] = IMAGENET[0]
    """Mean of RGB in 0..1."""
    std: tuple[float, ...] = IMAGENET[1]
    threshold: float = 0.5
    """Threshold of the sigmoid by which the project reads a network with one output."""


def load_strictly(network: nn.Module, placement: Placement, name: str) -> tuple[str, ...]:
    """Copy all tensors into `network`, called `name`; return the names of those dropped.

    Counters of batches (num_batches_tracked) may be missing; files older than they are have none.
    The network may be without data, on the meta device. An error names every tensor that does not
    fit.
    """
    dropped = tuple(key for key in placement.state if begins(key, placement.dropped))
    theirs = {key: tensor for key, tensor in placement.state.items() if key not in dropped}
    places = {key: place_of(key, placement.places, placement.parts) for key in theirs}
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


def place_of(name: str, places: Mapping[str, str], parts: Mapping[str, str]) -> str:
    """Return our name of their tensor, or "" if no beginning of its name is in `places`.

    >>> place_of("classifier.4.bn.bias", {"classifier": "head", "classifier.4": "c"}, {"bn": "1"})
    'c.1.bias'
    """
    theirs = name.split(".")
    for count in range(len(theirs), 0, -1):
        beginning = ".".join(theirs[:count])
        if beginning in places:
            return ".".join([places[beginning], *(parts.get(p, p) for p in theirs[count:])])
    return ""


def begins(name: str, beginnings: tuple[str, ...]) -> bool:
    """Return whether `name` is one of `beginnings`, or a part below one."""
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
    return named_resnet(kind, [count_children(state, f"{prefix}layer{i}.") for i in (1, 2, 3, 4)])


def named_resnet(kind: str, blocks: Sequence[int]) -> str:
    """Return timm's name of the ResNet with these numbers of blocks of a kind in its stages."""
    if (kind, *blocks) not in RESNETS:
        raise InputError(
            f"a ResNet of {', '.join(map(str, blocks))} {kind} blocks; "
            f"there are: {', '.join(RESNETS.values())}"
        )
    return RESNETS[kind, *blocks]


def mobilenet_places(state: State, prefix: str, name: str, ours: str = "") -> dict[str, str]:
    """Pair the modules of torchvision's MobileNet with those of timm's network `name`, in order.

    Args:
        state: all tensors.
        prefix: beginning of the names of the MobileNet's tensors.
        name: of timm's network.
        ours: beginning of our names.
    """
    theirs = {key.rpartition(".")[0] for key in state if key.startswith(prefix)}
    places = dict.fromkeys(f"{ours}{key.rpartition('.')[0]}" for key in features(name))
    # `load_strictly` names what is left over
    return dict(zip(sorted(theirs, key=_by_number), places, strict=False))


def _by_number(name: str) -> tuple[list[int], str]:
    return [int(part) for part in name.split(".") if part.isdigit()], name


@cache
def features(name: str, deepest: int = 32) -> dict[str, Tensor]:
    """Return the tensors of timm's feature extractor `name`, without data, in order.

    Args:
        name: of timm.
        deepest: the last level that it has, 8, 16 or 32.
    """
    with torch.device("meta"):
        return timm_features(name, deepest=deepest).state_dict()


def features_name(tensors: State) -> str:
    """Return which of `BACKBONES` has these tensors, all or those of its first levels."""
    theirs = _shapes(tensors)
    for name in BACKBONES:
        if theirs.items() <= _shapes(features(name)).items() and any(
            theirs == _shapes(features(name, deepest)) for deepest in (32, 16, 8)
        ):
            return name
    raise InputError(f"its backbone is none of: {', '.join(BACKBONES)}")


def _shapes(tensors: State) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def adding(bias: Tensor) -> dict[str, Tensor]:
    """Return the tensors of a norm that adds `bias` and does no more."""
    ones = torch.ones_like(bias)
    variance = ADDING_VARIANCE * ones
    return {"weight": ones, "bias": bias, "running_mean": 0 * ones, "running_var": variance}


def with_eps(state: State, eps: float, prefix: str = "") -> dict[str, Tensor]:
    """Return `state` for norms of torch's default eps, 1e-5, where those after `prefix` had `eps`.

    A norm divides by the root of variance + eps: what eps lacks is added to the variance.
    """
    changed = {
        key: tensor + (eps - 1e-5)
        for key, tensor in state.items()
        if key.startswith(prefix) and key.endswith("running_var")
    }
    return {**state, **changed}
