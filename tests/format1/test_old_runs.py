"""Run folders of format 1 are scored, exported, resumed and trained on from."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.cli import main

# The confusion matrices of the runs, on the split val, as torch counted them.
FINISHED = [[4555, 51, 34], [6, 526, 7], [5, 2, 702]]
INFRARED = [[545, 31], [14, 2482]]
SMALL = [
    "--backbone", "test_efficientnet", "--no-pretrained", "--separable", "--aspp-channels", "8",
    "--decoder-channels", "8", "--atrous-rates", "1", "2", "--crop-size", "48", "64",
    "--batch-size", "4", "--num-workers", "0", "--warmup-steps", "1",
]  # fmt: skip


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def assert_nearly(confusion: list[list[int]], expected: list[list[int]]) -> None:
    """All but a few pixels, since processors add floats in other orders."""
    difference = np.abs(np.array(confusion) - expected)
    assert difference.sum() <= 0.001 * np.sum(expected), confusion


def test_a_finished_run_is_scored_as_it_was(
    format1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = evaluated(capsys, "trained/finished", "paint")
    assert_nearly(scores["confusion"], FINISHED)
    segmenter = atrous.load("trained/finished", threads=1)
    assert segmenter.metadata.taxonomy.classes == ("wall", "red", "green")
    truth = np.asarray(Image.open("paint/val-labels/0.png"))
    labels = segmenter("paint/val/0.png").labels
    assert (labels == truth)[truth != 255].mean() > 0.97


def test_a_finished_run_is_exported(format1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["export", "trained/finished", "--out", "new.onnx"]) == 0
    )  # certified on its own data
    metadata = atrous.load("new.onnx", runtime="onnxruntime").metadata
    recipe = json.loads(Path("trained/finished/run.json").read_text())["recipe"]
    del recipe["init"], recipe["backbone_weights"]  # paths, which a bundle does not keep
    assert metadata.recipe == recipe
    assert_nearly(evaluated(capsys, "new.onnx", "paint")["confusion"], FINISHED)


def test_a_training_starts_from_a_finished_run(
    format1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step that is too small to change anything gives the scores of the start."""
    tuned = ["--init", "trained/finished", "--num-steps", "1", "--base-lr", "1e-12"]
    still = ["--weight-decay", "0", "--batchnorm-decay", "1"]
    call = ["train", "plain", "--data", "paint", "--out", "trained/tuned"]
    assert main([*call, *SMALL, *tuned, *still]) == 0
    assert_nearly(evaluated(capsys, "trained/tuned", "paint")["confusion"], FINISHED)


def test_an_unfinished_run_goes_on(format1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the weights, the average and the moments of its checkpoint of step 10."""
    assert main(["train", "--resume", "--out", "trained/unfinished"]) == 0
    lines = Path("trained/unfinished/log.jsonl").read_text().splitlines()
    before, checkpoint, last, validation = map(json.loads, lines)
    assert (before["step"], before["seconds_per_step"]) == (5, 0.0841)  # as it stood there
    assert (checkpoint["step"], last["step"], validation["step"]) == (10, 14, 14)
    assert last["loss"] == pytest.approx(0.95311, abs=0.002)  # from the start again: 0.94564
    assert validation["val"]["miou"] == pytest.approx(0.4412, abs=0.01)
    scores = evaluated(capsys, "trained/unfinished", "paint")
    assert scores["miou"] == pytest.approx(validation["val"]["miou"], abs=1e-3)


def test_a_run_whose_recipe_is_another_is_not_resumed(
    format1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["train", "--resume", "--out", "trained/unfinished", "--base-lr", "0.5"]
    assert main(call) == 2
    assert "was started with base_lr 0.01, not 0.5" in capsys.readouterr().err


def test_a_run_of_bands_is_scored_and_labels_a_geotiff(
    format1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_nearly(evaluated(capsys, "trained/infrared", "infrared")["confusion"], INFRARED)
    assert (
        main(["segment", "infrared/val/0.tif", "--model", "trained/infrared", "--out", "out"]) == 0
    )
    labels = np.asarray(Image.open("out/0.labels.tif"))
    truth = np.asarray(Image.open("infrared/val-labels/0.png"))
    assert (labels == truth).mean() == pytest.approx(0.9853515625, abs=0.001)
