"""VainF/DeepLabV3Plus-Pytorch: DeepLabV3 and V3+ on ResNet-50, ResNet-101 and MobileNetV2.

Definitions: network/{_deeplab,modeling}.py and network/backbone of
github.com/VainF/DeepLabV3Plus-Pytorch. Its HRNet and Xception backbones, and separable convolutions
put in by hand (no published checkpoint has them), find no place here.
"""

import torch

from atrous.weights.importers.layout import Match, State, aspp_places, resnet_name

_MOBILENET = "mobilenetv2_100_vainf"
_UNITS = (1, 2, 3, 4, 3, 3, 1)
"""Inverted residuals of each of its stages."""
_LOW_LEVEL = 48
"""Channels of V3+'s shallow features."""


def match(state: State, output_stride: int | None) -> Match:
    """Recognise a network of this project; its published ones have output stride 16.

    Raises:
        InputError: its backbone is none of those above.
    """
    stride = output_stride or 16
    is_mobilenet = any(name.startswith("backbone.high_level_features") for name in state)
    is_plus = "classifier.project.0.weight" in state
    classifier = "classifier.classifier.3" if is_plus else "classifier.classifier.4"
    return Match(
        options={
            "name": "deeplabv3plus" if is_plus else "deeplabv3",
            "num_classes": len(state[f"{classifier}.weight"]),
            "backbone": _MOBILENET if is_mobilenet else resnet_name(state, "backbone."),
            "output_stride": stride,
            "atrous_rates": (12, 24, 36) if stride == 8 else (6, 12, 18),
            "multi_grid": None,
            **({"decoder_convs": 1} if is_plus else {"aspp_convs": 1}),
        },
        state=_in_our_order(state) if is_plus else state,
        places={
            **(_mobilenet() if is_mobilenet else {"backbone": "backbone.network"}),
            **(_plus() if is_plus else _plain()),
            classifier: "head.1",
        },
    )


def _plain() -> dict[str, str]:
    return aspp_places("classifier.classifier.0") | {
        "classifier.classifier.1": "aspp_convs.0.0",
        "classifier.classifier.2": "aspp_convs.0.1",
    }


def _plus() -> dict[str, str]:
    return aspp_places("classifier.aspp") | {
        "classifier.project": "reduce",
        "classifier.classifier.0": "decoder.0.0",
        "classifier.classifier.1": "decoder.0.1",
    }


def _mobilenet() -> dict[str, str]:
    """Return the places of MobileNetV2's tensors; theirs are numbered through from the stem."""
    low, high = "backbone.low_level_features", "backbone.high_level_features"
    ours = "backbone.network"
    places = {f"{low}.0.0": f"{ours}.conv_stem", f"{low}.0.1": f"{ours}.bn1"}
    units = [(s, u) for s, count in enumerate(_UNITS) for u in range(count)]
    for number, (stage, unit) in enumerate(units, start=1):
        theirs = f"{low if number < 4 else high}.{number}.conv"
        block = f"{ours}.blocks.{stage}.{unit}"
        layers = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2"}
        layers |= {"2": "conv_pwl", "3": "bn3"}
        if stage == 0:  # it does not expand
            layers = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
        places |= {f"{theirs}.{layer}": f"{block}.{name}" for layer, name in layers.items()}
    return places


def _in_our_order(state: State) -> State:
    """V3+'s decoder sees the shallow features first there, and last here."""
    name = "classifier.classifier.0.weight"
    shallow, deep = state[name][:, :_LOW_LEVEL], state[name][:, _LOW_LEVEL:]
    return {**state, name: torch.cat([deep, shallow], dim=1)}
