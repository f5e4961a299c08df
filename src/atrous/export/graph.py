"""Tracing of a network into one self-contained ONNX graph, and the writing of a bundle.

The graph takes `image: uint8 (B, H, W, C)` of any B, H and W and returns `logits: float32
(B, K, h, w)`. Batch normalisation is folded into the convolutions. Sizes are computed at run time
in three places only: where the image is padded to a multiple of the output stride, where the ASPP's
mean (if it has one) is spread over the features, and where the logits are cropped.
"""

import logging
import warnings
from pathlib import Path

import onnx
import torch

from atrous.files import replacing
from atrous.infer.bundle import BundleMetadata
from atrous.models.photo import PhotoNetwork


def to_onnx(network: PhotoNetwork) -> onnx.ModelProto:
    """Trace `network`, in eval mode, with free batch size, height and width."""
    # The sizes are no multiples of 8, so padding and crop are traced, too.
    image = torch.zeros((2, 70, 101, network.channels), dtype=torch.uint8)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own code
            program = torch.onnx.export(
                network,
                (image,),
                dynamo=True,
                dynamic_shapes=({0: "batch", 1: "height", 2: "width"},),
                input_names=["image"],
                output_names=["logits"],
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Remove debug information of the trace: source paths, stack traces and inner shapes."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    model.doc_string = ""
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]


def set_metadata(model: onnx.ModelProto, metadata: BundleMetadata) -> None:
    """Set the metadata of `model`; earlier ones are removed."""
    onnx.helper.set_model_props(model, metadata.to_properties())
    model.producer_name, model.producer_version = "atrous", metadata.version


def write_bundle(model: onnx.ModelProto, metadata: BundleMetadata, out: Path | str) -> None:
    """Write `model` and `metadata` to one file, `out`."""
    set_metadata(model, metadata)
    with replacing(out) as temporary:
        onnx.save(model, temporary)
