"""Networks from their Configs, and Configs from flat options.

A network is described by its `Config`. Recipes, the command line and run.json (its "model") hold
the same as a flat table of options; this module is where one becomes the other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from atrous.errors import InputError
from atrous.models.backbones import Backbone
from atrous.models.cascade import DeepLabV3Cascade
from atrous.models.catalogue import entry, tensorflow_width
from atrous.models.deeplabv2 import DeepLabV2
from atrous.models.deeplabv3 import DeepLabV3
from atrous.models.deeplabv3plus import DeepLabV3Plus
from atrous.models.fcn import FCN, FCN8s, FCN16s, FCN32s
from atrous.models.frrn import FRRN
from atrous.models.network import Network
from atrous.models.pspnet import PSPNet
from atrous.models.unet import UNet

__all__ = ["NETWORKS", "config_from_options", "create_model", "options_of"]

_CLASSES = (
    *(FCN, FCN32s, FCN16s, FCN8s, PSPNet, UNet, FRRN),
    *(DeepLabV2, DeepLabV3, DeepLabV3Cascade, DeepLabV3Plus),
)
NETWORKS: dict[str, Any] = {network.Config.name: network for network in _CLASSES}
"""The classes of `catalogue.MODELS`."""

_NAMES = {
    "backbone.name": "backbone",
    "aspp.channels": "aspp_channels",
    "aspp.convs": "aspp_convs",
}
"""Options whose name is not that of the Config's field."""


def create_model(config: Network.Config, num_classes: int) -> Network:
    """Build the network of `config`: it maps images (B, C, H, W) to a `network.Output`."""
    name, backbone = config.name, config.backbone
    strides, has_backbone = entry(name).output_strides, entry(name).has_backbone
    if has_backbone == (backbone.name == "none"):
        fix = "give it one, such as resnet50" if has_backbone else 'give it "none"'
        raise InputError(f"{name}: backbone {backbone.name!r}; {fix}")
    if backbone.output_stride not in strides:
        stride, supported = backbone.output_stride, ", ".join(map(str, sorted(strides)))
        raise InputError(f"{name}: output stride {stride}; it works with {supported}")
    if tensorflow_width(backbone.name) is not None:
        if name not in ("deeplabv3", "deeplabv3plus"):
            raise InputError(f"{name}: {backbone.name} is for deeplabv3 and deeplabv3plus")
        if config.pyramid_scales:
            raise InputError(f"{name}: with {backbone.name} it has no image pyramid; leave it out")
    return NETWORKS[name](config, num_classes)


def config_from_options(options: Mapping[str, Any]) -> Network.Config:
    """Return the Config of a flat table of options: a recipe's, or run.json's "model".

    Args:
        options: "name", "backbone", and options of any network, as JSON has them. None leaves an
            option to the network; one that the network does not have must be at its default.
            "num_classes" and "pretrained" are ignored.
    """
    name = options["name"]
    given = {
        option: tuple(value) if isinstance(value, list) else value
        for option, value in options.items()
        if value is not None and option not in ("name", "num_classes", "pretrained")
    }
    given = {"output_stride": entry(name).output_strides[0], **given}
    if given.get("pyramid_scales") and given.get("fusion_scales"):
        raise InputError(f"{name}: pyramid-scales stand in for fusion-scales; leave one out")
    config: Network.Config = _filled(NETWORKS[name].Config, given)
    taken = dict(_leaves(config))
    for option, value in given.items():
        if option not in taken and value not in _defaults(option):
            raise InputError(f"{name} has no option {option.replace('_', '-')}; leave it out")
    return config


def options_of(config: Network.Config, num_classes: int) -> dict[str, Any]:
    """Return the flat table that `config_from_options` reads back."""
    return {"name": config.name, "num_classes": num_classes, **dict(_leaves(config))}


def _filled(kind: Any, given: Mapping[str, Any], prefix: str = "") -> Any:
    """Return a `kind` of Config with the options in `given` that it has."""
    values = {}
    for field in fields(kind):
        option = _NAMES.get(prefix + field.name, field.name)
        if is_dataclass(field.type):
            values[field.name] = _filled(field.type, given, f"{field.name}.")
        elif option in given:
            values[field.name] = given[option]
    return kind(**values)


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the options of a Config, and of those within it."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{field.name}.")
        else:
            yield _NAMES.get(prefix + field.name, field.name), value


def _defaults(option: str) -> list[Any]:
    """Return the defaults of an option in the networks that have it."""
    configs = [network.Config(backbone=Backbone.Config(name="any")) for network in _CLASSES]
    return [leaves[option] for leaves in map(dict, map(_leaves, configs)) if option in leaves]
