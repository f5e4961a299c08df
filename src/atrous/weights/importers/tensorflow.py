"""TensorFlow's DeepLab in TFLite files: DeepLabV3 and V3+ on MobileNetV2 of any width.

Definitions: research/deeplab/{model,core/feature_extractor}.py of github.com/tensorflow/models. A
graph has no names to go by: each layer is found by what it takes, from the image to the logits.
Batch norms are folded into the convolutions of such a file; their biases become norms that only add
them. `models.tensorflow` says at which sizes all is as in TensorFlow. MobileNetEdgeTPU,
MobileNetV3, Xception and ResNet are not supported.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from atrous.errors import InputError
from atrous.models.backbones import Backbone
from atrous.models.deeplabv3 import DeepLabV3
from atrous.models.deeplabv3plus import DeepLabV3Plus
from atrous.models.layers import ASPP
from atrous.models.network import Network
from atrous.models.tensorflow import STAGES
from atrous.weights.importers.places import Match, adding
from atrous.weights.importers.tflite_file import Value, read_graph
from atrous.weights.importers.tflite_layers import Layer, Layers

_LAST_CHANNELS = STAGES[-1][-1]
_LOW_LEVEL = (1, 1)
"""Stage and block whose depthwise convolution V3+'s decoder takes."""


def match(path: Path) -> Match:
    """Recognise the network of a TFLite file."""
    graph = read_graph(path)
    mean, std = _normalization(graph.input)
    walk = _Walk(Layers(graph))
    backbone, features, low_level = _mobilenet(walk, graph.input)
    aspp, features = _aspp(walk, features)
    plain = DeepLabV3.Config(backbone=backbone, aspp=aspp)
    config: Network.Config = plain
    if walk.left(low_level, "conv"):
        config, features = _decoder(walk, plain, features, low_level)
    logits = walk.take(features, "conv")
    walk.state["head.1.weight"] = torch.from_numpy(logits.weight)
    walk.state["head.1.bias"] = torch.from_numpy(logits.bias)
    _check_end(walk, logits)
    return Match(
        config=config,
        num_classes=len(logits.weight),
        state=walk.state,
        places={name: name for name in walk.state},
        mean=mean,
        std=std,
    )


class _Walk:
    """The layers of a graph that have no place yet, and the tensors of those that have."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self.state: dict[str, torch.Tensor] = {}
        """By our names."""
        self.unplaced = list(layers.by_output.values())

    def left(self, number: int, *kinds: str) -> list[Layer]:
        """Return the layers of these kinds that take a tensor and have no place."""
        return [x for x in self.unplaced if number in x.inputs and x.kind in kinds]

    def take(self, number: int, kind: str, activation: str = "none", kernel: int = 0) -> Layer:
        """Return the only such layer that takes a tensor, which gets a place.

        A conv is a 1x1 unless it has a `kernel`.
        """
        side = kernel or 1
        found = [
            layer
            for layer in self.left(number, kind)
            if layer.activation == activation and layer.weight.shape[2:3] in ((), (side,))
        ]
        if len(found) != 1:
            name = self.layers.graph.values[number].name
            how = f"{side}x{side} {kind}" if kind in ("conv", "depthwise") else kind
            how += f" with {activation}" if activation != "none" else ""
            titles = [layer.operator.title for layer in self.unplaced if number in layer.inputs]
            there = ", ".join(titles[:3]) or "nothing"
            raise InputError(f"after {name}: DeepLab has one {how}; the file has {there}")
        (layer,) = found
        if not kernel and (layer.stride, layer.dilation) != (1, 1):
            raise layer.operator.error(f"stride {layer.stride}, dilation {layer.dilation}; not 1")
        self.unplaced.remove(layer)
        return layer

    def place(self, layer: Layer, conv: str, norm: str) -> int:
        """Keep a convolution's weights, and its bias as a norm; return the tensor it computes."""
        self.state[f"{conv}.weight"] = torch.from_numpy(layer.weight)
        for name, tensor in adding(torch.from_numpy(layer.bias)).items():
            self.state[f"{norm}.{name}"] = tensor
        return layer.output

    def pointwise(self, number: int, ours: str) -> int:
        """Take and place a 1x1 convolution with relu: a `ConvNormAct`."""
        return self.place(self.take(number, "conv", "relu"), f"{ours}.0", f"{ours}.1")

    def spatial(self, layer: Layer, ours: str) -> int:
        """Place a 3x3 convolution with relu; a depthwise one is followed by a 1x1."""
        if (layer.activation, layer.weight.shape[2], layer.stride) != ("relu", 3, 1):
            raise layer.operator.error("no 3x3 convolution with relu, as DeepLab has here")
        self.unplaced.remove(layer)
        if layer.kind == "conv":
            return self.place(layer, f"{ours}.0", f"{ours}.1")
        return self.pointwise(self.place(layer, f"{ours}.0.0", f"{ours}.0.1"), f"{ours}.1")


def _normalization(image: Value) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of RGB in 0..1: of -1 to 1, or what bytes stand for."""
    if len(image.shape) != 4 or image.shape[0] != 1 or image.shape[3] != 3:
        raise InputError(f"its input is {list(image.shape)}, not one image of three channels")
    if not image.scale:
        return (0.5,) * 3, (0.5,) * 3
    if not 1e-4 < image.scale[0] < 1:
        raise InputError(f"{image.name}: its pixels have a scale of {image.scale[0]:g}")
    zero = image.zero[0] if image.zero else 0
    return ((zero - image.lowest) / 255,) * 3, (1 / (255 * image.scale[0]),) * 3


def _mobilenet(walk: _Walk, image: Value) -> tuple[Backbone.Config, int, int]:
    """Place the backbone; return it, its last features, and those that a decoder takes."""
    network = "backbone.network"
    stem = walk.take(image.number, "conv", "relu6", kernel=3)
    _check_grid(stem, 2, 1)
    x = walk.place(stem, f"{network}.conv_stem", f"{network}.bn1")
    output_stride, dilation, low_level, channels = 2, 1, -1, len(stem.bias)
    for stage, (blocks, stage_stride, _) in enumerate(STAGES):
        for block in range(blocks):
            ours, start = f"{network}.blocks.{stage}.{block}", x
            stride = 1 if block else stage_stride
            if stage:
                expand = walk.take(x, "conv", "relu6")
                x = walk.place(expand, f"{ours}.conv_pw", f"{ours}.bn1")
            spatial = walk.take(x, "depthwise", "relu6", kernel=3)
            x = walk.place(spatial, f"{ours}.conv_dw", f"{ours}.{'bn2' if stage else 'bn1'}")
            low_level = x if (stage, block) == _LOW_LEVEL else low_level
            is_dilated = dilation > 1 or spatial.stride < stride  # where strides end
            _check_grid(spatial, 1 if is_dilated else stride, dilation)
            output_stride *= 1 if is_dilated else stride
            dilation *= stride if is_dilated else 1
            reduce = walk.take(x, "conv")
            conv, norm = ("conv_pwl", "bn3") if stage else ("conv_pw", "bn2")
            x = walk.place(reduce, f"{ours}.{conv}", f"{ours}.{norm}")
            if spatial.stride == 1 and channels == len(reduce.bias):
                sums = walk.take(x, "add")
                if set(sums.inputs) != {x, start}:
                    raise sums.operator.error("adds other features than its block's own")
                x = sums.output
            channels = len(reduce.bias)
    width = round(100 * channels / _LAST_CHANNELS)
    height, columns = image.shape[1:3]
    if not 1 <= width <= 999:
        raise InputError(f"a MobileNetV2 with {channels} channels at its end")
    if height % output_stride != 1 or columns % output_stride != 1:
        raise InputError(f"its input is {columns}x{height}, not {output_stride} n + 1 pixels")
    name = f"mobilenetv2_{width:03}_tf"
    return Backbone.Config(name=name, output_stride=output_stride), x, low_level


def _check_grid(layer: Layer, stride: int, dilation: int) -> None:
    if (layer.stride, layer.dilation) != (stride, dilation):
        raise layer.operator.error(
            f"stride {layer.stride} and dilation {layer.dilation}, where MobileNetV2 has {stride} "
            f"and {dilation}"
        )


def _aspp(walk: _Walk, features: int) -> tuple[ASPP.Config, int]:
    """Place the pyramid; return its options, and its result."""
    branches: dict[int, str] = {}  # tensors that are joined, in our order
    convs = walk.left(features, "conv", "depthwise")
    spatial = [layer for layer in convs if layer.weight.shape[2] > 1]
    has_pointwise = len(convs) > len(spatial)
    if has_pointwise:
        branches[walk.pointwise(features, "aspp.branches.0")] = "aspp.branches.0"
    for i, layer in enumerate(spatial, start=has_pointwise):
        branches[walk.spatial(layer, f"aspp.branches.{i}")] = f"aspp.branches.{i}"
    has_mean = bool(walk.left(features, "mean"))
    if has_mean:
        mean = walk.pointwise(walk.take(features, "mean").output, "aspp.image_pooling")
        branches[walk.take(mean, "resize").output] = "aspp.image_pooling"
    joined, order = _joined(walk, list(branches))
    project = _reordered(walk.take(joined, "conv", "relu"), walk, order, list(branches))
    rates = tuple(layer.dilation for layer in spatial)
    config = ASPP.Config(
        channels=len(project.bias),
        atrous_rates=rates or ASPP.Config.atrous_rates,
        pointwise_branch=has_pointwise,
        atrous_branches=bool(spatial),
        image_pooling=has_mean,
        separable=any(layer.kind == "depthwise" for layer in spatial),
    )
    return config, walk.place(project, "aspp.project.0", "aspp.project.1")


def _joined(walk: _Walk, tensors: list[int]) -> tuple[int, tuple[int, ...]]:
    """Return the tensor that joins the channels of others, and these in its order."""
    if len(tensors) < 2:
        return (tensors or [-1])[0], tuple(tensors)
    layer = walk.take(tensors[0], "concat")
    if sorted(layer.inputs) != sorted(tensors):
        raise layer.operator.error("joins other features than DeepLab does here")
    return layer.output, layer.inputs


def _reordered(layer: Layer, walk: _Walk, order: tuple[int, ...], ours: list[int]) -> Layer:
    """Return a 1x1 convolution of joined features for these in our order."""
    sizes = [walk.layers.shape(number)[3] for number in order]
    if sum(sizes) != layer.weight.shape[1]:
        raise layer.operator.error(f"{layer.weight.shape[1]} inputs, where {sum(sizes)} are joined")
    parts = np.split(layer.weight, np.cumsum(sizes)[:-1], axis=1)
    weight = np.concatenate([parts[order.index(number)] for number in ours], axis=1)
    return replace(layer, weight=weight)


def _decoder(
    walk: _Walk, plain: DeepLabV3.Config, pyramid: int, low_level: int
) -> tuple[DeepLabV3Plus.Config, int]:
    """Place V3+'s decoder; return the network, and the decoder's result."""
    context = walk.take(pyramid, "resize").output
    pair = [context, walk.pointwise(low_level, "reduce")]
    x, order = _joined(walk, pair)
    if list(order) != pair:
        raise InputError("its decoder joins the shallow features before the pyramid")
    kinds = ["depthwise" if plain.aspp.separable else "conv"] * plain.aspp.atrous_branches
    count = 0
    while spatial := [y for y in walk.left(x, "conv", "depthwise") if y.weight.shape[2] > 1]:
        kinds.append(spatial[0].kind)
        x = walk.spatial(spatial[0], f"decoder.{count}")
        count += 1
    if len(set(kinds)) != 1 or not count:
        raise InputError("its decoder has none, or other 3x3 convolutions than its pyramid")
    separable = kinds[0] == "depthwise"
    last = f"decoder.{count - 1}." + ("1.0.weight" if separable else "0.weight")
    config = DeepLabV3Plus.Config(
        backbone=plain.backbone,
        aspp=replace(plain.aspp, separable=separable),
        decoder_channels=len(walk.state[last]),
        decoder_convs=count,
    )
    return config, x


def _check_end(walk: _Walk, logits: Layer) -> None:
    """Refuse what follows the logits but to enlarge them and to find the largest; and leftovers."""
    x = logits.output
    while after := walk.left(x, "resize", "softmax", "argmax", "cast"):
        walk.unplaced.remove(after[0])
        x = after[0].output
    if walk.unplaced:
        raise walk.unplaced[0].operator.error("DeepLab has no place for it")
    if x != walk.layers.output:
        raise InputError(f"{walk.layers.graph.output.name}: its output is not that of the logits")
