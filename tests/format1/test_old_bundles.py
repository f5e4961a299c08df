"""Bundles of format 1 say what they said, and label as they labelled."""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.cli import main

PAINT = {
    "classes": ("wall", "red", "green"),
    "colors": ((60, 60, 200), (220, 40, 40), (40, 200, 60)),
    "things": frozenset({1, 2}),
    "groups": ("stuff/wall", "thing/red", "thing/green"),
}


def test_a_bundle_says_what_it_said(format1: Path) -> None:
    metadata = atrous.load("bundles/paint.onnx", runtime="onnxruntime").metadata
    assert asdict(metadata.taxonomy) == {"name": "paint", **PAINT}
    assert (metadata.task, metadata.stride, metadata.precision) == ("semantic", 4, "int8")
    assert metadata.model == "deeplabv3plus on test_efficientnet, output stride 16"
    assert metadata.licence == "CC0-1.0"
    assert metadata.preprocessing == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    expected = json.loads(Path("bundles/paint.expected.json").read_text())
    assert metadata.recipe == expected["recipe"]
    assert metadata.scores == expected["scores"]
    assert metadata.version == "0.1.0"
    assert metadata.channels == 3 and not metadata.bands


def test_a_bundle_of_bands_says_which(format1: Path) -> None:
    metadata = atrous.load("bundles/infrared.onnx", runtime="onnxruntime").metadata
    assert metadata.taxonomy.classes == ("land", "water") and metadata.precision == "fp32"
    assert metadata.bands == (4, 3, 2, 1) and metadata.bands_of == 4 and metadata.channels == 4
    assert metadata.value_range == (100.0, 3160.0)


@pytest.mark.parametrize("key", ["0", "1"])
def test_a_bundle_labels_as_it_labelled(format1: Path, key: str) -> None:
    labels = atrous.load("bundles/paint.onnx", runtime="onnxruntime")(f"paint/val/{key}.png").labels
    stored = np.asarray(Image.open(f"predictions/{key}.labels.png"))
    assert labels.dtype == np.uint8 and labels.shape == stored.shape
    assert (labels == stored).mean() >= 0.995  # int8 rounds differently on some processors


def test_a_bundle_of_bands_labels_a_geotiff(format1: Path) -> None:
    segment = ["segment", "infrared/val/0.tif", "--model", "bundles/infrared.onnx", "--out", "out"]
    assert main(segment) == 0
    labels = np.asarray(Image.open("out/0.labels.tif"))
    truth = np.asarray(Image.open("infrared/val-labels/0.png"))
    assert (labels == truth).mean() == pytest.approx(0.9853515625, abs=0.001)


def test_the_model_that_shipped_first_labels_the_demo_photo_as_it_did() -> None:
    root = Path(__file__).parents[2]
    segment = atrous.load(root / "tests/format1/shipped/camvid.onnx", runtime="onnxruntime")
    labels = segment(root / "docs/demo/street.jpg").labels
    stored = np.asarray(Image.open(root / "tests/format1/files/street.labels.png"))
    assert labels.shape == stored.shape == (480, 640)
    # int8 rounds differently on some processors, and in onnxruntime before 1.29.
    old = tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 29)
    assert (labels == stored).mean() >= (0.995 if old else 0.999)
