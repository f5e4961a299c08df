"""`atrous compare`, as a person types it."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from atrous import recipes
from atrous.cli import build_app, main
from atrous.cli.compare import _study_progress, _wanted
from atrous.data.dataset import Dataset
from atrous.data.shapes import write_shapes
from atrous.images.label_maps import write_label
from atrous.images.photos import write_image
from atrous.infer.segmenter import load
from atrous.taxonomy import Taxonomy
from atrous.train.provenance import describe
from atrous.train.recipe import Recipe

TINY = Recipe(
    backbone="mobilenetv3_small_050",
    pretrained=False,
    crop_size=(32, 48),
    batch_size=2,
    num_steps=2,
    num_workers=0,
    aspp_channels=8,
    decoder_channels=8,
    warmup_steps=1,
)

DESCRIPTION = """\
name = "paint"
licence = "CC0-1.0"
[labels]
encoding = "index"
ignore = [255]
classes = ["red", "green", "blue", "grey"]
[splits.val]
images = "images/{key}.png"
labels = "masks/{key}.png"
"""


@pytest.fixture
def paint_data(tmp_path: Path, paint: np.ndarray, tiny_bundle: Path) -> Path:
    """Seven photos whose truth is nearly what the bundle sees."""
    folder = tmp_path / "paint"
    taxonomy = Taxonomy(name="paint", classes=("x",), colors=((0, 0, 0),))
    for number in range(7):
        image = np.roll(paint, number, axis=1)
        label = load(tiny_bundle).predict(image).copy()
        label[0], label[1, : 3 * number] = 255, 3
        write_image(folder / "images" / f"{number}.png", image)
        write_label(folder / "masks" / f"{number}.png", label, taxonomy)
    (folder / "dataset.toml").write_text(DESCRIPTION)
    return folder


@pytest.fixture
def two(tmp_path: Path, tiny_bundle: Path) -> list[str]:
    """Two bundles."""
    paths = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    for path in paths:
        shutil.copy(tiny_bundle, path)
    return list(map(str, paths))


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> str:
    """A study of two recipes of two steps."""
    members = {"slow": TINY, "fast": Recipe(**TINY.to_dict() | {"base_lr": 0.01})}
    monkeypatch.setitem(recipes.STUDIES, "tiny_study", lambda: members)
    return "tiny_study"


def test_a_recipe_that_was_trained_on_other_data_is_refused(
    tmp_path: Path, study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_shapes(tmp_path / "shapes", 2, 1, size=(48, 64))
    dataset = Dataset.open(data)
    for name, recipe in recipes.STUDIES[study]().items():
        run = tmp_path / "out" / name
        run.mkdir(parents=True)
        (run / "best.safetensors").touch()
        (run / "log.jsonl").write_text('{"step": 2}\n')
        describe(recipe, dataset, str(data), None, ()).write(run)
    other = write_shapes(tmp_path / "more", 3, 1, size=(48, 64))
    command = ["compare", study, "--data", str(other), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "was started on 2 training samples, not 3; " in capsys.readouterr().err


def test_the_commands_of_the_page_on_fcn_are_commands() -> None:
    page = (Path(__file__).parents[2] / "docs/atrous-against-fcn.md").read_text("utf-8")
    found = {}
    for line in re.findall(r"^ +(?:timeout \d+ )?atrous (compare .+)$", page, re.MULTILINE):
        arguments = shlex.split(line)
        _, bound, _ = build_app("compare").parse_args(
            arguments, exit_on_error=False, print_error=False
        )
        if arguments[1] in recipes.STUDIES:
            found[arguments[1]] = len(_wanted(bound.args))
    assert found == {"against_fcn": 10, "against_fcn_with_frrn": 11, "against_fcn_short": 8}


def test_a_study_says_how_far_it_came(tmp_path: Path, study: str) -> None:
    dataset = Dataset.open(write_shapes(tmp_path / "shapes", 2, 1, size=(48, 64)))
    members = {**recipes.STUDIES[study](), "third": TINY}
    assert _study_progress(members, tmp_path) == f"{tmp_path}: 0 of 3 recipes trained"
    for name, lines in (("slow", ""), ("fast", '{"step": 2}\n')):
        run = tmp_path / name
        run.mkdir()
        (run / "best.safetensors").touch()
        (run / "log.jsonl").write_text(lines)
        describe(TINY, dataset, "shapes", None, ()).write(run)
    said = f"{tmp_path}: 1 of 3 recipes trained; slow stopped after step "
    assert _study_progress(members, tmp_path) == said + "0"
    (tmp_path / "slow/log.jsonl").write_text('{"step": 1}\n')
    assert _study_progress(members, tmp_path) == said + "1"


@pytest.mark.slow
def test_a_study_is_trained_once_and_compared(
    tmp_path: Path, study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_shapes(tmp_path / "shapes", num_train=3, num_val=2, size=(50, 70))
    out = tmp_path / "out"
    command = ["compare", study, "--data", str(data), "--out", str(out), "--json"]
    speed = ["--runtime", "torch", "--rounds", "2", "--threads", "1"]
    assert main([*command, *speed]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("deeplabv3plus on mobilenetv3_small_050 (from nothing)") == 2
    assert f"{out}: 0 of 2 recipes trained\nslow, recipe 1 of 2\n" in shown.err
    document = json.loads(shown.out, parse_constant=pytest.fail)  # no NaN
    assert document == json.loads((out / "compare.json").read_text())
    assert {model["name"] for model in document["models"]} == {"slow", "fast"}
    assert document["size"] == [50, 70]
    model = document["models"][0]
    assert model["multiply_adds"] > model["parameters"] > 1e5
    assert 0 < model["runtimes"]["torch"]["seconds"] < 60
    first, second = (out / model["name"] / "last.pt" for model in document["models"])
    first.unlink()
    written = second.stat().st_mtime_ns
    assert main([*command, "--no-latency"]) == 0  # what is finished is not trained again
    again = json.loads(capsys.readouterr().out)
    assert not first.exists() and second.stat().st_mtime_ns == written
    assert [m["miou"] for m in again["models"]] == [m["miou"] for m in document["models"]]
    assert again["models"][0]["runtimes"] == {}


@pytest.mark.slow
def test_bundles_need_no_torch(paint_data: Path, two: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from atrous.cli import main; sys.modules['torch'] = None;"
        "sys.modules['onnx'] = None; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "compare", *two, "--data", str(paint_data)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--rounds", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "onnxruntime" in done.stdout and "not significant" in done.stdout


@pytest.mark.slow
def test_nine_models_fit_into_80_columns(
    paint_data: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{'a rather long name ' * (i % 2)}{i}.onnx" for i in range(9)]
    for path in paths:
        shutil.copy(tiny_bundle, path)
    out = tmp_path / "out"
    speed = ["--rounds", "1", "--runtime", "onnxruntime", "--size", "60", "80"]
    items = list(map(str, paths))
    assert main(["compare", *items, "--data", str(paint_data), "--out", str(out), *speed]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    text = "\n".join(lines)
    assert "9 models, 7 images, 4 classes" in text
    assert "one image of 80x60; time in each runtime" in text
    assert "adjusted for 36 pairs after Holm" in text
    assert lines[-1] == f"wrote {out / 'compare.html'}  {out / 'compare.json'}"
    assert len(re.findall(r" \+0\.0(?![*\d])", text)) == 3 * 36  # mIoU and the boundary scores


def test_one_image_has_no_p_value(
    paint_data: Path, two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, 7):
        (paint_data / "images" / f"{number}.png").unlink()
        (paint_data / "masks" / f"{number}.png").unlink()
    out = tmp_path / "out"
    command = ["compare", *two, "--data", str(paint_data), "--out", str(out), "--no-latency"]
    assert main(command) == 0
    assert "too few images for a test of significance" in capsys.readouterr().out
    page = (out / "compare.html").read_text("utf-8")
    assert ">+0.0<" in page and "-0.0" not in page and "nan<" not in page


def test_names_of_files_move_no_cursor(
    paint_data: Path, two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = shutil.copy(two[0], tmp_path / "\x1b[31m<script>\nred.onnx")
    out = tmp_path / "out"
    command = ["compare", two[1], str(hostile), "--data", str(paint_data), "--no-latency"]
    assert main([*command, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "?[31m<script>?red" in shown and "\x1b" not in shown
    assert "<script>" not in (out / "compare.html").read_text("utf-8")


def test_two_of_one_name_have_their_whole_path(
    paint_data: Path, two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other" / "one.onnx"
    other.parent.mkdir()
    shutil.copy(two[0], other)
    command = ["compare", two[0], str(other), two[1], "--data", str(paint_data), "--no-latency"]
    assert main([*command, "--out", str(tmp_path / "out"), "--json"]) == 0
    names = {model["name"] for model in json.loads(capsys.readouterr().out)["models"]}
    assert names == {two[0], str(other), "two"}


def test_scores_are_those_of_evaluate(
    paint_data: Path, two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = ["--protocol", "per-image", "--json"]
    options = ["--data", str(paint_data), "--out", str(tmp_path / "out"), "--no-latency"]
    assert main(["compare", *two, *options, *protocol]) == 0
    model = json.loads(capsys.readouterr().out)["models"][1]
    command = ["evaluate", two[1], str(paint_data), "--boundary", "--against", two[0]]
    assert main([*command, *protocol]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert model["intervals"]["miou"] == alone["interval"]
    shared = model.keys() & alone.keys() - {"model"}
    assert {"miou", "fwiou", "macc", "pacc", "iou", "acc", "boundary_iou", "boundary_mf"} <= shared
    assert {name: model[name] for name in shared} == {name: alone[name] for name in shared}


def test_models_are_scored_in_a_named_runtime(
    paint_data: Path, two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    command = ["compare", *two, "--data", str(paint_data), "--out", str(tmp_path / "out")]
    command += ["--no-latency", "--threads", "1", "--json", "--score-runtime"]
    for names, library in ((["torch", "openvino"], "openvino"), (["torch"], "onnxruntime")):
        assert main([*command, *names]) == 0
        models = json.loads(capsys.readouterr().out)["models"]
        assert [model["model"].partition(" ")[2] for model in models] == [
            f"(fp32, {library}, 1 thread)"
        ] * 2
        assert f"(fp32, {library}, 1 thread)" in (tmp_path / "out/compare.html").read_text("utf-8")
    assert main([*command, "openvin"]) == 2
    assert "--runtime openvin: no such runtime. Did you mean openvino?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one.onnx"], "give two or more different models"),
        (["one.onnx", "one.onnx"], "give two or more different models"),
        (["one.onnx", "no.onnx"], "no.onnx: no such file"),
        (["one.onnx", "tiny_stud"], "no model, recipe or study. Did you mean tiny_study?"),
        (["one.onnx", "tiny_study/slo"], "tiny_study/slow"),
        (["one.onnx", "camvid"], "error: camvid: knows 11 classes, where paint has 4"),
        (["camvid", "tiny_study"], "knows 11 classes, where paint has 4"),
        (["one.onnx", "two.onnx", "--protocol", "coco"], "no metric protocol 'coco'"),
        (["one.onnx", "two.onnx", "--split", "test"], "no split 'test'; it has val"),
        (["one.onnx", "two.onnx", "--rounds", "0"], "invalid value 0 for --rounds"),
        (["one.onnx", "two.onnx", "--threads", "0"], "invalid value 0 for --threads"),
        (["one.onnx", "two.onnx", "--runtime", "tensorrt"], "no such runtime. There are: onnx"),
    ],
)
def test_what_is_wrong_is_said_before_the_work(
    arguments: list[str],
    message: str,
    paint_data: Path,
    two: list[str],
    study: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *arguments, "--data", str(paint_data)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
