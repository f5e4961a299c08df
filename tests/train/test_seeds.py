"""Several seeds by one command: their runs, the table and seeds.json, kills and processes."""

import json
import math
import multiprocessing
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import run_in_two_processes, same, weights

from atrous.cli import main
from atrous.data.shapes import write_shapes
from atrous.errors import InputError
from atrous.report.seeds import seeds_text
from atrous.run import Run
from atrous.train.recipe import Recipe
from atrous.train.seeds import SeedScores, train_seeds

OPTIONS = [
    "--backbone", "mobilenetv3_small_050", "--no-pretrained", "--crop-size", "32", "48",
    "--batch-size", "2", "--num-workers", "0", "--aspp-channels", "8", "--decoder-channels", "8",
    "--atrous-rates", "2", "--checkpoint-every", "3", "--log-every", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 4, 2, size=(48, 64))


def table(miou: float | None) -> dict[str, Any]:
    return {"miou": miou, "interval": [0.1, 0.9] if miou is not None else [None, None]}


def scores(*mious: float | None) -> SeedScores:
    tables = [
        {"split": "val", "images": 7, "step": 1000, **table(miou), "per_image": table(0.5)}
        for miou in mious
    ]
    seeds = tuple(range(1, 1 + len(mious)))
    runs = tuple(Path(f"out/seed{seed}") for seed in seeds)
    return SeedScores(seeds=seeds, runs=runs, scores=tuple(tables))


def test_mean_and_sample_deviation() -> None:
    document = scores(0.60, 0.62, 0.67).to_dict()
    spread = document["miou"]["pooled"]
    assert spread["mean"] == pytest.approx(0.63)
    assert spread["std"] == pytest.approx(math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2))
    assert (spread["min"], spread["max"]) == (0.60, 0.67)
    assert document["miou"]["per-image"]["std"] == 0
    assert document["runs"][2] == {
        "seed": 3, "run": "seed3", "step": 1000, "miou": {"pooled": 0.67, "per-image": 0.5}
    }  # fmt: skip
    assert (document["split"], document["images"]) == ("val", 7)


def test_the_table_names_the_protocols_and_fits_a_terminal() -> None:
    lines = seeds_text(scores(0.60, 0.62, 0.67)).splitlines()
    assert lines[0] == "mIoU of 3 seeds on 7 images of val, by protocol:"
    assert lines[1].split() == ["pooled", "pooled", "95", "%", "per-image", "per-image", "95", "%",
                                "step"]  # fmt: skip
    assert lines[2].split()[:6] == ["seed", "1", "60.0", "10.0", "to", "90.0"]
    assert [line.split()[-2] for line in lines[5:]] == ["63.0", "3.6", "60.0", "67.0"]
    assert max(map(len, lines)) <= 80


def test_one_seed_has_no_deviation_and_what_is_undefined_no_spread() -> None:
    assert scores(0.6).to_dict()["miou"]["pooled"]["std"] is None
    undefined = scores(0.6, None)
    assert set(undefined.to_dict()["miou"]["pooled"].values()) == {None}
    assert "standard deviation       -" in seeds_text(undefined)


def test_without_a_split_val_there_are_no_scores() -> None:
    tables = ({"step": 9, "split": None, "images": 0},) * 2
    result = SeedScores(seeds=(1, 2), runs=(Path("a"), Path("b")), scores=tables)
    assert result.to_dict()["miou"] == {}
    assert seeds_text(result) == "2 seeds trained; without a split val there are no scores"


def test_each_seed_is_trained_into_its_folder(tmp_path: Path) -> None:
    seen: list[tuple[int, Path]] = []

    def train_one(recipe: Recipe, out: Path) -> Mapping[str, Any]:
        assert replace(recipe, seed=0) == Recipe(num_steps=7)
        seen.append((recipe.seed, out))
        return scores(0.5).scores[0]

    lines: list[str] = []
    train_seeds(Recipe(num_steps=7), (4, 2), tmp_path, train_one, notify=lines.append)
    assert seen == [(4, tmp_path / "seed4"), (2, tmp_path / "seed2")]
    assert lines[1] == f"seed 2, 2 of 2: {tmp_path / 'seed2'}"
    for seeds in ((), (1, 1)):
        with pytest.raises(InputError, match="give one or more, each once"):
            train_seeds(Recipe(), seeds, tmp_path, train_one)


def train(shapes: Path, out: Path, *options: object) -> int:
    return main(["train", "--data", str(shapes), "--out", str(out), *OPTIONS, *map(str, options)])


@pytest.mark.slow
def test_seeds_are_the_runs_of_each_seed(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    assert train(shapes, out, "--num-steps", 2, "--seeds", 3, 1) == 0
    shown = capsys.readouterr()
    assert f"next: atrous compare {out / 'seed3'} {out / 'seed1'} --data {shapes}" in shown.err
    assert shown.err.count("the plan, each option") == 1
    assert shown.out.startswith("mIoU of 2 seeds on 2 images of val, by protocol:")
    kept = json.loads((out / "seeds.json").read_text())
    assert [run["seed"] for run in kept["runs"]] == [3, 1]
    assert Run.read(out / "seed3").plan == Run.read(out / "seed1").plan != []
    assert train(shapes, tmp_path / "alone", "--num-steps", 2, "--seed", 1, "--json") == 0
    alone = json.loads(capsys.readouterr().out)
    assert kept["runs"][1]["miou"]["pooled"] == alone["miou"]
    # whatever was trained before it
    assert same(weights(out / "seed1"), weights(tmp_path / "alone"))

    assert train(shapes, out, "--num-steps", 2, "--seeds", 1) == 2
    assert "seed1: holds a run already; add --resume" in capsys.readouterr().err
    assert train(shapes, out, "--num-steps", 3, "--seeds", 5, 1, "--resume") == 2
    assert "seed1: was started with num_steps 2, not 3" in capsys.readouterr().err
    assert not (out / "seed5").exists()  # refused before the first is trained
    assert train(shapes, out / "seed1", "--seeds", 5) == 2
    assert "for several seeds, give another --out" in capsys.readouterr().err
    written = (out / "seed1/last.pt").stat().st_mtime_ns
    assert main(["train", "--resume", "--out", str(out), "--seeds", "1", "3", "5", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 3
    assert (out / "seed1/last.pt").stat().st_mtime_ns == written  # complete: not trained again
    assert Run.read(out / "seed5").plan == Run.read(out / "seed1").plan


def run_atrous(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    sys.exit(main(arguments))


@pytest.mark.slow
def test_kills_in_any_run_change_nothing(shapes: Path, tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["atrous.train.loop"])

    def start(out: Path) -> multiprocessing.Process:
        arguments = ["train", "--data", str(shapes), *OPTIONS, "--num-steps", "30"]
        arguments += ["--out", str(out), "--resume", "--seeds", "1", "2", "3"]
        process = processes.Process(target=run_atrous, args=(arguments,))
        process.start()
        return process

    calm = start(tmp_path / "calm")
    calm.join()
    assert calm.exitcode == 0
    killed = tmp_path / "killed"
    for name in ("seed1/log.jsonl", "seed2/run.json", "seed2/last.pt", "seed3/log.jsonl"):
        process = start(killed)
        while process.is_alive() and not (killed / name).exists():
            time.sleep(0.002)
        process.kill()
        process.join()
        assert not (killed / "seeds.json").exists()
    last = start(killed)
    last.join()
    assert last.exitcode == 0
    for seed in (1, 2, 3):
        assert same(weights(tmp_path / f"calm/seed{seed}"), weights(killed / f"seed{seed}"))
    written = [(tmp_path / name / "seeds.json").read_text() for name in ("calm", "killed")]
    assert written[0] == written[1]


@pytest.mark.slow
def test_two_processes_train_several_seeds(shapes: Path, tmp_path: Path) -> None:
    command = ["-m", "atrous", "train", "--data", str(shapes), *OPTIONS, "--num-steps", "2"]
    command += ["--seeds", "1", "2", "--out", str(tmp_path)]
    for options in ([], ["--resume"]):
        done = run_in_two_processes(*command, *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("mIoU of 2 seeds on 2 images of val") == 1
        assert done.stderr.count("next: atrous compare") == 1
        assert len(json.loads((tmp_path / "seeds.json").read_text())["runs"]) == 2
