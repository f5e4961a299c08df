"""Bundles are used where nothing is installed but the core: the same results, in real processes."""

import json
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.data.dataset import Dataset

FILES = Path(__file__).parent / "format1/files"
PAINT = np.array([[4555, 52, 33], [5, 527, 7], [5, 2, 702]])
"""The confusion matrix of the bundle paint.onnx on the split val."""
HIDDEN = {
    *("accelerate", "av", "efficientnet_lite0_pytorch", "efficientnet_lite1_pytorch"),
    *("efficientnet_lite2_pytorch", "huggingface_hub", "matplotlib", "onnx", "onnxscript"),
    *("openvino", "pandas", "pillow_heif", "pycocotools", "rasterio", "safetensors", "scipy"),
    *("segmentation_models_pytorch", "shapely", "sklearn", "tensorboardX", "timm", "torch"),
    *("torchmetrics", "torchvision", "triton", "webdataset", "yaml"),
}
HIDE = f"""\
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec

def find_core(name, path=None, target=None):
    hidden = name.partition(".")[0] in {sorted(HIDDEN)}
    return None if hidden else find_spec(name, path, target)

PathFinder.find_spec = find_core
"""
"""What Python runs when it starts: packages that are hidden are not found, as if not installed."""


@pytest.fixture
def core(tmp_path: Path) -> Path:
    """A folder with a data set and a bundle; Python that starts in it finds the core alone."""
    shutil.copytree(FILES / "paint", tmp_path / "paint")
    for name in ("paint", "again"):
        packed = (FILES / "bundles/paint.onnx.xz").read_bytes()
        (tmp_path / f"{name}.onnx").write_bytes(lzma.decompress(packed))
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide/sitecustomize.py").write_text(HIDE)
    return tmp_path


def called(core: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of this Python, with these arguments."""
    places = [core / "hide", Path(atrous.__file__).parents[1]]
    paths = {"PYTHONPATH": os.pathsep.join(map(str, places))}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=core, env=os.environ | paths, capture_output=True, text=True)


def output_of(core: Path, *arguments: str) -> str:
    done = called(core, "-m", "atrous", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["torch", "torchvision", "timm", "accelerate", "onnx"])
def test_what_is_hidden_cannot_be_imported(core: Path, module: str) -> None:
    done = called(core, "-c", f"import {module}")
    assert done.returncode == 1 and f"No module named '{module}'" in done.stderr


def test_segment(core: Path) -> None:
    output_of(core, "segment", "paint/val", "--model", "paint.onnx", "--out", "seen")
    for key in ("0", "1"):
        labels, stored = (
            np.asarray(Image.open(folder / f"{key}.labels.png"))
            for folder in (core / "seen", FILES / "predictions")
        )
        assert (labels == stored).mean() >= 0.995  # int8 rounds differently on some processors
        said, expected = (
            json.loads((folder / f"{key}.json").read_text())["coverage"]
            for folder in (core / "seen", FILES / "predictions")
        )
        assert said == pytest.approx(expected, abs=0.005)
        with Image.open(core / f"seen/{key}.overlay.jpg") as overlay:
            assert overlay.width >= 64 and overlay.height >= 48  # a legend is beside it


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("google/deeplabv3_mobilenetv2_voc", "weights/google/deeplabv3_mobilenetv2_voc.onnx"),
        ("hf://owner/name", "hub/owner/name/abc123/name.onnx"),
    ],
)
def test_what_was_fetched_is_a_bundle(
    core: Path, monkeypatch: pytest.MonkeyPatch, model: str, place: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(core / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    bundle, ref = core / "cache/atrous" / place, core / "cache/atrous/hub/owner/name/refs/main"
    for path in (bundle, ref):
        path.parent.mkdir(parents=True)
    shutil.copyfile(core / "paint.onnx", bundle)
    ref.write_text("abc123")
    output_of(core, "segment", "paint/val", "--model", model, "--out", "seen")
    output_of(core, "segment", "paint/val", "--model", "paint.onnx", "--out", "expected")
    for key in ("0", "1"):
        seen, expected = (core / x / f"{key}.labels.png" for x in ("seen", "expected"))
        assert seen.read_bytes() == expected.read_bytes()


def test_segment_in_python(core: Path) -> None:
    code = (
        "import atrous; result = atrous.load('paint.onnx')('paint/val/0.png');"
        "print(result.labels.shape, sorted(result.coverage())); result.save('saved')"
    )
    done = called(core, "-c", code)
    assert done.stdout.strip() == "(48, 64) ['green', 'red', 'wall']", done.stderr
    labels = np.asarray(Image.open(core / "saved/0.labels.png"))
    assert (labels == np.asarray(Image.open(FILES / "predictions/0.labels.png"))).mean() >= 0.995


def test_evaluate(core: Path) -> None:
    scores = json.loads(output_of(core, "evaluate", "paint.onnx", "paint", "--json"))
    assert np.abs(np.array(scores["confusion"]) - PAINT).sum() <= 0.005 * PAINT.sum()
    assert scores["miou"] == pytest.approx(0.935174, abs=0.01)


def test_the_doctor(core: Path) -> None:
    """It finds the pairs, the classes and the fault, and writes what the others mean."""
    for name, source in (("images", "train"), ("masks", "train-labels")):
        shutil.copytree(core / "paint" / source, core / "new" / name)
    (core / "new/masks/3.png").write_bytes(b"no picture")
    document = json.loads(output_of(core, "data", "doctor", "new", "--write", "--json"))
    assert (document["pairs"], document["left_out"], document["encoding"]) == (4, 1, "palette")
    (fault,) = (found for found in document["findings"] if found["severity"] == "problem")
    assert fault["examples"][0].startswith("masks/3.png: not an image")
    described = Dataset.open(core / "new")
    assert described.taxonomy.colors == ((60, 60, 200), (220, 40, 40), (40, 200, 60))
    samples = [sample for name in ("train", "val") for sample in described.split(name)]
    assert sorted(sample.key for sample in samples) == ["0", "1", "2"]
    truth = {sample.key: sample.label for sample in Dataset.open(core / "paint").split("train")}
    assert all(np.array_equal(sample.label, truth[sample.key]) for sample in samples)


def test_compare(core: Path) -> None:
    """Scores, cost and speed; the runtimes that are missing are named."""
    call = ["compare", "paint.onnx", "again.onnx", "--data", "paint", "--out", "out", "--json"]
    document = json.loads(output_of(core, *call, "--rounds", "1", "--threads", "1"))
    assert {entry["name"] for entry in document["models"]} == {"paint", "again"}
    for entry in document["models"]:
        assert entry["miou"] == pytest.approx(0.935174, abs=0.01)
        assert (entry["parameters"], entry["multiply_adds"]) == (87_321, 7_399_168)
        assert list(entry["runtimes"]) == ["onnxruntime"]
        assert min(entry["runtimes"]["onnxruntime"].values()) > 0
    assert 'pip install "atrous[openvino]"' in document["lacking"]["openvino"]
    assert document["pairs"][0]["difference"] == 0
    assert "</html>" in (core / "out/compare.html").read_text("utf-8")
    assert json.loads((core / "out/compare.json").read_text("utf-8")) == document
