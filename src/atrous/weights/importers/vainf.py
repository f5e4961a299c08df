"""VainF/DeepLabV3Plus-Pytorch: DeepLabV3 and V3+ on ResNet-50, ResNet-101 and MobileNetV2.

Definitions: network/{_deeplab,modeling}.py and network/backbone of
github.com/VainF/DeepLabV3Plus-Pytorch. Its HRNet and Xception backbones, and separable convolutions
put in by hand (no published checkpoint has them), are not supported.
"""

from atrous.models.backbones import Backbone
from atrous.models.catalogue import timm_name
from atrous.models.deeplabv3 import DeepLabV3
from atrous.models.deeplabv3plus import DeepLabV3Plus
from atrous.models.layers import ASPP
from atrous.models.network import Network
from atrous.weights.importers.places import (
    Match,
    State,
    aspp_places,
    conv_norm,
    mobilenet_places,
    resnet_name,
    swapped,
)

_MOBILENET = "mobilenetv2_100_vainf"
_LOW_LEVEL = 48
"""Channels of V3+'s shallow features, which its decoder sees first, ours last."""


def match(state: State, output_stride: int | None) -> Match:
    """Recognise a network of this project; its published ones have output stride 16."""
    stride = output_stride or 16
    is_mobilenet = any(name.startswith("backbone.high_level_features") for name in state)
    is_plus = "classifier.project.0.weight" in state
    classifier = "classifier.classifier.3" if is_plus else "classifier.classifier.4"
    if is_mobilenet:
        name, timms = _MOBILENET, timm_name(_MOBILENET)
        own = mobilenet_places(state, "backbone.", timms, "backbone.network.")
    else:
        name, own = resnet_name(state, "backbone."), {"backbone": "backbone.network"}
    backbone = Backbone.Config(name=name, output_stride=stride)
    rates = (12, 24, 36) if stride == 8 else (6, 12, 18)
    config: Network.Config
    if is_plus:
        aspp = ASPP.Config(atrous_rates=rates)
        config = DeepLabV3Plus.Config(backbone=backbone, aspp=aspp, decoder_convs=1)
        state = swapped(state, "classifier.classifier.0.weight", _LOW_LEVEL)
    else:
        aspp = ASPP.Config(atrous_rates=rates, convs=1)
        config = DeepLabV3.Config(backbone=backbone, aspp=aspp)
    return Match(
        config=config,
        num_classes=len(state[f"{classifier}.weight"]),
        state=state,
        places={**own, **(_PLUS if is_plus else _PLAIN), classifier: "head.1"},
    )


_PLAIN = {
    **aspp_places("classifier.classifier.0"),
    **conv_norm("classifier.classifier.1", "classifier.classifier.2", "aspp_convs.0"),
}
_PLUS = {
    **aspp_places("classifier.aspp"),
    "classifier.project": "reduce",
    **conv_norm("classifier.classifier.0", "classifier.classifier.1", "decoder.0"),
}
