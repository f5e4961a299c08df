"""A run folder that was never trained, small enough to export in seconds."""

import json
from pathlib import Path

import pytest
import torch
from networks import build
from safetensors.torch import save_file

from atrous.data.shapes import TAXONOMY, write_shapes
from atrous.models.catalogue import normalization

MODEL = {
    "name": "deeplabv3plus",
    "num_classes": 4,
    "backbone": "resnet18",
    "output_stride": 16,
    "atrous_rates": [1, 2],
    "image_pooling": True,
    "separable": True,
    "aspp_channels": 8,
    "decoder_channels": 8,
}


def write_run(folder: Path, data: Path) -> Path:
    """Write run.json and best.safetensors of a network whose labels are not all of one class."""
    torch.manual_seed(0)
    network = build(**MODEL).eval()
    with torch.no_grad():
        network.head[-1].weight.normal_()
    mean, std = normalization(MODEL["backbone"])
    folder.mkdir()
    save_file(
        {k: v.contiguous() for k, v in network.state_dict().items()}, folder / "best.safetensors"
    )
    run = {
        "format": 1,
        "model": MODEL,
        "normalization": {"mean": mean, "std": std},
        "taxonomy": TAXONOMY.to_dict(),
        "data": {"name": "shapes", "licence": "CC0-1.0", "data": str(data), "root": None},
        "recipe": {"num_steps": 7, "init": "/somewhere/else"},
    }
    (folder / "run.json").write_text(json.dumps(run))
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    return write_shapes(folder, num_train=3, num_val=2, size=(50, 70))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory, shapes):
    return write_run(tmp_path_factory.mktemp("run") / "tiny", shapes)


@pytest.fixture(scope="session")
def float_bundle(tmp_path_factory, run_folder):
    from atrous.export import export_bundle

    path = tmp_path_factory.mktemp("bundle") / "tiny.onnx"
    export_bundle(run_folder, path)
    return path
