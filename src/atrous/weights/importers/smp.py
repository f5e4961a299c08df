"""segmentation_models.pytorch: DeepLabV3, DeepLabV3+, PSPNet and U-Net on encoders that timm has.

Definitions: segmentation_models_pytorch 0.6, decoders/*/decoder.py and encoders/. The decoders'
options are at their defaults. Its networks enlarge their logits between the centres of the corner
pixels (`align_corners`), ours between pixel areas: logits are equal, labels are not quite.
"""

from dataclasses import replace

from atrous.errors import InputError
from atrous.models.backbones import Backbone
from atrous.models.catalogue import normalization
from atrous.models.deeplabv3 import DeepLabV3
from atrous.models.deeplabv3plus import DeepLabV3Plus
from atrous.models.layers import ASPP
from atrous.models.network import Network
from atrous.models.pspnet import PSPNet
from atrous.models.unet import UNet
from atrous.weights.importers.places import (
    Match,
    Placement,
    State,
    adding,
    aspp_places,
    conv_norm,
    features,
    features_name,
    resnet_name,
    swapped,
)

_RATES = (12, 24, 36)


def match(state: State, output_stride: int | None) -> Match:
    """Recognise the encoder, then the decoder."""
    backbone, place = _encoder(state)
    known = [(recognise, stride) for mark, recognise, stride in _DECODERS if mark in state]
    if not known:
        raise InputError("its decoder is none of DeepLabV3, DeepLabV3Plus, PSPNet and Unet")
    recognise, stride = known[0]
    if output_stride is not None and recognise not in (_deeplabv3, _deeplabv3plus):
        raise InputError(f"--output-stride {output_stride}: only its DeepLabs have a choice")
    config, decoder = recognise(replace(backbone, output_stride=output_stride or stride), state)
    mean, std = normalization(backbone.name)
    encoder = {place: "backbone.network", "segmentation_head.0": "head.1"}
    return Match(
        config=config,
        num_classes=len(state["segmentation_head.0.weight"]),
        state=decoder.state,
        places={**encoder, **decoder.places},
        dropped=("classification_head", *decoder.dropped),
        mean=mean,
        std=std,
    )


def _encoder(state: State) -> tuple[Backbone.Config, str]:
    """Return the backbone, and what the names of its tensors begin with.

    Their ResNets dilate every convolution of a stage alike; encoders named "tu-" are timm's.
    """
    timms = "encoder.model."
    if any(name.startswith(timms) for name in state):
        tensors = {name.removeprefix(timms): t for name, t in state.items() if timms in name}
        return Backbone.Config(name=features_name(tensors)), "encoder.model"
    if "encoder.layer1.0.conv1.weight" in state:
        name = resnet_name(state, "encoder.")
        return Backbone.Config(name=name, multi_grid=(1, 1, 1)), "encoder"
    raise InputError("its encoder is neither a ResNet nor one of timm's (tu-...)")


_Decoder = tuple[Network.Config, Placement]


def _deeplabv3(backbone: Backbone.Config, state: State) -> _Decoder:
    config = DeepLabV3.Config(backbone=backbone, aspp=ASPP.Config(atrous_rates=_RATES, convs=1))
    convs = conv_norm("decoder.conv", "decoder.bn", "aspp_convs.0")
    return config, Placement(state=state, places=aspp_places("decoder.aspp") | convs)


def _deeplabv3plus(backbone: Backbone.Config, state: State) -> _Decoder:
    aspp = ASPP.Config(atrous_rates=_RATES, separable=True, separable_norm=False, convs=1)
    config = DeepLabV3Plus.Config(backbone=backbone, aspp=aspp, decoder_convs=1, align_corners=True)
    places = aspp_places("decoder.aspp.0") | {
        "decoder.block1": "reduce",
        **_separable("decoder.aspp.1", "decoder.aspp.2", "aspp_convs.0"),
        **_separable("decoder.block2.0", "decoder.block2.1", "decoder.0"),
    }
    for i in (1, 2, 3):
        branch = f"decoder.aspp.0.convs.{i}"
        places |= _separable(f"{branch}.0", f"{branch}.1", f"aspp.branches.{i}")
    return config, Placement(state=state, places=places)


def _separable(conv: str, norm: str, ours: str) -> dict[str, str]:
    return {f"{conv}.0": f"{ours}.0", **conv_norm(f"{conv}.1", norm, f"{ours}.1")}


def _pspnet(backbone: Backbone.Config, state: State) -> _Decoder:
    """The encoder ends at stride 8; what it holds of deeper stages is never computed.

    The branch of the whole image has a bias and no norm: it becomes a norm that only adds the bias.
    Their decoder takes the pyramid before the features, ours after.
    """
    pyramid, merged = "decoder.psp.blocks", "decoder.conv.0.weight"
    whole = f"{pyramid}.0.pool.1"
    width, inputs = state[merged].shape[:2]
    changed = dict(swapped(state, merged, inputs // 2))
    bias = changed.pop(f"{whole}.0.bias")
    changed |= {f"{whole}.1.{name}": tensor for name, tensor in adding(bias).items()}
    config = PSPNet.Config(
        backbone=replace(backbone, multi_grid=None),  # nothing is dilated
        pooled_level=8,
        project_kernel=1,
        align_corners=True,
        head_kernel=3,
        decoder_channels=width,
    )
    places = {f"{pyramid}.{i}.pool.1": f"pyramid.branches.{i}" for i in range(4)}
    deeper = features(backbone.name).keys() - features(backbone.name, 8).keys()
    return config, Placement(
        state=changed,
        places={**places, "decoder.conv": "decoder"},
        dropped=tuple(f"encoder.{key}" for key in deeper),
    )


def _unet(backbone: Backbone.Config, state: State) -> _Decoder:
    config = UNet.Config(
        backbone=backbone,
        upsampling="nearest",
        decoder_channels=len(state["decoder.blocks.0.conv1.0.weight"]),
        head_kernel=3,
    )
    places = {
        f"decoder.blocks.{i}.conv{j + 1}": f"steps.{i}.merge.{j}" for i in range(5) for j in (0, 1)
    }
    return config, Placement(state=state, places=places)


_DECODERS = (
    ("decoder.aspp.convs.0.0.weight", _deeplabv3, 8),
    ("decoder.aspp.0.convs.0.0.weight", _deeplabv3plus, 16),
    ("decoder.psp.blocks.0.pool.1.0.weight", _pspnet, 8),
    ("decoder.blocks.0.conv1.0.weight", _unet, 32),
)
"""A tensor that shows the decoder, its function, and its usual output stride."""
