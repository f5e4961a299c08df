"""`atrous train` and `atrous data`, as a person types them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from atrous.cli import main
from atrous.cli import train as command
from atrous.cli.train import _headline, _ProgressLine, _stopped
from atrous.data.shapes import write_shapes
from atrous.errors import InputError
from atrous.export.pipeline import dataset_of_run
from atrous.run import Run, RunData
from atrous.train import Recipe, StepInfo

TINY = [
    "--backbone", "mobilenetv3_small_050", "--no-pretrained", "--crop-size", "32", "48",
    "--batch-size", "2", "--num-steps", "2", "--num-workers", "0", "--aspp-channels", "8",
    "--decoder-channels", "8", "--atrous-rates", "2", "4", "--warmup-steps", "1",
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_shapes_to_run_to_scores_to_bundle(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tutorial: every command of it, in order."""
    assert main(["data", "shapes", "shapes", "--train", "4", "--val", "2"]) == 0
    assert main(["train", "--data", "shapes", "--out", "runs/mine", *TINY]) == 0
    shown = capsys.readouterr()
    assert "next: atrous train --data shapes" in shown.out
    assert "deeplabv3plus on mobilenetv3_small_050 (from nothing), output stride 8" in shown.err
    assert re.search(r"best val mIoU [\d.]+ \+- [\d.]+ \(pooled\), [\d.]+ \+- ", shown.err)
    recipe = json.loads(Path("runs/mine/run.json").read_text())["recipe"]
    assert recipe["crop_size"] == [32, 48] and recipe["atrous_rates"] == [2, 4]
    assert main(["train", "--out", "runs/mine", "--resume"]) == 0  # nothing left to do, no recipe
    old_options = ["--hard-pixels", "1.0", "--accumulation", "1"]  # hidden, but accepted
    assert main(["train", "--out", "runs/mine", "--resume", *old_options]) == 0
    assert main(["train", "--out", "runs/mine", "--resume", "--accumulation", "3"]) == 2
    assert "was started with accumulation_steps 1, not 3" in capsys.readouterr().err
    assert main(["evaluate", "runs/mine", "shapes", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert main(["export", "runs/mine", "--out", "mine.onnx", "--budget", "5"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "mine.onnx", "shapes", "--json"]) == 0
    bundle = json.loads(capsys.readouterr().out)
    # The same score to 0.05 points, from torch and from the bundle.
    assert bundle["miou"] == pytest.approx(run["miou"], abs=0.0005)
    assert main(["segment", "shapes/val/0000.png", "--model", "mine.onnx", "--out", "seen"]) == 0
    assert {path.name for path in Path("seen").iterdir()} == {
        "0000.labels.png", "0000.overlay.jpg", "0000.json"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["camvd"], "no recipe 'camvd'. Did you mean camvid?"),
        (["camvid", "--crop-sise", "3"], "unknown option --crop-sise. Did you mean --crop-size?"),
        (["camvid"], "Pass --root with the folder that holds it"),
        ([], "name a recipe or give --data FOLDER"),
        (["paper"], "cocostuff-stuff"),
        (["plain"], "plain: give the data set with --data"),
        (["--data", "nothing"], "nothing: no such file"),
        (["--data", "shapes", "--backbone", "resnet5O"], "Did you mean resnet50"),
        (["--data", "shapes", "--minutes", "-1"], "minutes is -1.0; expected float >= 0.0"),
        (["--data", "shapes", "--minutes", "1", "--num-steps", "9"], "give it or --num-steps"),
        (["--data", "shapes", "--seeds", "1", "2", "--seed", "1"], "give it or --seed"),
        (["--data", "shapes", "--seeds", "-1"], "seed is -1; expected int >= 0"),
        (["--data", "shapes", "--auxiliary-levels", "8"], "auxiliary_weight is 0; give one"),
        (["--data", "shapes", "--dropout", "2"], "dropout is 2.0; expected float <= 1.0"),
        (["--data", "shapes", "--model", "deeplab"], "deeplab"),
        (["--data", "shapes", "--init", "a.onnx"], "--init a.onnx: no run folder; give one"),
        (["plain", "--data", "shapes", "--init", "a.onnx"], "--init a.onnx: no run folder; give"),
        (["--data", "shapes", "--class-weights", "1", "2"], "2 class weights for 4 classes"),
    ],
)
def test_mistakes_are_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    main(["data", "shapes", "shapes", "--train", "2", "--val", "1"])
    capsys.readouterr()
    assert main(["train", *arguments, "--no-pretrained"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1]
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--auxiliary-levels 8", "auxiliary_weight is 0; give one"),
        ("--unlabelled photos", "unlabelled is photos, but there is no teacher"),
        (
            "--teacher --unlabelled photos",
            "--teacher names nothing; give a folder",
        ),
        ("--teacher a --teacher-views 2 --cutmix 0.5", "leave out cutmix and classmix"),
        ("--out run", "run: holds a run already; add --resume"),
        ("plain --out run", "run: holds a run already; add --resume"),
        ("--out . --seeds 1 2", "seed2: holds a run already; add --resume"),
        ("--out run --seeds 1", "run: holds a run; for several seeds"),
        ("--seeds 1 1", "seeds are 1 1; give one or more, each once"),
    ],
)
def test_what_needs_no_torch_is_refused_without_it(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    message: str,
) -> None:
    write_shapes(here / "shapes", 1, 1)
    for run in ("run", "seed2"):
        (here / run).mkdir()
        (here / run / "run.json").touch()
    for module in ("atrous.train.plan", "atrous.train.loop"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it would be an error
    assert main(["train", *arguments.split(), "--data", "shapes"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.slow
def test_ctrl_c_says_where_a_resume_goes_on(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shapes(here / "shapes", 2, 1)
    command = ["train", "plain", "--data", "shapes", "--out", "run", *TINY]
    command[command.index("--num-steps") + 1] = "4"
    command += ["--checkpoint-every", "2"]
    last = 1

    def stops(self: _ProgressLine, info: StepInfo) -> None:
        self.step = info.step
        if info.step == last:
            raise KeyboardInterrupt

    monkeypatch.setattr(_ProgressLine, "__call__", stops)
    assert main(command) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "run: stopped after 1 step, before the first checkpoint (one every 2 steps); "
        "--resume begins anew"
    )
    last = 3
    assert main([*command, "--resume"]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "run: stopped after 3 steps; --resume goes on from step 2"


def test_the_minutes_count_from_the_start_of_the_command(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is part of them; where the masks are large, it takes seconds."""
    write_shapes(here / "shapes", 2, 1)
    now, seen, made = [100.0], list[float](), command._planned

    def planned(*arguments: Any) -> Any:
        now[0] += 40
        return made(*arguments)

    def train(*arguments: Any, clock: Callable[[], float], **options: Any) -> dict[str, Any]:
        seen.append(clock())
        return {}

    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(command, "_planned", planned)
    monkeypatch.setattr("atrous.train.loop.train", train)
    assert main(["train", "--data", "shapes", "--minutes", "1"]) == 0
    assert seen == [40.0]


def test_too_large_crops_are_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shapes(here / "shapes", 2, 1)
    options = [{"32": "20000000", "48": "20000000"}.get(value, value) for value in TINY]
    assert main(["train", "plain", "--data", "shapes", "--out", "run", *options]) == 2
    assert "error: run: out of memory after step 0; start again" in capsys.readouterr().err


def test_ctrl_c_before_a_run_has_begun(tmp_path: Path) -> None:
    assert _stopped(tmp_path, 0, 2).endswith("stopped before the first step; nothing is kept")


def test_a_resume_where_the_data_have_moved(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "shapes", "shapes", "--train", "2", "--val", "1"])
    assert main(["train", "--data", "shapes", "--out", "run", *TINY]) == 0
    err = capsys.readouterr().err
    assert re.search(r"\nlabels of 2 training masks: ground [\d.]+ %, ", err)
    (here / "shapes").rename("moved")
    assert main(["train", "--resume", "--out", "run"]) == 2
    line = capsys.readouterr().err
    assert "(the run's own data; another place: --data, --root)" in line and line.count("\n") == 1
    assert main(["train", "--resume", "--out", "run", "--data", "moved"]) == 0
    assert "moved: taken for the data that run was started on (shapes)" in capsys.readouterr().err
    main(["data", "shapes", "more", "--train", "3", "--val", "1"])
    assert main(["train", "--resume", "--out", "run", "--data", "more"]) == 2
    assert "was started on 2 training samples, not 3" in capsys.readouterr().err
    run = Run.read("run")
    whole = json.loads(Path("run/run.json").read_text())
    damaged = [
        whole | {name: value}
        for name, value in (("recipe", []), ("data", 5), ("data", {"data": 5}), ("taxonomy", {}))
    ]
    for content in ({"data": {}}, [], *damaged):
        Path("run/run.json").write_text(json.dumps(content))
        assert main(["train", "--resume", "--out", "run"]) == 2
        line = capsys.readouterr().err
        assert "run.json: " in line and line.count("\n") == 1
    structs.replace(run, data=RunData()).write(Path("run"))
    with pytest.raises(InputError, match="run: does not say what it was trained on"):
        dataset_of_run(Path("run"), None, None)


@pytest.mark.slow
def test_a_bad_mask_stops_a_training_in_one_line(here: Path) -> None:
    """Also from a process that reads ahead."""
    main(["data", "shapes", "shapes", "--train", "2", "--val", "1"])
    for mask in Path("shapes/train-labels").iterdir():
        mask.write_text("not a picture")
    command = [sys.executable, "-m", "atrous", "train", "--data", "shapes", *TINY]
    command[command.index("--num-workers") + 1] = "1"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: shapes/train-labels/000")


def test_without_the_extra_the_mend_is_named(here: Path) -> None:
    """In a Python that cannot find torch, as after `pip install atrous`."""
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from atrous.cli import main; sys.exit(main(['train', 'camvid', '--root', '.']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "torch" in last and 'pip install "atrous[train]"' in last


def test_the_help_shows_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) == 80
    about = " ".join(text.replace("│", " ").split())
    for option, end in {
        "--crop-size": "ignored. [default: 352 480]",
        "--base-lr": "backbone. [default: 0.0005]",
        "--cuda-graph": "bf16. [default: True]",
        "--seed": "dropout. [default: 0]",
        "--init": "fresh.",
        "--class-weights": "records. [choices: auto]",
    }.items():
        part = about[about.index(f"{option} ") :]
        assert re.split(r" (?=--(?!no-))", part)[0].endswith(end)


def test_the_first_line_says_if_the_training_is_not_deterministic() -> None:
    assert _headline(Recipe(deterministic=False), "x").endswith("fp32, not deterministic, on x")
    assert _headline(Recipe(), "x").endswith("4,000 steps of 8, fp32, on x")


def test_the_first_line_says_how_many_runs_teach() -> None:
    assert _headline(Recipe(teacher=("a", "b")), "x").endswith("fp32, on x, taught by 2 runs")


def test_the_first_line_says_for_how_long_the_training_goes_on() -> None:
    assert "output stride 16, 1.5 min of steps of 8, fp32" in _headline(Recipe(minutes=1.5), "x")
