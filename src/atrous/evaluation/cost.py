"""Cost of a network, the same on every machine: parameters, and multiply-adds of one image.

Multiply-adds are those of convolutions, transposed convolutions and matrix products, from the photo
to the low-resolution logits, on the image as the network pads it; norms, activations, pooling and
resizing are not counted. Published figures follow this rule: it gives torchvision's 178.7 G of
DeepLabV3-ResNet50 at 520x520. torch counts a run on its meta device, which computes nothing; the
multiply-adds of a bundle follow from the shapes of each layer in onnxruntime's profile.

Parameters of a run are those that labelling needs, without an auxiliary head. A bundle has fewer,
since each norm is folded into its convolution: one bias per channel replaces a weight and a bias.
It has a dozen other constants, among them the photo's mean; scales of int8 are not counted.
"""

import copy
import json
import tempfile
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from atrous.infer.runtimes.onnx import import_onnxruntime

if TYPE_CHECKING:
    from atrous.models.photo import PhotoNetwork

_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_INPUT, _KIND = 1, 4  # of a node
_DIMENSION, _TYPE, _NAME = 1, 2, 8  # of an initializer
_INT64, _BOOL = 7, 9
"""Numbers of fields and types in onnx.proto."""

_FIXED = {1: 8, 5: 4}
"""Bytes of the wire types whose length is not written."""


class Cost(NamedTuple):
    """Cost of a network."""

    parameters: int
    multiply_adds: int
    """Multiply-adds of one image."""


def cost_of(model: Path, size: tuple[int, int]) -> Cost:
    """Count the cost of a run folder or bundle on an image of `size` (H, W)."""
    if not model.is_dir():
        return Cost(_parameters(model), sum(map(_multiply_adds, _layers(model, size))))
    # torch is not part of the core install
    from atrous.run import load_run

    return cost_of_network(load_run(model).network, size)


def cost_of_network(network: "PhotoNetwork", size: tuple[int, int]) -> Cost:
    """Count the cost of a network on an image of `size` (H, W), by a copy on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = copy.deepcopy(network).to("meta").eval()
    image = torch.empty((1, *size, network.channels), dtype=torch.uint8, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    named = network.named_parameters()
    parameters = sum(p.numel() for name, p in named if "auxiliary_head" not in name)
    return Cost(parameters, counter.get_total_flops() // 2)  # a multiply-add is two for torch


def _layers(bundle: Path, size: tuple[int, int]) -> list[dict[str, Any]]:
    """Return the profile of each layer of the file, without fusion."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")  # it hides shapes
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "layers")
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(bundle.read_bytes(), options, providers=providers)
        channels = session.get_inputs()[0].shape[3]
        session.run(["logits"], {"image": np.zeros((1, *size, channels), np.uint8)})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return [e["args"] for e in events if "output_type_shape" in e.get("args", {})]


def _multiply_adds(layer: dict[str, Any]) -> int:
    inputs, outputs = _shapes(layer["input_type_shape"]), _shapes(layer["output_type_shape"])
    match layer["op_name"]:
        case "Conv":  # weight (C', C / groups, k, k)
            return prod(outputs[0]) * prod(inputs[1][1:])
        case "ConvTranspose":  # weight (C, C' / groups, k, k)
            return prod(inputs[0]) * prod(inputs[1][1:])
        case "MatMul" | "Gemm":  # (..., M, K), (..., K, N)
            return prod(outputs[0]) * inputs[0][-1]
    return 0


def _shapes(tensors: list[dict[str, list[int]]]) -> list[list[int]]:
    """Return the shapes in [{type: shape}]."""
    return [shape for tensor in tensors for shape in tensor.values()]


def _parameters(bundle: Path) -> int:
    """Return the number of values in the graph, without sizes and the scales of int8."""
    (graph,) = _fields(memoryview(bundle.read_bytes()))[_GRAPH]
    parts = _fields(graph)
    nodes, tensors = (map(_fields, parts[number]) for number in (_NODE, _INITIALIZER))
    scales = {
        bytes(name)
        for node in nodes
        if bytes(node[_KIND][0]) in (b"QuantizeLinear", b"DequantizeLinear")
        for name in node[_INPUT][1:]
    }
    return sum(
        prod(tensor.get(_DIMENSION, ()))
        for tensor in tensors
        if tensor[_TYPE][0] not in (_INT64, _BOOL) and bytes(tensor[_NAME][0]) not in scales
    )


def _fields(message: memoryview) -> dict[int, list[Any]]:
    """Return the values of each field of a protobuf message: integers, or bytes."""
    fields: dict[int, list[Any]] = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        value: int | memoryview
        if tag & 7 == 0:
            value, place = _varint(message, place)
        else:  # a length and bytes, or 8, or 4 bytes
            length, place = _varint(message, place) if tag & 7 == 2 else (_FIXED[tag & 7], place)
            value, place = message[place : place + length], place + length
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return an integer, seven bits to a byte, and the place after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
