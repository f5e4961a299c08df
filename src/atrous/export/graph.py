"""A finished run to a bundle: one self-contained .onnx file that describes itself.

The graph takes `image: uint8 (B, H, W, C)` of any B, H and W and returns `logits: float32
(B, K, h, w)`. Batch normalisation is folded into the convolutions. Sizes are computed at run time
in three places only: where the image is padded to a multiple of the output stride, where the ASPP's
mean (if it has one) is spread over the features, and where the logits are cropped.
"""

import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

from atrous.files import replacing
from atrous.infer.bundle import BundleMetadata
from atrous.run import LoadedRun, load_run

if TYPE_CHECKING:
    from atrous.models.photo import PhotoNetwork


def export_bundle(run_folder: Path | str, out: Path | str) -> BundleMetadata:
    """Write the best weights of a run as a float bundle to `out`.

    Raises:
        InputError: the folder holds no run, or no weights yet.
    """
    loaded = load_run(run_folder)
    metadata = describe(loaded)
    write_bundle(to_onnx(loaded.network), metadata, out)
    return metadata


def to_onnx(network: "PhotoNetwork") -> onnx.ModelProto:
    """Trace `network`, in eval mode, with free batch size, height and width."""
    # Sizes that are no multiple of 8, so that padding and crop are traced, too.
    image = torch.zeros((2, 70, 101, network.channels), dtype=torch.uint8)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own, about itself
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
    """Drop what only helps to debug the trace: source paths, stack traces and inner shapes."""
    model.doc_string = ""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    graph = model.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]


def write_bundle(model: onnx.ModelProto, metadata: BundleMetadata, out: Path | str) -> None:
    """Write `model` with `metadata` in it, in place of any that it has, to one file."""
    onnx.helper.set_model_props(model, metadata.to_properties())
    model.producer_name, model.producer_version = "atrous", metadata.version
    with replacing(out) as temporary:
        onnx.save(model, temporary)


def describe(loaded: LoadedRun) -> BundleMetadata:
    """Tell what a bundle of this run says about itself."""
    metadata = BundleMetadata.from_run(loaded.run, stride=loaded.network.stride)
    # A path to other weights means nothing where the bundle goes.
    paths = ("init", "backbone_weights")
    recipe = {key: value for key, value in metadata.recipe.items() if key not in paths}
    return replace(metadata, recipe=recipe)
