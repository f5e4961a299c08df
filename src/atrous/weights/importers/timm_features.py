"""The tensors of timm's feature extractors, which backbones are, and torchvision's MobileNets.

ResNets have the same names in both projects. torchvision's MobileNets have others, but their layers
are in the same order.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor

from atrous.errors import InputError
from atrous.models.catalogue import BACKBONES
from atrous.weights.importers.places import State

MOBILENET_EPS = 1e-3
"""Of torchvision's MobileNetV3; timm's has torch's default."""


def mobilenet_places(theirs: Iterable[str], name: str) -> dict[str, str]:
    """Pair the modules of torchvision's MobileNet with those of timm's network `name`, in order.

    Args:
        theirs: names of tensors, in any order.
        name: of timm.
    """
    modules = sorted({key.rpartition(".")[0] for key in theirs}, key=_by_number)
    ours = dict.fromkeys(key.rpartition(".")[0] for key in features(name))
    return dict(zip(modules, ours, strict=False))  # `load_strictly` names what is left over


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in name.split(".")]


@cache
def features(name: str, deepest: int = 32) -> dict[str, Tensor]:
    """Return the tensors of timm's feature extractor `name`, without data, in order.

    Args:
        name: of timm.
        deepest: the last level that it has, 8, 16 or 32.
    """
    with torch.device("meta"):
        network: Any = timm.create_model(name, features_only=True)
        levels = network.feature_info.reduction()
        if levels[-1] > deepest:
            indices = [i for i, level in enumerate(levels) if level <= deepest]
            network = timm.create_model(name, features_only=True, out_indices=indices)
    return dict(network.state_dict())


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
