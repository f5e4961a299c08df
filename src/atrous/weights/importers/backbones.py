"""ImageNet classifiers of torchvision and timm, as files: their weights for a backbone.

ResNets have the same names in both projects. torchvision's MobileNets have others, but their layers
stand in the same order. timm's feature extractors write stages.0 as stages_0 for some networks.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.models.backbones import Backbone
from atrous.models.catalogue import ADAPTED, BACKBONES
from atrous.weights.convert import load_strictly
from atrous.weights.importers.checkpoint import read_checkpoint
from atrous.weights.importers.layout import Match, State, begins

LEFT_OVER = ("fc", "classifier", "head", "conv_head", "bn2", "norm_head", "final_conv")
"""Beginnings of the names of classifiers, and of layers of theirs that features come before."""

WRAPPERS = ("module", "_orig_mod", "model", "net", "network")
"""What names begin with, all of a file, where a training script has put the classifier into it."""

MOBILENET_EPS = 1e-3
"""torchvision's MobileNetV3 has it in its norms; timm's has torch's default."""


def load_backbone(network: nn.Module, name: str, path: Path) -> tuple[str, ...]:
    """Load a classifier's checkpoint into the backbone `name` of a network, strictly.

    Returns:
        The names of the tensors that are left over, all of the classifier.

    Raises:
        InputError: the file cannot be read, its tensors do not fit, or there is no backbone.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise InputError(f"{path}: weights for a backbone, which this network has none of")
    state = _unwrapped(read_checkpoint(path).state)
    try:
        return load_strictly(backbone.network, match_backbone(state, ADAPTED.get(name, name)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _unwrapped(state: State) -> State:
    """Return `state` without the beginnings that training scripts put before all names."""
    state = {name: tensor for name, tensor in state.items() if name != "n_averaged"}
    while all(begins(name, WRAPPERS) for name in state):
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
    return state


def match_backbone(state: State, name: str) -> Match:
    """Match a classifier's checkpoint with the timm feature extractor `name`."""
    dropped: tuple[str, ...] = LEFT_OVER
    if name.startswith("mobilenet") and "features.0.0.weight" in state:
        places = mobilenet_places((key for key in state if key.startswith("features.")), name)
        dropped += ("features.18",) if name.startswith("mobilenetv2") else ()
        if name.startswith("mobilenetv3"):
            state = with_eps(state, MOBILENET_EPS)
    else:
        tops = {our.split(".")[0] for our in features(name)}
        places = {re.sub(r"^(stem|stages)_", r"\1.", top): top for top in tops}
    return Match(options={"name": name}, state=state, places=places, dropped=dropped)


def mobilenet_places(theirs: Iterable[str], name: str) -> dict[str, str]:
    """Pair the modules of torchvision's MobileNet with those of timm's network `name`, in order.

    Args:
        theirs: names of tensors, in any order.
        name: of timm.
    """
    modules = sorted({key.rpartition(".")[0] for key in theirs}, key=_by_number)
    ours = dict.fromkeys(key.rpartition(".")[0] for key in features(name))
    return dict(zip(modules, ours, strict=False))  # what is left over is told of by `load_strictly`


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


def timm_name(tensors: State) -> str:
    """Return which of `BACKBONES` has the tensors of a feature extractor, or its first levels.

    Raises:
        InputError: none of them.
    """
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
