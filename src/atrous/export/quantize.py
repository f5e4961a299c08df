"""A float bundle to an int8 one: static quantisation (QDQ), calibrated on training images.

Weights are int8 with a scale per channel, activations uint8 with a scale per tensor. Departures
from onnxruntime's own calibration, which keeps every activation of every image in memory:

- each image leaves only its extremes and a sample of each tensor;
- a range is not the extremes but the part of them that rounds and clips the sample with the least
  squared error (as in Banner et al. 2019, arXiv:1810.05723, by search instead of by formula);
- the normalisation, the first three convolutions and the classifier stay in float: on
  EfficientNet-Lite2 that halves the noise of the logits and costs no time that can be measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from atrous.export.graph import write_bundle
from atrous.files import InputError
from atrous.infer.bundle import BundleMetadata

_QUANTIZED = ("Conv", "Add", "Concat", "Resize", "Clip", "Relu")
_STEM = 3
"""How many convolutions, from the image on, stay in float."""
_SAMPLE = 2048
"""Values of each tensor that an image leaves behind."""


def quantize(
    bundle: Path | str, out: Path | str, images: Iterable[NDArray[np.uint8]]
) -> BundleMetadata:
    """Write the int8 form of a float bundle to `out`.

    Args:
        bundle: a float bundle.
        out: where to write.
        images: (H, W, 3) uint8 each, of any sizes, read one at a time: what the model will see. Two
            dozen do; they must not be images that it is scored on.

    Returns:
        What the int8 bundle says about itself.

    Raises:
        InputError: there are no images, or the bundle is int8 already.
    """
    model = onnx.load(bundle)
    properties = {item.key: item.value for item in model.metadata_props}
    metadata = BundleMetadata.from_properties(properties, str(bundle))
    if metadata.precision != "fp32":
        raise InputError(f"{bundle}: {metadata.precision} already; quantise the float bundle")
    model = onnx.shape_inference.infer_shapes(model)
    nodes = _nodes_to_quantize(model.graph)
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=_calibrate(model, _activations(model.graph, nodes), images),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=list(_QUANTIZED),
        extra_options={},
    )
    quantizer.quantize_model()
    metadata = replace(metadata, precision="int8")
    write_bundle(quantizer.model.model, metadata, out)
    return metadata


def _nodes_to_quantize(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The network without its float ends.

    An activation goes with its convolution: on its own, it would have the values quantised that it
    is about to cut off.
    """
    floats = _floats(graph)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    kept = {node.output[0] for node in (*convolutions[:_STEM], convolutions[-1])}
    start = list(graph.node).index(convolutions[0])
    return [
        node
        for node in list(graph.node)[start:]
        if node.op_type in _QUANTIZED
        and node.output[0] in floats - kept
        and not (node.op_type in ("Clip", "Relu") and node.input[0] in kept)
    ]


def _floats(graph: onnx.GraphProto) -> set[str]:
    """The tensors that hold float32; the others are sizes."""
    tensors = (*graph.value_info, *graph.input, *graph.output)
    return {t.name for t in tensors if t.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}


def _activations(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """The tensors that `nodes` read and write, without weights."""
    floats = _floats(graph)
    names = (name for node in nodes for name in (*node.input, *node.output))
    return [name for name in dict.fromkeys(names) if name in floats]


def _calibrate(
    model: onnx.ModelProto, names: Sequence[str], images: Iterable[NDArray[np.uint8]]
) -> TensorsData:
    """The range of each tensor in `names` over `images`, in the form that onnxruntime takes."""
    session = _session_with_outputs(model, names)
    low, high = np.zeros(len(names), np.float32), np.zeros(len(names), np.float32)
    samples: list[list[NDArray[np.float32]]] = [[] for _ in names]
    for count, image in enumerate(images):
        for i, tensor in enumerate(session.run(list(names), {"image": image[None]})):
            values = tensor.ravel()
            low[i], high[i] = min(low[i], values.min()), max(high[i], values.max())
            step = max(1, values.size // _SAMPLE)
            samples[i].append(values[count % step :: step].copy())
    if not samples or not samples[0]:
        raise InputError("no image to calibrate int8 on; give a split that has some")
    ranges = {
        name: best_range(np.concatenate(sample), float(low[i]), float(high[i]))
        for i, (name, sample) in enumerate(zip(names, samples, strict=True))
    }
    pairs = {name: (np.float32(a), np.float32(b)) for name, (a, b) in ranges.items()}
    return TensorsData(CalibrationMethod.MinMax, pairs)


def _session_with_outputs(
    model: onnx.ModelProto, names: Sequence[str]
) -> onnxruntime.InferenceSession:
    """A session of `model` that also returns its inner tensors `names`."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    returned = {output.name for output in model.graph.output}
    for name in names:
        if name not in returned:
            opened.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return onnxruntime.InferenceSession(
        opened.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def best_range(values: NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    """The part of [low, high] whose 256 steps give `values` the least squared error.

    Args:
        values: (N,) a sample of what will be rounded and clipped.
        low: its lower extreme, 0 or less.
        high: its upper extreme, 0 or more.
    """
    candidates = [(low * part, high * part) for part in np.linspace(0.3, 1, 29)]
    return min(candidates, key=lambda limits: _squared_error(values, *limits))


def _squared_error(values: NDArray[np.float32], low: float, high: float) -> float:
    """The mean squared error of rounding `values` to 256 steps from `low` to `high`."""
    step = max((high - low) / 255, 1e-12)
    zero = round(-low / step)
    rounded = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return float(np.mean((rounded - values) ** 2))
