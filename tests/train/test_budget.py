"""A training of so many minutes: when it ends, and that its decisions are replayed."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from small_training import SMALL, same, weights

from atrous.data.dataset import Dataset
from atrous.data.sample import Sample
from atrous.data.shapes import write_shapes
from atrous.errors import InputError
from atrous.metrics import Confusion
from atrous.progress import unheard, untracked
from atrous.run import Run
from atrous.train import Recipe, StepInfo, budget, train
from atrous.train.checkpoint import load_state
from atrous.train.decoded import keep_decoded
from atrous.train.loop import _time_validation
from atrous.train.optim import learning_rate
from atrous.train.training import Training

RECIPE = replace(
    SMALL, crop_size=(32, 32), minutes=0.5, validate_every=20, checkpoint_every=4, log_every=4
)


class Clock:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


Speed = Callable[[float], float]
"""Seconds since the start -> how much slower than at best the machine is."""


def idle(now: float) -> float:
    return 1.0


SPEEDS: dict[str, Speed] = {
    "idle": idle,
    "busy from the middle on": lambda now: 1.0 if now < 300 else 3.0,
    "busy near the end": lambda now: 1.0 if now < 540 else 2.0,
    "busy at first": lambda now: 3.0 if now < 200 else 1.0,
    "busy for a while": lambda now: 2.5 if 200 < now < 350 else 1.0,
    "halted for a moment": lambda now: 40.0 if 20 < now < 22 else 1.0,
    "uneven": lambda now: 1.0 + (int(now / 7) * 7919 % 13) / 6,
}


def simulated(
    out: Path,
    recipe: Recipe,
    speed: Speed,
    step: float,
    validation: float,
    first: float = 1.0,
    again: float = 1.0,
) -> tuple[budget.Budget, float, int]:
    """Take steps of `step` seconds; return the budget, the time at the end and the steps.

    A validation is measured `first` times too long at first, and `again` times later.
    """
    clock = Clock()
    clock.now = 5.0  # loading, counting, decoding
    time = budget.Budget(recipe, out, Accelerator(cpu=True), clock, unheard)

    def measure(times: float = again) -> None:
        for images in time.trials(100):
            with time.validation(len(images), 100):
                clock.now += times * validation * len(images) / 100 * speed(clock.now)

    measure(first)
    time.measure = measure
    time.check_validation()
    time.begin()
    done, num_steps = 0, budget.UNDECIDED
    while done < num_steps:
        done += 1
        clock.now += step * speed(clock.now) * (5 if done < 3 else 1)  # the first are slower
        if time.review(done):
            num_steps = time.schedule(done).num_steps
        if done % recipe.validate_every == 0 or done == num_steps:
            with time.validation(100, 100):
                clock.now += validation * speed(clock.now)
    return time, clock.now, done


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize(
    ("step", "validation"), [(0.3, 0.0), (0.5, 12.0), (2.0, 20.0), (10.0, 15.0)]
)
def test_a_training_ends_in_time(
    tmp_path: Path, speed: str, step: float, validation: float
) -> None:
    recipe = replace(RECIPE, minutes=10, validate_every=150)
    time, seconds, _ = simulated(tmp_path, recipe, SPEEDS[speed], step, validation)
    assert 540 <= seconds <= 630, [(d.step, d.num_steps) for d in time.decisions]


@pytest.mark.parametrize(("first", "again"), [(0.4, 1.0), (2.5, 1.0), (1.0, 4.0), (1.0, 0.6)])
def test_a_validation_is_measured_again(tmp_path: Path, first: float, again: float) -> None:
    """Neither the first measurement nor a later one is trusted alone."""
    recipe = replace(RECIPE, minutes=10, validate_every=1000)
    _, seconds, _ = simulated(tmp_path, recipe, idle, 5.0, 100.0, first, again)
    assert 540 <= seconds <= 630


def test_on_an_even_machine_one_decision_is_enough(tmp_path: Path) -> None:
    time, seconds, steps = simulated(tmp_path, replace(RECIPE, minutes=10), idle, 1.0, 4.0)
    assert len(time.decisions) == 1 and time.decisions[0].num_steps == steps
    assert 580 <= seconds <= 600
    assert time.decisions[0].step < 25


def test_two_steps_are_taken_however_long_they_take(tmp_path: Path) -> None:
    _, _, steps = simulated(tmp_path, replace(RECIPE, minutes=1), idle, 5.0, 10.0)
    assert steps == 2


def test_the_learning_rate_follows_the_decisions(tmp_path: Path) -> None:
    recipe = replace(RECIPE, warmup_steps=100, base_lr=1.0, minutes=10)
    time, _, steps = simulated(tmp_path, recipe, SPEEDS["busy from the middle on"], 2.0, 1.0)
    first = time.decisions[0]
    assert first.warmup_steps == first.num_steps // 10 < 100
    assert learning_rate(first.warmup_steps - 1, time.schedule(first.step)) == 1.0
    assert steps < first.num_steps and len(time.decisions) > 1
    assert learning_rate(steps - 1, time.schedule(steps)) < 0.02
    undecided = time.schedule(0)
    assert learning_rate(5, undecided) == 0.06 and learning_rate(200, undecided) == 1.0


def test_a_validation_that_takes_all_the_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"is 1, 0:57 without .* one validation takes about 0:40 of"
    ):
        simulated(tmp_path, replace(RECIPE, minutes=1), idle, 0.1, 40.0)


def test_a_refused_time_leaves_no_run(shapes: Path, tmp_path: Path) -> None:
    """So that more minutes can be given for the same folder."""
    with pytest.raises(InputError, match=r"minutes is 0\.01, 0:00 without .* one validation takes"):
        train(replace(RECIPE, minutes=0.01), str(shapes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_first_image_says_nothing_of_a_validation(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it took 8 s: 101 such images would not have fit into ten minutes."""
    clock, validated = Clock(), list[int]()

    def validate(training: Training, split: Sequence[Sample], indices: Sequence[int]) -> None:
        clock.now += 0.1 * len(indices) if validated else 40.0
        validated.extend(indices)

    monkeypatch.setattr(Training, "validate", validate)
    recipe = replace(RECIPE, minutes=2)
    samples = Dataset.open(str(shapes)).split("val")
    time = budget.Budget(recipe, tmp_path, Accelerator(cpu=True), clock, unheard)
    _time_validation(time, Training(recipe, 4, (0, 1, 2), Accelerator(cpu=True)), samples)
    assert time.per_validation() == pytest.approx(0.1 * len(samples))
    assert clock.now < 41


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 6, 2, size=(48, 64))


def run(shapes: Path, out: Path, stop: int = -1, *, resume: bool = False) -> list[int | None]:
    """Train with steps of 1.5 s, and of 3 s from step 7 on; return the numbers of steps."""
    clock, seen = Clock(), list[int | None]()

    def on_step(info: StepInfo) -> None:
        clock.now += 1.5 if info.step < 7 else 3.0
        seen.append(info.num_steps)
        if info.step == stop:
            raise KeyboardInterrupt

    train(RECIPE, str(shapes), out, resume=resume, on_step=on_step, clock=clock)
    return seen


def decided(out: Path) -> list[int]:
    return [decision["num_steps"] for decision in json.loads((out / "schedule.json").read_text())]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 10])  # before the first checkpoint, and later
def test_a_killed_run_ends_as_one_that_took_the_same_decisions(
    shapes: Path, tmp_path: Path, stop: int
) -> None:
    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(shapes, cut, stop)
    state = load_state(cut, torch.device("cpu"))
    before = [] if stop == 2 else decided(cut)
    if state is None:
        assert stop == 2
    else:  # a decision that was taken after the checkpoint
        assert state["step"] < json.loads((cut / "schedule.json").read_text())[-1]["step"] <= stop
    assert not Run.read(cut).is_finished(cut)
    seen = run(shapes, cut, resume=True)
    assert Run.read(cut).is_finished(cut)
    decisions = decided(cut)
    assert len(decisions) > 1 and decisions[: len(before)] == before
    assert decisions[-1] == seen[-1] < decisions[0]
    log = [json.loads(line) for line in (cut / "log.jsonl").open()]
    assert [line["num_steps"] for line in log if "num_steps" in line] == decisions

    calm, clock = tmp_path / "calm", Clock()  # which stands still, so nothing is decided anew
    calm.mkdir()
    for name in ("run.json", "schedule.json"):
        shutil.copy(cut / name, calm)
    train(RECIPE, str(shapes), calm, resume=True, clock=clock)
    assert same(weights(calm), weights(cut))
    assert same(*(load_file(run / "best.safetensors") for run in (calm, cut)))
    assert decided(calm) == decisions

    last = (cut / "last.pt").stat().st_mtime_ns
    assert run(shapes, cut, resume=True) == []  # nothing is left to do
    assert (cut / "last.pt").stat().st_mtime_ns == last


def test_a_damaged_schedule_is_one_line(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(shapes, tmp_path, stop=9)
    (tmp_path / "schedule.json").write_text('[{"step": 0}]')
    with pytest.raises(InputError, match=r"schedule\.json: .*start again in another folder"):
        run(shapes, tmp_path, resume=True)


@pytest.mark.parametrize("content", [None, "[]"])
def test_a_run_whose_decisions_are_gone_takes_no_new_ones(
    shapes: Path, tmp_path: Path, content: str | None
) -> None:
    """It would go on at another learning rate, or train a finished network further."""
    run(shapes, tmp_path)
    kept = (tmp_path / "best.safetensors").read_bytes()
    (tmp_path / "schedule.json").unlink()
    if content is not None:
        (tmp_path / "schedule.json").write_text(content)
    with pytest.raises(InputError, match=r"schedule\.json: lacks decisions that last\.pt was tr"):
        run(shapes, tmp_path, resume=True)
    assert (tmp_path / "best.safetensors").read_bytes() == kept


def test_a_resume_on_a_slower_machine_is_not_refused(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that it could advise would help: the minutes of a run are its own."""
    with pytest.raises(KeyboardInterrupt):
        run(shapes, tmp_path, stop=9)
    clock, validate = Clock(), Training.validate

    def slowly(training: Training, *arguments: Any) -> Confusion:
        clock.now += 60.0
        return validate(training, *arguments)

    monkeypatch.setattr(Training, "validate", slowly)
    train(RECIPE, str(shapes), tmp_path, resume=True, clock=clock)
    assert Run.read(tmp_path).is_finished(tmp_path)


def test_a_set_is_not_decoded_first_where_that_takes_too_long() -> None:
    image = torch.zeros(8, 8, 3, dtype=torch.uint8).numpy()
    samples = [Sample(image, image[..., 0], str(index)) for index in range(20)]
    lines: list[str] = []
    cpu = torch.device("cpu")
    assert keep_decoded(samples, cpu, 1, lines.append, untracked, seconds=0.0) is None
    assert "decoded anew for each crop: to keep them takes about 0 s first" in lines[0]
    assert keep_decoded(samples, cpu, 1, lines.append, untracked, seconds=60.0) is not None
