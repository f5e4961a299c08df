"""A bundle made by hand, small enough to know every label beforehand."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from atrous.infer.bundle import BundleMetadata
from atrous.taxonomy import Taxonomy

COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128))
TAXONOMY = Taxonomy(name="paint", classes=("red", "green", "blue", "grey"), colors=COLORS)
STRIDE = 4


def write_color_bundle(path: Path, **metadata_fields: Any) -> Path:
    """Write a bundle that gives each 4x4 block of pixels the class whose colour is nearest.

    With `bands` among the fields of its metadata, it takes as many, and looks at the last three.
    """
    channels = len(metadata_fields.get("bands", COLORS[0]))
    colors = np.array(COLORS, np.float32)  # (K, 3)
    weights = {
        "weight": np.pad(2 * colors[:, :, None, None], ((0, 0), (channels - 3, 0), (0, 0), (0, 0))),
        "bias": -(colors**2).sum(1),  # (K,)
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool",
            ["planes"],
            ["means"],
            kernel_shape=[STRIDE, STRIDE],
            strides=[STRIDE, STRIDE],
            pads=[0, 0, STRIDE - 1, STRIDE - 1],
        ),
        helper.make_node("Conv", ["means", "weight", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "nearest color",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", channels])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", len(COLORS), "h", "w"])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="tests"
    )
    metadata = BundleMetadata(
        taxonomy=TAXONOMY,
        stride=STRIDE,
        precision="fp32",
        model="nearest color",
        licence="Apache-2.0",
        version="0.1.0",
        **metadata_fields,
    )
    helper.set_model_props(model, metadata.to_properties())
    onnx.save(model, path)
    return path
