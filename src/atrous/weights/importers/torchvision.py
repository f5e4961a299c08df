"""torchvision's FCN and DeepLabV3, on ResNet-50 and 101, and DeepLabV3 on MobileNetV3-Large.

Definitions: torchvision/models/segmentation of torchvision 0.29. Dropped: the auxiliary head on
MobileNetV3, which is in the middle of a stage; only training uses it.
"""

from atrous.models.backbones import Backbone
from atrous.models.deeplabv3 import DeepLabV3
from atrous.models.fcn import FCN
from atrous.models.layers import ASPP
from atrous.models.network import Network
from atrous.weights.importers.places import (
    MOBILENET_EPS,
    Match,
    State,
    aspp_places,
    conv_norm,
    mobilenet_places,
    resnet_name,
    with_eps,
)

_FCN = {**conv_norm("classifier.0", "classifier.1", "convs.0"), "classifier.4": "head.1"}
_AUXILIARY = {
    **conv_norm("aux_classifier.0", "aux_classifier.1", "auxiliary_head.0"),
    "aux_classifier.4": "auxiliary_head.1.1",
}
_DEEPLAB = {
    **aspp_places("classifier.0"),
    **conv_norm("classifier.1", "classifier.2", "aspp_convs.0"),
    "classifier.4": "head.1",
}
_RESNET = {"backbone": "backbone.network", **_AUXILIARY}
_MOBILENET = "mobilenetv3_large_100"


def match(state: State, output_stride: int | None) -> Match:
    """Recognise the backbone, then the head; the output stride is 16 on MobileNet, else 8."""
    num_classes = len(state["classifier.4.weight"])
    is_mobilenet = "backbone.0.0.weight" in state
    if is_mobilenet:
        backbone = Backbone.Config(
            name=_MOBILENET, output_stride=output_stride or 16, multi_grid=(1, 1, 1)
        )
        own = mobilenet_places(state, "backbone.", _MOBILENET, "backbone.network.")
        state = with_eps(state, MOBILENET_EPS, "backbone.")
    else:
        name, own = resnet_name(state, "backbone."), _RESNET
        backbone = Backbone.Config(name=name, output_stride=output_stride or 8)
    auxiliary = "aux_classifier.4.weight" in state and not is_mobilenet
    config: Network.Config = FCN.Config(backbone=backbone, auxiliary=auxiliary)
    places = _FCN
    if "classifier.0.convs.0.0.weight" in state:
        aspp = ASPP.Config(atrous_rates=(12, 24, 36), convs=1)
        config = DeepLabV3.Config(backbone=backbone, auxiliary=auxiliary, aspp=aspp)
        places = _DEEPLAB
    return Match(
        config=config,
        num_classes=num_classes,
        state=state,
        places=places | own,
        dropped=("aux_classifier",) if is_mobilenet else (),
    )
