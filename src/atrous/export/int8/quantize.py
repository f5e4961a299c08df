"""Static quantisation of a float graph to int8 (QDQ), calibrated on training images.

Weights are int8 with a scale per channel, activations uint8 with a scale per tensor. Two measures
keep the score: ranges with the least squared error (`atrous.export.int8.observer`), and float for
the few layers with the most noise per work (`atrous.export.int8.precision_plan`). The normalisation
always stays in float.

Tried without gain on EfficientNet-Lite2 (CamVid): weight scales of least squared error instead of
the extremes; biases that take back the mean error of the rounded weights (Nagel et al. 2019,
arXiv:1906.04721), which help only while the sensitive layers are rounded, too.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.export.int8.observer import Observer, observe
from atrous.export.int8.precision_plan import PrecisionPlan, plan_precision
from atrous.export.int8.quantizable import Layer, layers_of, rounded_tensors
from atrous.infer.runtimes.onnx import import_onnxruntime
from atrous.progress import Progress, silent

_PROBES = 2
"""Calibration images on which the rounding of each layer is measured."""
_PROBE_SIDE = 192
"""Longest side, in pixels, of the middle that is cut out of each."""


def quantize(
    model: onnx.ModelProto, images: Iterable[NDArray[np.uint8]], progress: Progress = silent
) -> tuple[onnx.ModelProto, PrecisionPlan]:
    """Return the int8 form of a float graph, and the layers that stay in float.

    The same graph and images give the same bytes on the same machine.

    Args:
        model: as `atrous.export.graph.to_onnx` returns it.
        images: (H, W, C) uint8 each, of any sizes, read one at a time; typical inputs of the model.
            Two dozen suffice. The model must not be scored on them.
        progress: called after each layer that is measured.
    """
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise InputError("the model is int8 already; quantise a float model")
    model = onnx.shape_inference.infer_shapes(model)
    layers = layers_of(model.graph)
    names = dict.fromkeys(name for layer in layers for name in (*layer.reads, layer.writes))
    middles: list[NDArray[np.uint8]] = []

    def keeping_middles() -> Iterator[NDArray[np.uint8]]:
        for image in images:
            middles.append(_middle(image))
            yield image

    observers = observe(model, list(names), keeping_middles())
    if not middles:
        raise InputError("no image to calibrate int8 on; give a split that has some")
    plan = plan_precision(model, layers, observers, _probes(middles), progress)
    return _to_int8(model, layers, observers, plan), plan


def _middle(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut at most _PROBE_SIDE x _PROBE_SIDE pixels out of the middle of (H, W, C)."""
    top, left = (max(0, (side - _PROBE_SIDE) // 2) for side in image.shape[:2])
    return image[top : top + _PROBE_SIDE, left : left + _PROBE_SIDE].copy()


def _probes(middles: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Stack _PROBES evenly spaced ones, cut to their common size: (B, H, W, C)."""
    chosen = np.unique(np.linspace(0, len(middles) - 1, _PROBES).astype(int))
    height, width = (min(middles[i].shape[axis] for i in chosen) for axis in (0, 1))
    return np.stack([middles[i][:height, :width] for i in chosen])


def _to_int8(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    observers: Mapping[str, Observer],
    plan: PrecisionPlan,
) -> onnx.ModelProto:
    """Write the integers and their scales into the graph, except for the plan's float layers."""
    import_onnxruntime()  # turns telemetry off before the next import
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    rounded = rounded_tensors(layers, plan.kept)
    chosen = [
        layer
        for layer in layers
        if layer.node.name not in plan.kept and rounded.issuperset((*layer.reads, layer.writes))
    ]
    nodes = [node for layer in chosen for node in layer.nodes]
    ranges = {name: observers[name].range for name in rounded}
    # onnxruntime also requires the range before an activation, but uses the one after it.
    ranges |= {layer.node.output[0]: ranges[layer.writes] for layer in chosen}
    pairs = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, pairs),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({node.op_type for node in nodes}),
        extra_options={},
    )
    quantizer.quantize_model()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized
