"""The training loop: what a run folder holds, and that a killed run ends with the same weights."""

import importlib.metadata
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from msgspec import structs
from safetensors.torch import load_file
from small_training import SMALL, run_in_two_processes, same, state_of, weights, write_run

import atrous.train
from atrous.cli import main
from atrous.data.shapes import TAXONOMY, write_shapes
from atrous.errors import InputError
from atrous.models.network import Output
from atrous.models.normalization import ADDING_VARIANCE
from atrous.run import Run, load_run
from atrous.train import Recipe, StepInfo, train
from atrous.train.provenance import recorded_counts
from atrous.train.record import Log


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 6, 2, size=(64, 96))


@pytest.mark.slow
def test_a_run_folder_holds_its_recipe_log_and_scores(shapes: Path, tmp_path: Path) -> None:
    seen: list[StepInfo] = []
    recipe = replace(SMALL, ema_decay=0.9, auxiliary_weight=0.4, dice_weight=1.0, clip_norm=1.0)
    scores = train(recipe, str(shapes), tmp_path / "run", on_step=seen.append)
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert Recipe.from_dict(run["recipe"]) == recipe
    assert run["versions"]["torch"] == importlib.metadata.version("torch")
    assert run["taxonomy"]["classes"][1] == "disc" and run["data"]["licence"] == "CC0-1.0"
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").open()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6]
    assert [line["step"] for line in lines if "val" in line] == [3, 6]
    assert list((tmp_path / "run").glob("events/events.out.tfevents.*"))
    assert [info.step for info in seen] == [1, 2, 3, 4, 5, 6]
    assert scores["protocol"] == "pooled" and scores["images"] == 2
    best = max(info.scores.miou for info in seen if info.scores)
    low, high = scores["interval"]
    assert low <= scores["miou"] == best <= high
    assert load_run(tmp_path / "run").taxonomy.num_classes == 4


def test_only_public_names_are_exported() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        atrous.train.Trainer  # noqa: B018


@pytest.mark.slow
def test_training_learns(shapes: Path, tmp_path: Path) -> None:
    recipe = replace(
        SMALL, num_steps=60, base_lr=3e-3, batch_size=4, validate_every=60, checkpoint_every=60
    )
    losses: list[float] = []
    train(recipe, str(shapes), tmp_path, on_step=lambda s: s.loss and losses.append(s.loss))
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16", "optimizer": "sgd", "ohem_fraction": 0.5},
        {"accumulation_steps": 2, "optimizer": "rmsprop", "num_workers": 1},
        {"class_weights": "auto", "rare_crops": 0.5},
        {"rotation": 30.0, "cutmix": 0.3, "classmix": 0.6, "batch_size": 3},
        {"auxiliary_weight": 0.4, "auxiliary_levels": (16, 8)},
        {"optimizer": "adam", "schedule": "cosine", "center_crop": True, "ema_decay": 0.5},
    ],
)
def test_stopped_and_resumed_equals_undisturbed(
    shapes: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    stopped_and_resumed(replace(SMALL, **change), shapes, tmp_path)


@pytest.mark.slow
def test_norms_that_only_add_stay_so_in_the_network_and_its_average(
    shapes: Path, tmp_path: Path
) -> None:
    recipe = replace(SMALL, backbone="mobilenetv2_010_tf", ema_decay=0.5)
    init = write_run(tmp_path / "init", recipe, TAXONOMY, 0, norms=False)
    stopped_and_resumed(replace(recipe, init=init), shapes, tmp_path)
    state = state_of(tmp_path / "cut")
    for kept in (state["network"], state["average"]):
        variances = [tensor for name, tensor in kept.items() if name.endswith("running_var")]
        assert variances and all((tensor == ADDING_VARIANCE).all() for tensor in variances)
    assert not same(state["network"], state["average"])


def stopped_and_resumed(recipe: Recipe, shapes: Path, tmp_path: Path) -> None:
    train(recipe, str(shapes), tmp_path / "whole")

    def stop(info: StepInfo) -> None:
        if info.step == 5:  # after the checkpoint at 4 and the validation at 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, str(shapes), tmp_path / "cut", on_step=stop)
    train(recipe, str(shapes), tmp_path / "cut", resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    best = [load_file(tmp_path / run / "best.safetensors") for run in ("whole", "cut")]
    assert same(*best)
    steps = [
        [json.loads(line)["step"] for line in (tmp_path / run / "log.jsonl").open()]
        for run in ("whole", "cut")
    ]
    assert steps[0] == steps[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")
def test_half_precision_needs_a_gpu(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="precision fp16 needs a GPU; take bf16 or fp32"):
        train(replace(SMALL, precision="fp16"), str(shapes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_automatic_weights_are_recorded_as_numbers(shapes: Path, tmp_path: Path) -> None:
    recipe = replace(SMALL, class_weights="auto", num_steps=1)
    lines: list[str] = []
    train(recipe, str(shapes), tmp_path, notify=lines.append)
    run = Run.read(tmp_path)
    weights = run.recipe["class_weights"]
    assert len(weights) == 4 and len(set(weights)) == 4 and sorted(weights)[1] < 1
    counts = recorded_counts(tmp_path)
    assert counts and tuple(weights) == counts.weights()
    assert len([line for line in lines if line.startswith("labels of")]) == 1
    (said,) = (line for line in lines if line.startswith("class weights: "))
    assert said.endswith(f" {weights[3]:.3g}") and said.count(", ") == 3
    train(recipe, str(shapes), tmp_path, resume=True)
    train(replace(recipe, class_weights=tuple(weights)), str(shapes), tmp_path, resume=True)
    assert main(["train", "--resume", "--out", str(tmp_path), "--class-weights", "auto"]) == 0
    with pytest.raises(InputError, match="was started with class_weights"):
        train(replace(recipe, class_weights=()), str(shapes), tmp_path, resume=True)
    structs.replace(run, labels={}).write(tmp_path)  # as older versions wrote it
    train(recipe, str(shapes), tmp_path, resume=True)


def test_accumulated_batches_equal_one_large_batch(shapes: Path, tmp_path: Path) -> None:
    one = replace(SMALL, batch_size=4, num_steps=1, optimizer="sgd", base_lr=1.0, warmup_steps=0)
    two = replace(one, batch_size=2, accumulation_steps=2)
    for name, recipe in (("one", one), ("two", two)):
        train(recipe, str(shapes), tmp_path / name)
    # The classifier's bias comes after every norm; its gradient is the mean over the pixels.
    biases = [weights(tmp_path / name)["head.1.bias"] for name in ("one", "two")]
    torch.testing.assert_close(*biases, rtol=0.2, atol=0.02)


def run_atrous(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    sys.exit(main(arguments))


@pytest.mark.slow
def test_ten_kills_change_nothing(shapes: Path, tmp_path: Path) -> None:
    """Kill -9 at ten random moments, resume each time: the weights are those of a calm run."""
    options = [
        "--data", shapes, "--backbone", SMALL.backbone, "--no-pretrained", "--crop-size", 64, 64,
        "--aspp-channels", 16, "--decoder-channels", 16, "--atrous-rates", 2, "--batch-size", 2,
        "--num-steps", 120, "--checkpoint-every", 3, "--validate-every", 20, "--log-every", 1,
        "--ema-decay", 0.9, "--dropout", 0.5, "--num-workers", 0,
    ]  # fmt: skip
    # Each process is forked from one that has torch loaded: to load it takes longer than the steps.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["atrous.train.loop"])

    def start(run: Path) -> multiprocessing.Process:
        arguments = ["train", *map(str, options), "--out", str(run), "--resume"]
        process = processes.Process(target=run_atrous, args=(arguments,))
        process.start()
        return process

    calm = start(tmp_path / "calm")
    calm.join()
    assert calm.exitcode == 0
    moments, killed = random.Random(0), tmp_path / "killed"
    log = killed / "log.jsonl"
    for kill in range(10):
        steps = -1 if kill in (2, 6) else moments.randint(0, 6)  # -1: while it still begins
        size = log.stat().st_size if log.exists() else 0
        process = start(killed)
        while process.is_alive() and steps >= 0:  # wait for so many lines of the log
            time.sleep(0.002)
            grown = log.stat().st_size if log.exists() else 0
            steps, size = steps - (grown > size), grown
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended before it was killed: add steps"
    last = start(killed)
    last.join()
    assert last.exitcode == 0
    assert same(weights(tmp_path / "calm"), weights(killed))
    assert same(*(load_file(tmp_path / run / "best.safetensors") for run in ("calm", "killed")))
    assert not list(killed.glob(".*"))


@pytest.mark.slow
def test_a_run_is_not_overwritten_nor_resumed_by_another_recipe(
    shapes: Path, tmp_path: Path
) -> None:
    train(SMALL, str(shapes), tmp_path)
    with pytest.raises(InputError, match="holds a run already"):
        train(SMALL, str(shapes), tmp_path)
    with pytest.raises(InputError, match="was started with base_lr"):
        train(replace(SMALL, base_lr=0.1), str(shapes), tmp_path, resume=True)
    finished = (tmp_path / "last.pt").stat().st_mtime_ns
    train(SMALL, str(shapes), tmp_path, resume=True)  # nothing is left to do
    assert (tmp_path / "last.pt").stat().st_mtime_ns == finished


@pytest.mark.slow
def test_a_run_from_before_a_field_was_there_is_resumed(shapes: Path, tmp_path: Path) -> None:
    train(SMALL, str(shapes), tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    del run["recipe"]["pyramid_scales"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    train(SMALL, str(shapes), tmp_path, resume=True)


def test_imported_weights_are_no_training(shapes: Path, tmp_path: Path) -> None:
    train(SMALL, str(shapes), tmp_path)
    structs.replace(Run.read(tmp_path), recipe={}).write(tmp_path)
    with pytest.raises(InputError, match="holds imported weights, not a training"):
        train(SMALL, str(shapes), tmp_path, resume=True)
    structs.replace(Run.read(tmp_path), recipe={"new": 1}).write(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path}: recipe: unknown field 'new'; resume it"):
        train(SMALL, str(shapes), tmp_path, resume=True)


@pytest.mark.slow
def test_init_takes_the_weights_of_another_run(shapes: Path, tmp_path: Path) -> None:
    train(SMALL, str(shapes), tmp_path / "first")
    still = replace(SMALL, init=str(tmp_path / "first"), base_lr=1e-12, num_steps=1, weight_decay=0)
    train(still, str(shapes), tmp_path / "second")
    first = load_file(tmp_path / "first/best.safetensors")
    second = load_file(tmp_path / "second/best.safetensors")
    torch.testing.assert_close(first["head.1.weight"], second["head.1.weight"])
    shutil.rmtree(tmp_path / "first")  # a resume does not need it any more
    train(still, str(shapes), tmp_path / "second", resume=True)
    with pytest.raises(InputError, match="no run folder; give one, since a bundle cannot be train"):
        train(replace(SMALL, init=str(tmp_path / "none")), str(shapes), tmp_path / "third")


def test_a_hostile_checkpoint_runs_nothing(shapes: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    train(replace(SMALL, num_steps=2), str(shapes), tmp_path / "run")
    for content in (Evil(), {"no": "step"}, [1]):
        torch.save(content, tmp_path / "run/last.pt")
        with pytest.raises(InputError, match=r"last\.pt: not a checkpoint"):
            train(replace(SMALL, num_steps=2), str(shapes), tmp_path / "run", resume=True)
    assert not (tmp_path / "owned").exists()


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_is_one_line(shapes: Path, tmp_path: Path) -> None:
    recipe, out = replace(SMALL, num_steps=2), tmp_path / "run"
    train(recipe, str(shapes), out)
    state = torch.load(out / "last.pt", weights_only=True)
    for changed, says in (
        ({"network": {"a": torch.ones(1)}}, "of another network, or damaged"),
        ({"network": None}, "of another network, or damaged"),
        ({"optimizer": {}}, "of another network, or damaged"),
        ({"step": "2"}, "not a checkpoint of atrous"),
    ):
        torch.save(state | changed, out / "last.pt")
        with pytest.raises(InputError, match=rf"last\.pt: {says}"):
            train(recipe, str(shapes), out, resume=True)
    torch.save({"step": 2}, out / "last.pt")
    with pytest.raises(InputError, match=r"last\.pt: of another network, or damaged"):
        train(recipe, str(shapes), out, resume=True)
    (out / "last.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"last\.pt: not a checkpoint \(EOFError\)"):
        train(recipe, str(shapes), out, resume=True)
    torch.save(state, out / "last.pt")
    (out / "run.json").rename(tmp_path / "run.json")
    with pytest.raises(InputError, match=r"no run\.json, so what last\.pt was trained on"):
        train(recipe, str(shapes), out, resume=True)
    (tmp_path / "run.json").rename(out / "run.json")
    (out / "best.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"best\.safetensors: damaged \("):
        train(replace(recipe, init=str(out)), str(shapes), tmp_path / "next")


def test_a_loss_that_is_not_finite_stops_with_a_fix(shapes: Path, tmp_path: Path) -> None:
    recipe = replace(SMALL, optimizer="sgd", base_lr=1e30, warmup_steps=0)
    with pytest.raises(InputError, match="lower --base-lr"):
        train(recipe, str(shapes), tmp_path)


def test_the_log_drops_what_was_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    Log(path, 2).write({"step": 3, "loss": 0.5})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "loss": 0.5}\n'


def test_the_log_drops_damaged_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(
        b'{"step": 1}\nnull\n[1]\n{"step": "x"}\n\xff\xfe{\n{"step": 2}\n' + b"[" * 100_000
    )
    Log(path, 2).write({"step": 3})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


@pytest.mark.slow
def test_two_processes_train_together(shapes: Path, tmp_path: Path) -> None:
    """Torchrun with two processes, without a GPU: one plan, one training, one run folder."""
    done = run_in_two_processes(
        "-m", "atrous", "train", "--data", str(shapes), "--backbone", SMALL.backbone,
        "--no-pretrained", "--crop-size", "64", "64", "--batch-size", "2", "--num-steps", "2",
        "--num-workers", "0", "--aspp-channels", "16", "--decoder-channels", "16",
        "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("next: atrous export") == 1
    assert done.stderr.count("labels of ") == 1
    assert json.loads((tmp_path / "run/scores.json").read_text())["images"] == 2


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="mounting a small disk needs Linux and root",
)
def test_a_full_disk_is_one_line_and_loses_nothing(shapes: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    try:
        command = [
            sys.executable, "-m", "atrous", "train", "plain", "--data", str(shapes),
            "--no-pretrained", "--backbone", SMALL.backbone, "--crop-size", "64", "64",
            "--batch-size", "2", "--num-steps", "4", "--num-workers", "0", "--aspp-channels", "16",
            "--decoder-channels", "16", "--out", str(disk / "run"),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        lines = done.stderr.splitlines()
        assert "No space left on device" in lines[-1] and lines[-1].startswith("error: ")
        assert "Traceback" not in done.stderr
        assert {path.name for path in (disk / "run").iterdir()} <= {
            "run.json", "log.jsonl", "events", "best.safetensors", "scores.json"
        }  # fmt: skip
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_network_of_ones_own(shapes: Path, tmp_path: Path) -> None:
    class Tiny(torch.nn.Module):
        stride = 1
        auxiliary_strides = ()

        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Conv2d(3, 4, 1)

        def forward(self, image: torch.Tensor) -> Output:
            return Output(self.head(image))

    network = Tiny()
    before = network.head.weight.clone()
    train(SMALL, str(shapes), tmp_path, network=network)
    assert weights(tmp_path).keys() == {"head.weight", "head.bias"}
    assert not torch.equal(before, network.head.weight)
