"""`atrous export`, and that a bundle and its run score the same."""

import json
import shutil

import numpy as np
import onnx
import pytest

from atrous.cli import main
from atrous.data.shapes import TAXONOMY
from atrous.export import certificate
from atrous.images.label_maps import write_label
from atrous.infer.runtimes.open import OnnxRuntime

pytestmark = pytest.mark.slow  # for the export that they share


def scores_of(model, data, capsys):
    assert main(["evaluate", str(model), str(data), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def ready_export(monkeypatch, float_bundle):
    """Exports that take a traced graph instead of tracing it anew: the rest is tested."""
    monkeypatch.setattr("atrous.export.graph.to_onnx", lambda network: onnx.load(float_bundle))


@pytest.mark.usefixtures("ready_export")
def test_a_float_bundle_scores_as_its_run_does(run_folder, shapes, tmp_path, capsys):
    out = tmp_path / "tiny.onnx"
    assert main(["export", str(run_folder), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "MB  fp32, any size, stride 4 logits, 4 classes inside" in text
    assert f"next: atrous segment PHOTO --model {out}" in text
    run, bundle = scores_of(run_folder, shapes, capsys), scores_of(out, shapes, capsys)
    assert bundle["miou"] == pytest.approx(run["miou"], abs=0.0005)
    scores = OnnxRuntime(out, threads=1).metadata.scores
    assert (scores["data"], scores["split"], scores["images"]) == ("shapes", "val", 2)
    assert scores["miou"] == pytest.approx(bundle["miou"])
    low, high = scores["intervals"]["miou"]
    assert low <= scores["miou"] <= high


@pytest.mark.usefixtures("ready_export")
def test_over_the_budget_nothing_is_written(run_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(certificate.Certificate, "passed", False)
    out = tmp_path / "tiny.onnx"
    assert main(["export", str(run_folder), "--out", str(out)]) == 1
    assert "over the budget" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("ready_export")
def test_int8_is_certified_too(run_folder, tmp_path, capsys):
    out = tmp_path / "tiny8.onnx"
    arguments = ["export", str(run_folder), "--int8", "--budget", "100", "--out", str(out)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("kept in float: ")
    assert "MB  int8" in text
    metadata = OnnxRuntime(out, threads=1).metadata
    assert metadata.precision == "int8"
    assert metadata.scores["torch_fp32"]["protocol"] == "pooled"


@pytest.mark.usefixtures("ready_export")
def test_images_without_masks_calibrate_int8(run_folder, shapes, tmp_path):
    text = (shapes / "dataset.toml").read_text("utf-8")
    lines = [line for line in text.splitlines() if "train-labels" not in line]
    assert len(lines) == len(text.splitlines()) - 1
    data, out = tmp_path / "photos.toml", tmp_path / "tiny8.onnx"
    data.write_text("\n".join(lines), "utf-8")
    arguments = ["export", str(run_folder), "--int8", "--budget", "100", "--out", str(out)]
    assert main([*arguments, "--data", str(data), "--root", str(shapes)]) == 0
    assert OnnxRuntime(out, threads=1).metadata.precision == "int8"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "bundle.bin"], "ends in .onnx"),
        (["--budget", "-1"], "0 or more"),
        (["--split", "test"], "no split 'test'"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_options_are_one_line(run_folder, capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run_folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "a.onnx")]) == 2
    assert "run.json" in capsys.readouterr().err


@pytest.mark.usefixtures("ready_export")
def test_a_split_without_labels_certifies_nothing(run_folder, shapes, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    for mask in (data / "val-labels").iterdir():
        write_label(mask, np.full((50, 70), 255), TAXONOMY)
    out = tmp_path / "tiny.onnx"
    assert main(["export", str(run_folder), "--data", str(data), "--out", str(out)]) == 2
    shown = capsys.readouterr()
    assert "Train longer" not in shown.out and shown.err.count("\n") == 1
    assert "shapes: no mask of split val holds a class, so nothing certifies" in shown.err
    assert not out.exists()
