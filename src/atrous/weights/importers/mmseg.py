"""open-mmlab/mmsegmentation: DeepLabV3, V3+, PSPNet and FCN on dilated ResNets.

Definitions: mmseg/models/decode_heads/{aspp,sep_aspp,psp,fcn}_head.py and backbones/resnet.py of
github.com/open-mmlab/mmsegmentation, with the values of configs/_base_/models. Its ResNetV1c (three
3x3 convolutions instead of the first 7x7) is timm's resnet50c. ResNet-18 and 34 are refused: it
dilates the first convolution of a basic block alone, timm both. Configurations with
align_corners=True (those of 769x769 crops), with a multi-grid (d16-mg124) or with dilated heads
(fcn-d6) have the same tensors, but compute otherwise: they are not for this.
"""

import torch

from atrous.errors import InputError
from atrous.weights.importers.layout import Match, State, resnet_name

_STEM = {"0": "conv1.0", "1": "conv1.1", "3": "conv1.3", "4": "conv1.4", "6": "conv1.6", "7": "bn1"}
_BRANCHES = range(4)


def match(state: State, output_stride: int | None) -> Match:
    """Recognise a network of this project; most have output stride 8.

    Raises:
        InputError: another head, or a backbone that there is not.
    """
    stride = output_stride or 8
    name, options, places = _head(state, stride)
    return Match(
        options={
            "name": name,
            "num_classes": len(state["decode_head.conv_seg.weight"]),
            "backbone": _backbone(state),
            "output_stride": stride,
            "multi_grid": None,
            "auxiliary": "auxiliary_head.conv_seg.weight" in state,
            **options,
        },
        state=_in_our_order(state) if "atrous_rates" in options else state,
        places={
            "backbone": "backbone.network",
            **{f"backbone.stem.{i}": f"backbone.network.{ours}" for i, ours in _STEM.items()},
            **places,
            "decode_head.conv_seg": "head.1",
            **_conv("auxiliary_head.convs.0", "auxiliary_head.0"),
            "auxiliary_head.conv_seg": "auxiliary_head.1.1",
        },
        threshold=0.3,  # which its heads take where their configuration says nothing
    )


def _backbone(state: State) -> str:
    """Return timm's name of the ResNet, with a c for the deep stem.

    Raises:
        InputError: it has other layers than timm's.
    """
    name = resnet_name(state, "backbone.")
    if name not in ("resnet50", "resnet101", "resnet152"):
        raise InputError(f"{name}, which this project dilates otherwise; 50 layers and more can be")
    return f"{name}c" if "backbone.stem.0.weight" in state else name


def _head(state: State, stride: int) -> tuple[str, dict[str, object], dict[str, str]]:
    """Return the model, its options and the places of its head's tensors.

    Raises:
        InputError: the head is of another kind.
    """
    width = state["decode_head.conv_seg.weight"].shape[1]
    rates = (12, 24, 36) if stride == 8 else (6, 12, 18)
    aspp: dict[str, object] = {"atrous_rates": rates, "aspp_channels": width, "project_kernel": 3}
    if "decode_head.sep_bottleneck.0.depthwise_conv.conv.weight" in state:
        return "deeplabv3plus", {**aspp, "decoder_channels": width, "separable": True}, _plus()
    if "decode_head.image_pool.1.conv.weight" in state:
        return "deeplabv3", aspp, _aspp()
    if "decode_head.psp_modules.0.1.conv.weight" in state:
        return "pspnet", {"decoder_channels": width}, _psp()
    if "decode_head.conv_cat.conv.weight" in state:
        return "fcn", {"concat_input": True}, _fcn()
    raise InputError("a head of another kind than DeepLabV3's, V3+'s, PSPNet's or FCN's")


def _conv(theirs: str, ours: str) -> dict[str, str]:
    """The places of a convolution and its norm."""
    return {f"{theirs}.conv": f"{ours}.0", f"{theirs}.bn": f"{ours}.1"}


def _separable(theirs: str, ours: str) -> dict[str, str]:
    pairs = _conv(f"{theirs}.depthwise_conv", f"{ours}.0")
    return pairs | _conv(f"{theirs}.pointwise_conv", f"{ours}.1")


def _aspp() -> dict[str, str]:
    places = _conv("decode_head.image_pool.1", "aspp.image_pooling")
    places |= _conv("decode_head.bottleneck", "aspp.project")
    for i in _BRANCHES:
        places |= _conv(f"decode_head.aspp_modules.{i}", f"aspp.branches.{i}")
    return places


def _plus() -> dict[str, str]:
    places = _aspp() | _conv("decode_head.c1_bottleneck", "reduce")
    for i in _BRANCHES[1:]:
        places |= _separable(f"decode_head.aspp_modules.{i}", f"aspp.branches.{i}")
    for i in range(2):
        places |= _separable(f"decode_head.sep_bottleneck.{i}", f"decoder.{i}")
    return places


def _psp() -> dict[str, str]:
    places = _conv("decode_head.bottleneck", "decoder")
    for i in _BRANCHES:
        places |= _conv(f"decode_head.psp_modules.{i}.1", f"pyramid.branches.{i}")
    return places


def _fcn() -> dict[str, str]:
    places = _conv("decode_head.conv_cat", "merge")
    for i in range(2):
        places |= _conv(f"decode_head.convs.{i}", f"convs.{i}")
    return places


def _in_our_order(state: State) -> State:
    """The pyramid's branch for the mean comes first there, and last here."""
    name = "decode_head.bottleneck.conv.weight"
    weight = state[name]
    width = weight.shape[1] // (len(_BRANCHES) + 1)
    return {**state, name: torch.cat([weight[:, width:], weight[:, :width]], dim=1)}
