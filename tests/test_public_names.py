"""Names that scripts outside of the project call: they stay, whatever moves behind them."""

import inspect
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.cli import main

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "segment": ["--model", "--out", "--json"],
    "evaluate": ["--split", "--protocol", "--json", "--root"],
    "train": ["--data", "--num-steps", "--out", "--resume", "--root"],
    "export": ["--out", "--int8"],
    "models": ["--json"],
    "data doctor": ["--write", "--json"],
    "compare": ["--data", "--out", "--root"],
    "convert": ["--data", "--out"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_take_these_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    page = capsys.readouterr().out
    assert f"Usage: atrous {command} " in page
    assert set(COMMANDS[command]) <= set(re.findall(r"(?<!\S)--[\w-]+", page))


def test_extras_and_script() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {"train", "all"} <= project["optional-dependencies"].keys()
    assert any("train" in entry for entry in project["optional-dependencies"]["all"])
    assert project["scripts"]["atrous"] == "atrous.cli:main"


def test_make_targets() -> None:
    text = (ROOT / "Makefile").read_text("utf-8")
    assert {"demo", "test", "check"} <= set(re.findall(r"^([\w-]+):", text, re.MULTILINE))
    assert re.search(r"^VENV *:?= *\.venv$", text, re.MULTILINE)


def test_places_of_files() -> None:
    assert (ROOT / "docs/demo/street.jpg").is_file()
    assert (ROOT / "src/atrous/zoo/camvid.onnx").is_file()


def test_models_are_listed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict | list)


@pytest.mark.parametrize("named", ["name", "file", "path"])
def test_load_and_its_result(tmp_path: Path, named: str) -> None:
    zoo = ROOT / "src/atrous/zoo/camvid.onnx"
    model = {"name": "camvid", "file": str(zoo), "path": zoo}[named]
    segment = atrous.load(model, runtime="onnxruntime", threads=1)
    with Image.open(ROOT / "docs/demo/street.jpg") as photo:
        image = np.asarray(photo.resize((96, 64)))
    result = segment(image)
    assert result.labels.shape == (64, 96) and result.labels.dtype == np.uint8
    coverage = result.coverage()
    assert all(isinstance(name, str) for name in coverage)
    assert sum(coverage.values()) == pytest.approx(1)
    overlay = result.overlay()
    assert isinstance(overlay, Image.Image)
    result.save(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert sum("overlay" in name for name in names) == 1
    (labels,) = (name for name in names if "labels" in name)
    assert np.array_equal(np.asarray(Image.open(tmp_path / labels)), result.labels)


def test_the_shipped_model_is_the_default() -> None:
    assert inspect.signature(atrous.load).parameters["model"].default == "camvid"


def test_datasets() -> None:
    from atrous.data.dataset import Dataset

    folder = ROOT / "tests/format1/files/paint"
    for data in (folder, str(folder), folder / "dataset.toml"):
        dataset = Dataset.open(data)
        assert list(dataset.splits) == ["train", "val"]
        assert tuple(dataset.taxonomy.classes) == ("wall", "red", "green")
        split = dataset.split("val")
        assert tuple(split.keys) == ("0", "1")
        assert split.label(0).shape == (48, 64) and split.label(0).dtype == np.uint8
    assert Dataset.open("camvid", root=folder).taxonomy.num_classes == 11


@pytest.mark.parametrize(("classes", "dtype"), [(3, np.uint8), (300, np.uint16)])
def test_upsample_argmax(classes: int, dtype: type[np.integer]) -> None:
    from atrous.infer.upsample import upsample_argmax  # from here as long as the version is 0.x

    logits = np.zeros((classes, 2, 3), np.float32)
    logits[classes - 1, :, 2] = 1
    labels = upsample_argmax(logits, (8, 12))
    assert labels.dtype == dtype and labels.shape == (8, 12)
    assert (labels[:, :6] == 0).all() and (labels[:, 6:] == classes - 1).all()


def test_metrics_update_merge_and_give_scores() -> None:
    from atrous.metrics import Confusion, PanopticQuality

    one, two = Confusion(2), Confusion(2)
    one.update(np.array([0, 1]), np.array([0, 0]), "a")
    two.update(np.array([1, 1]), np.array([1, 1]), "b")
    one.merge(two)
    assert one.scores().miou == pytest.approx((1 / 2 + 2 / 3) / 2)

    categories = [{"id": 7, "name": "cat", "isthing": 1}]
    found, missed = PanopticQuality(categories), PanopticQuality(categories)
    cat = np.array([[0, 3, 3]]), [{"id": 3, "category_id": 7}]
    found.update(prediction=cat, truth=cat)
    missed.update(prediction=(np.zeros((1, 3), int), []), truth=cat)
    found.merge(missed)
    assert found.scores().pq == pytest.approx(2 / 3)
