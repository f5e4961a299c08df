"""torchvision's FCN and DeepLabV3, on ResNet-50 and 101, and DeepLabV3 on MobileNetV3-Large.

Definitions: torchvision/models/segmentation of torchvision 0.29. Dropped: the auxiliary head on
MobileNetV3, which sits in the middle of a stage; it only serves training.
"""

from typing import Any

from atrous.weights.importers.backbones import MOBILENET_EPS, mobilenet_places, with_eps
from atrous.weights.importers.layout import Match, State, aspp_places, resnet_name

_FCN = {"classifier.0": "convs.0.0", "classifier.1": "convs.0.1", "classifier.4": "head.1"}
_AUXILIARY = {
    "aux_classifier.0": "auxiliary_head.0.0",
    "aux_classifier.1": "auxiliary_head.0.1",
    "aux_classifier.4": "auxiliary_head.1.1",
}
_ASPP = {
    **aspp_places("classifier.0"),
    "classifier.1": "aspp_convs.0.0",
    "classifier.2": "aspp_convs.0.1",
    "classifier.4": "head.1",
}


def match(state: State, output_stride: int | None) -> Match:
    """Recognise the head, then the backbone."""
    options: dict[str, Any] = {"num_classes": len(state["classifier.4.weight"])}
    if "classifier.0.convs.0.0.weight" in state:
        options |= {"name": "deeplabv3", "atrous_rates": (12, 24, 36), "aspp_convs": 1}
        places = _ASPP
    else:
        options |= {"name": "fcn"}
        places = _FCN
    if "backbone.0.0.weight" in state:
        return _on_mobilenet(state, options | {"output_stride": output_stride or 16}, places)
    return Match(
        options=options
        | {
            "backbone": resnet_name(state, "backbone."),
            "output_stride": output_stride or 8,
            "multi_grid": None,
            "auxiliary": "aux_classifier.4.weight" in state,
        },
        state=state,
        places=places | _AUXILIARY | {"backbone": "backbone.network"},
    )


def _on_mobilenet(state: State, options: dict[str, Any], places: dict[str, str]) -> Match:
    name = "mobilenetv3_large_100"
    modules = [key.removeprefix("backbone.") for key in state if key.startswith("backbone.")]
    backbone = {
        f"backbone.{theirs}": f"backbone.network.{ours}"
        for theirs, ours in mobilenet_places(modules, name).items()
    }
    norms = with_eps(state, MOBILENET_EPS, "backbone.")
    return Match(
        options=options | {"backbone": name, "multi_grid": (1, 1, 1)},
        state=norms,
        places=places | backbone,
        dropped=("aux_classifier",),
    )
