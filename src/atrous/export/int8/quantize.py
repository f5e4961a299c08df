"""A float bundle to an int8 one: static quantisation (QDQ), calibrated on training images.

Weights are int8 with a scale per channel, activations uint8 with a scale per tensor. Two things
keep the score: ranges with the least squared error (`atrous.export.int8.observer`), and the few
layers in float that cause most of the noise for their work (`atrous.export.int8.precision_plan`).
The normalisation is in float always.

Tried without gain on EfficientNet-Lite2 (CamVid): weight scales of least squared error instead of
the extremes; biases that take back the mean error of the rounded weights (Nagel et al. 2019,
arXiv:1906.04721), which help only while the sensitive layers are rounded, too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.export.graph import write_bundle
from atrous.export.int8.observer import Spread, spreads
from atrous.export.int8.precision_plan import Choice, choose_float
from atrous.export.int8.quantizable import Layer, layers_of, rounded_tensors
from atrous.infer.bundle import BundleMetadata
from atrous.infer.runtimes.onnx import import_onnxruntime
from atrous.progress import Progress

_PROBES = 2
"""How many of the images show what the rounding of a layer does."""
_PROBE_SIDE = 192
"""Pixels of them that are taken from the middle, at most, in each direction."""


def quantize(
    bundle: Path | str,
    out: Path | str,
    images: Iterable[NDArray[np.uint8]],
    progress: Progress | None = None,
) -> tuple[BundleMetadata, Choice]:
    """Write the int8 form of a float bundle to `out`.

    The same bundle and images give the same bytes on the same machine.

    Args:
        bundle: a float bundle.
        out: where to write.
        images: (H, W, 3) uint8 each, of any sizes, read one at a time: what the model will see. Two
            dozen do; they must not be images that it is scored on.
        progress: told of each layer that is measured, and of how many.

    Returns:
        What the int8 bundle says about itself, and what stayed in float.

    Raises:
        InputError: there are no images, or the bundle is int8 already.
    """
    model = onnx.load(bundle)
    properties = {item.key: item.value for item in model.metadata_props}
    metadata = BundleMetadata.from_properties(properties, str(bundle))
    if metadata.precision != "fp32":
        raise InputError(f"{bundle}: {metadata.precision} already; quantise the float bundle")
    model = onnx.shape_inference.infer_shapes(model)
    layers = layers_of(model.graph)
    names = dict.fromkeys(name for layer in layers for name in (*layer.reads, layer.writes))
    middles: list[NDArray[np.uint8]] = []

    def passing() -> Iterator[NDArray[np.uint8]]:
        for image in images:
            middles.append(_middle(image))
            yield image

    found = spreads(model, list(names), passing())
    if not middles:
        raise InputError("no image to calibrate int8 on; give a split that has some")
    choice = choose_float(model, layers, found, _probes(middles), progress)
    metadata = replace(metadata, precision="int8")
    write_bundle(_to_int8(model, layers, found, choice), metadata, out)
    return metadata, choice


def _middle(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut at most _PROBE_SIDE x _PROBE_SIDE pixels out of the middle of (H, W, 3)."""
    top, left = (max(0, (side - _PROBE_SIDE) // 2) for side in image.shape[:2])
    return image[top : top + _PROBE_SIDE, left : left + _PROBE_SIDE].copy()


def _probes(middles: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Stack _PROBES of them, spread evenly, cut to a size that all have: (B, H, W, 3)."""
    chosen = np.unique(np.linspace(0, len(middles) - 1, _PROBES).astype(int))
    height, width = (min(middles[i].shape[axis] for i in chosen) for axis in (0, 1))
    return np.stack([middles[i][:height, :width] for i in chosen])


def _to_int8(
    model: onnx.ModelProto, layers: Sequence[Layer], found: dict[str, Spread], choice: Choice
) -> onnx.ModelProto:
    """Write the integers and their scales into the graph, all but for the kept convolutions."""
    import_onnxruntime()  # first, since it is the one that comes without telemetry
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    rounded = rounded_tensors(layers, choice.kept)
    chosen = [
        layer
        for layer in layers
        if layer.node.name not in choice.kept and rounded.issuperset((*layer.reads, layer.writes))
    ]
    nodes = [node for layer in chosen for node in layer.nodes]
    ranges = {name: found[name].range for name in rounded}
    # onnxruntime asks for the range before an activation, too, though it uses the one behind.
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
