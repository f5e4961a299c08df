"""open-mmlab/mmsegmentation: DeepLabV3, V3+, PSPNet and FCN on dilated ResNets.

Definitions: mmseg/models/decode_heads/{aspp,sep_aspp,psp,fcn}_head.py and backbones/resnet.py of
github.com/open-mmlab/mmsegmentation, with the values of configs/_base_/models. Its ResNetV1c (three
3x3 convolutions instead of the first 7x7) is timm's resnet50c. ResNet-18 and 34 are refused: it
dilates the first convolution of a basic block alone, timm both. Configurations with
align_corners=True (those of 769x769 crops), with a multi-grid (d16-mg124) or with dilated heads
(fcn-d6) have the same tensors, but compute otherwise: they are not for this.
"""

from dataclasses import replace

from atrous.errors import InputError
from atrous.models.backbones import Backbone
from atrous.models.deeplabv3 import DeepLabV3
from atrous.models.deeplabv3plus import DeepLabV3Plus
from atrous.models.fcn import FCN
from atrous.models.layers import ASPP
from atrous.models.network import Network
from atrous.models.pspnet import PSPNet
from atrous.weights.importers.places import Match, State, resnet_name, swapped

_STEM = {"0": "conv1.0", "1": "conv1.1", "3": "conv1.3", "4": "conv1.4", "6": "conv1.6", "7": "bn1"}
_PARTS = {"conv": "0", "bn": "1", "depthwise_conv": "0", "pointwise_conv": "1"}
_ASPP = {
    "decode_head.image_pool.1": "aspp.image_pooling",
    "decode_head.aspp_modules": "aspp.branches",
    "decode_head.bottleneck": "aspp.project",
}
_PLUS = {**_ASPP, "decode_head.c1_bottleneck": "reduce", "decode_head.sep_bottleneck": "decoder"}
_PSP = {
    **{f"decode_head.psp_modules.{i}.1": f"pyramid.branches.{i}" for i in range(4)},
    "decode_head.bottleneck": "decoder",
}
_FCN = {"decode_head.convs": "convs", "decode_head.conv_cat": "merge"}


def match(state: State, output_stride: int | None) -> Match:
    """Recognise a network of this project; most have output stride 8."""
    backbone = Backbone.Config(name=_backbone(state), output_stride=output_stride or 8)
    config, places = _head(state, backbone)
    if "aspp.project" in places.values():  # their branch for the mean comes first, ours last
        state = swapped(state, "decode_head.bottleneck.conv.weight", _width(state))
    return Match(
        config=replace(config, auxiliary="auxiliary_head.conv_seg.weight" in state),
        num_classes=len(state["decode_head.conv_seg.weight"]),
        state=state,
        places={
            "backbone": "backbone.network",
            **{f"backbone.stem.{i}": f"backbone.network.{ours}" for i, ours in _STEM.items()},
            **places,
            "decode_head.conv_seg": "head.1",
            "auxiliary_head.convs.0": "auxiliary_head.0",
            "auxiliary_head.conv_seg": "auxiliary_head.1.1",
        },
        parts=_PARTS,
        threshold=0.3,  # which its heads take where their configuration says nothing
    )


def _width(state: State) -> int:
    """Return the channels of the head's last features."""
    return state["decode_head.conv_seg.weight"].shape[1]


def _backbone(state: State) -> str:
    """Return timm's name of the ResNet, with a c for the deep stem."""
    name = resnet_name(state, "backbone.")
    if name not in ("resnet50", "resnet101", "resnet152"):
        raise InputError(f"{name}, which this project dilates otherwise; 50 layers and more can be")
    return f"{name}c" if "backbone.stem.0.weight" in state else name


def _head(state: State, backbone: Backbone.Config) -> tuple[Network.Config, dict[str, str]]:
    """Return the network's Config and the places of its head's tensors."""
    width = _width(state)
    rates = (12, 24, 36) if backbone.output_stride == 8 else (6, 12, 18)
    aspp = ASPP.Config(atrous_rates=rates, channels=width, project_kernel=3)
    if "decode_head.sep_bottleneck.0.depthwise_conv.conv.weight" in state:
        aspp = replace(aspp, separable=True)
        return DeepLabV3Plus.Config(backbone=backbone, aspp=aspp, decoder_channels=width), _PLUS
    if "decode_head.image_pool.1.conv.weight" in state:
        return DeepLabV3.Config(backbone=backbone, aspp=aspp), _ASPP
    if "decode_head.psp_modules.0.1.conv.weight" in state:
        return PSPNet.Config(backbone=backbone, decoder_channels=width), _PSP
    if "decode_head.conv_cat.conv.weight" in state:
        return FCN.Config(backbone=backbone, concat_input=True), _FCN
    raise InputError("a head of another kind than DeepLabV3's, V3+'s, PSPNet's or FCN's")
