"""segmentation_models.pytorch: DeepLabV3, DeepLabV3+, PSPNet and U-Net on encoders that timm has.

Definitions: segmentation_models_pytorch 0.6, decoders/*/decoder.py and encoders/. The decoders'
options are at their defaults. Its networks enlarge their logits between the centres of the corner
pixels (`align_corners`), ours between pixel areas: logits are equal, labels are not quite.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from atrous.errors import InputError
from atrous.models.catalogue import normalization
from atrous.weights.importers.backbones import features, timm_name
from atrous.weights.importers.layout import Match, State, aspp_places, resnet_name


def match(state: State, output_stride: int | None) -> Match:
    """Recognise the encoder, then the decoder.

    Raises:
        InputError: the encoder or the decoder is of another kind.
    """
    encoder = _encoder(state)
    if "decoder.aspp.convs.0.0.weight" in state:
        return _deeplabv3(encoder, output_stride or 8)
    if "decoder.aspp.0.convs.0.0.weight" in state:
        return _deeplabv3plus(encoder, output_stride or 16)
    if output_stride is not None:
        raise InputError(f"--output-stride {output_stride}: only its DeepLabs have a choice")
    if "decoder.psp.blocks.0.pool.1.0.weight" in state:
        return _pspnet(encoder)
    if "decoder.blocks.0.conv1.0.weight" in state:
        return _unet(encoder)
    raise InputError("its decoder is none of DeepLabV3, DeepLabV3Plus, PSPNet and Unet")


def _encoder(state: State) -> Match:
    """Match all but the decoder.

    Their ResNets dilate every convolution of a stage alike; encoders named "tu-" are timm's.

    Raises:
        InputError: the encoder is neither.
    """
    options: dict[str, Any] = {"num_classes": len(state["segmentation_head.0.weight"])}
    place, timms = "encoder", "encoder.model."
    if any(name.startswith(timms) for name in state):
        place = "encoder.model"
        tensors = {name.removeprefix(timms): t for name, t in state.items() if timms in name}
        options |= {"backbone": timm_name(tensors), "multi_grid": None}
    elif "encoder.layer1.0.conv1.weight" in state:
        options |= {"backbone": resnet_name(state, "encoder."), "multi_grid": (1, 1, 1)}
    else:
        raise InputError("its encoder is neither a ResNet nor one of timm's (tu-...)")
    mean, std = normalization(options["backbone"])
    return Match(
        options=options,
        mean=mean,
        std=std,
        state=state,
        places={place: "backbone.network", "segmentation_head.0": "head.1"},
        dropped=("classification_head",),
    )


def _with(encoder: Match, options: Mapping[str, Any], places: Mapping[str, str]) -> Match:
    return replace(
        encoder, options={**encoder.options, **options}, places={**encoder.places, **places}
    )


def _deeplabv3(encoder: Match, output_stride: int) -> Match:
    options = {
        "name": "deeplabv3",
        "output_stride": output_stride,
        "atrous_rates": (12, 24, 36),
        "aspp_convs": 1,
    }
    convs = {"decoder.conv": "aspp_convs.0.0", "decoder.bn": "aspp_convs.0.1"}
    return _with(encoder, options, aspp_places("decoder.aspp") | convs)


def _deeplabv3plus(encoder: Match, output_stride: int) -> Match:
    options = {
        "name": "deeplabv3plus",
        "output_stride": output_stride,
        "atrous_rates": (12, 24, 36),
        "separable": True,
        "separable_norm": False,
        "aspp_convs": 1,
        "decoder_convs": 1,
        "align_corners": True,
    }
    places = aspp_places("decoder.aspp.0") | {
        "decoder.block1": "reduce",
        **_separable("decoder.aspp.1", "decoder.aspp.2", "aspp_convs.0"),
        **_separable("decoder.block2.0", "decoder.block2.1", "decoder.0"),
    }
    for i in (1, 2, 3):
        branch = f"decoder.aspp.0.convs.{i}"
        places |= _separable(f"{branch}.0", f"{branch}.1", f"aspp.branches.{i}")
    return _with(encoder, options, places)


def _separable(conv: str, norm: str, ours: str) -> dict[str, str]:
    return {f"{conv}.0": f"{ours}.0", f"{conv}.1": f"{ours}.1.0", norm: f"{ours}.1.1"}


def _pspnet(encoder: Match) -> Match:
    """The encoder ends at stride 8; what it holds of deeper stages is never computed.

    The branch of the whole image has a bias and no norm: it becomes a norm that only adds the bias.
    Their decoder takes the pyramid before the features, ours after.
    """
    pyramid = "decoder.psp.blocks"
    whole, merged = f"{pyramid}.0.pool.1", "decoder.conv.0.weight"
    state = dict(encoder.state)
    bias, weight = state.pop(f"{whole}.0.bias"), state[merged]
    state |= {f"{whole}.1.{name}": tensor for name, tensor in _adding(bias).items()}
    inputs = weight.shape[1] // 2
    state[merged] = torch.cat([weight[:, inputs:], weight[:, :inputs]], dim=1)
    options = {
        "name": "pspnet",
        "output_stride": 8,
        "multi_grid": None,  # nothing is dilated
        "pooled_level": 8,
        "project_kernel": 1,
        "align_corners": True,
        "head_kernel": 3,
        "decoder_channels": len(weight),
    }
    places = {f"{pyramid}.{i}.pool.1": f"pyramid.branches.{i}" for i in range(4)}
    name = encoder.options["backbone"]
    deeper = features(name).keys() - features(name, 8).keys()
    matched = _with(replace(encoder, state=state), options, places | {"decoder.conv": "decoder"})
    return replace(matched, dropped=(*encoder.dropped, *(f"encoder.{key}" for key in deeper)))


def _adding(bias: Tensor) -> dict[str, Tensor]:
    """The tensors of a norm, of torch's default eps, that adds `bias` and does no more."""
    ones = torch.ones_like(bias)
    return {"weight": ones, "bias": bias, "running_mean": 0 * ones, "running_var": ones - 1e-5}


def _unet(encoder: Match) -> Match:
    options = {
        "name": "unet",
        "output_stride": 32,
        "upsampling": "nearest",
        "decoder_channels": len(encoder.state["decoder.blocks.0.conv1.0.weight"]),
        "head_kernel": 3,
    }
    places = {
        f"decoder.blocks.{i}.conv{j + 1}": f"steps.{i}.merge.{j}" for i in range(5) for j in (0, 1)
    }
    return _with(encoder, options, places)
