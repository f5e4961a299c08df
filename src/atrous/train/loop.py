"""train(): a recipe and a data set in, a run folder out.

No random state is carried from step to step: the order of the images, their augmentation and the
dropout of step n depend only on the seed and n. So a resumed run ends with exactly the weights of
a run without a stop.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from atrous.data.dataset import Dataset
from atrous.data.sample import Sample
from atrous.decode import read_json
from atrous.errors import InputError
from atrous.metrics import Scores
from atrous.progress import Notify, Track, unheard, untracked
from atrous.run import has_run
from atrous.taxonomy import Taxonomy
from atrous.text import some
from atrous.train import checkpoint
from atrous.train.budget import UNDECIDED, Budget
from atrous.train.crops import Crops
from atrous.train.data_check import MAX_NAMES, LabelCounts, checked_labels, splits_of
from atrous.train.determinism import algorithms
from atrous.train.loader import batches, moved, positions_of
from atrous.train.processes import by_main, end_training, share_cpu
from atrous.train.provenance import claim, describe, keys_digest, recorded_counts
from atrous.train.recipe import Recipe
from atrous.train.record import Record
from atrous.train.teacher import Teachers
from atrous.train.teacher_views import TeacherViews
from atrous.train.training import Training
from atrous.train.unlabelled import find_unlabelled, joined

__all__ = ["Recipe", "StepInfo", "train"]


@dataclass(frozen=True)
class StepInfo:
    """State of a training after a step, for `on_step`."""

    step: int
    """Steps done, 1 to num_steps."""
    num_steps: int | None
    """Steps of the whole training; None until its time, if that is given, has decided."""
    seconds_per_step: float
    loss: float | None
    """Mean since the last line of the log, over steps with labels; None between two lines."""
    lr: float
    scores: Scores | None
    """Scores of the validation after this step; None if there was none."""


def train(
    recipe: Recipe,
    data: str,
    out: Path | str,
    *,
    root: str | None = None,
    resume: bool = False,
    on_step: Callable[[StepInfo], None] | None = None,
    network: nn.Module | None = None,
    plan: Sequence[tuple[str, str]] = (),
    notify: Notify = unheard,
    track: Track = untracked,
    clock: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Train a network and keep its last and best weights in `out`.

    Args:
        recipe: options of the training; for a resume, those that the run was started with.
        data: name of a built-in set, folder or dataset.toml, with a split train and maybe val.
        out: the run folder. It must not hold a run yet, unless `resume` is set.
        root: the folder of a built-in set.
        resume: go on from the last checkpoint in `out`, or start if there is none.
        on_step: called after each step.
        network: trained instead of the recipe's; it has the interface of the networks of
            `atrous.models`. Its run can be scored and resumed, but not loaded by name.
        plan: the choices that made the recipe, if `atrous.train.plan` did; kept in run.json.
        notify: called with lines on the data, and warnings.
        track: shows the progress of counting the labels, and of decoding the images.
        clock: seconds since what `minutes` counts began; this call, if left out.

    Returns:
        scores.json: the best validation, or the last step if there is no split val.
    """
    clock = clock or partial(_seconds_since, time.monotonic())
    out, dataset = Path(out), Dataset.open(data, root)
    samples, held_out = splits_of(dataset, notify)
    accelerator = _accelerator(recipe, out)
    unlabelled = find_unlabelled(dataset, recipe.unlabelled, (samples, held_out), notify)
    state = checkpoint.load_state(out, accelerator.device) if resume else None
    step, taxonomy = state["step"] if state else 0, dataset.taxonomy
    count = cache(partial(checked_labels, samples, taxonomy, recipe.class_weights, notify, track))
    recipe, rarity = _by_frequency(recipe, taxonomy, accelerator, out, count, notify)
    budget = Budget(recipe, out, accelerator, clock, notify) if recipe.minutes else None
    training = _start(recipe, dataset, accelerator, network, budget, state is None, notify)
    with algorithms(deterministic=recipe.deterministic):  # of teachers and validations as well
        if budget and step < budget.schedule(step).num_steps:
            _time_validation(budget, training, held_out)
        digests = training.teachers.digests if training.teachers else ()
        run = describe(recipe, dataset, data, root, training.left_over, digests, plan, unlabelled)
        # Here, so that a failed start leaves no folder; temporary files are removed, so all wait.
        by_main(accelerator, partial(claim, out, run, resume, notify, count))
        if state is not None:
            training.restore(state, out)
        record = Record(out, taxonomy.classes, step, accelerator, notify)
        crops = Crops(joined(samples, unlabelled), recipe, rarity)
        loader = _loader(training, crops, out, notify, track)
        with checkpoint.Writer(out, accelerator.device) as writer:
            _take_steps(training, loader, held_out, record, writer, on_step)
    end_training(accelerator)
    return read_json(out / "scores.json", dict[str, Any], "resume the training")


def _accelerator(recipe: Recipe, out: Path) -> Accelerator:
    AcceleratorState._reset_state()  # an earlier training in this process may have set it
    accelerator = Accelerator(
        cpu=share_cpu(),
        mixed_precision="no" if recipe.precision == "fp32" else recipe.precision,
        log_with="tensorboard",
        project_dir=str(out),
    )
    if recipe.precision == "fp16" and accelerator.device.type == "cpu":
        raise InputError("precision fp16 needs a GPU; take bf16 or fp32")
    return accelerator


def _by_frequency(
    recipe: Recipe,
    taxonomy: Taxonomy,
    accelerator: Accelerator,
    out: Path,
    count: Callable[[], LabelCounts],
    notify: Notify,
) -> tuple[Recipe, tuple[float, ...]]:
    """Return the recipe with its class weights as numbers, and the rarity of classes, if it counts.

    The counts are those that the run in `out` records, or `count` those that it will; all processes
    have the same.
    """
    given, num_classes = len(recipe.class_weights), taxonomy.num_classes
    if recipe.class_weights != "auto" and given not in (0, num_classes):
        raise InputError(f"{given} class weights for {num_classes} classes; give one for each")
    if recipe.class_weights != "auto" and not recipe.rare_crops:
        return recipe, ()
    counts = by_main(accelerator, lambda: recorded_counts(out) or count())
    if recipe.class_weights == "auto":
        recipe = replace(recipe, class_weights=counts.weights())
        named = zip(taxonomy.classes, counts.weights(), strict=True)
        weights = some((f"{name} {weight:.3g}" for name, weight in named), MAX_NAMES)
        if accelerator.is_main_process:
            notify(f"class weights: {weights}")
    return recipe, counts.rarity()


def _start(
    recipe: Recipe,
    dataset: Dataset,
    accelerator: Accelerator,
    network: nn.Module | None,
    budget: Budget | None,
    fresh: bool,
    notify: Notify,
) -> Training:
    """Return a training before its first step, with its teachers."""
    colors, classes = dataset.split("train").channels().colors, dataset.taxonomy.classes
    teachers = None
    if recipe.teacher:
        device, bands = accelerator.device, dataset.bands
        teachers = Teachers(recipe, classes, len(colors), device, bands, notify)
    return Training(
        recipe,
        len(classes),
        colors,
        accelerator,
        network,
        teachers=teachers,
        budget=budget,
        fresh=fresh,
        notify=notify,
    )


def _loader(
    training: Training, crops: Crops, out: Path, notify: Notify, track: Track
) -> Iterator[Sequence[Tensor]]:
    """Return the batches of this process, with what teachers say of them if that is kept.

    Only the main process reports.
    """
    accelerator, device = training.accelerator, training.accelerator.device
    process = accelerator.process_index, accelerator.num_processes
    reports = (notify, track) if accelerator.is_main_process else (unheard, untracked)
    views = _views(training, crops, out, reports[1])
    cut = batches(crops, training.step, *process, device, *reports)
    if views is None:
        return cut
    kept = views.batches(positions_of(training.recipe, training.step, *process))
    return ((*crop, moved(values, device)) for crop, values in zip(cut, kept, strict=True))


def _views(training: Training, crops: Crops, out: Path, track: Track) -> TeacherViews | None:
    """Return the kept outputs of the teachers, all computed; None if none are kept."""
    teachers = training.teachers
    if not teachers or not training.recipe.teacher_views:
        return None
    keys, grid = keys_digest(crops.samples), (training.stride, training.aligned)
    views = TeacherViews(out, crops, teachers.digests, keys, *grid)
    if training.step < training.schedule.num_steps:
        views.compute(teachers, training.accelerator, track)
    training.teachers = None  # they have done their work, and their memory is wanted
    return views


def _seconds_since(start: float) -> float:
    return time.monotonic() - start


def _time_validation(budget: Budget, training: Training, held_out: Sequence[Sample] | None) -> None:
    """Measure what a validation takes; refuse, for a new run, one that leaves no time to train."""
    if held_out is not None:
        budget.measure = partial(_time_validation, budget, training, held_out)
        # The first image of each process takes many times as long as the others.
        training.validate(held_out, range(len(held_out))[: training.accelerator.num_processes])
        for images in budget.trials(len(held_out)):
            with budget.validation(len(images), len(held_out)):
                training.validate(held_out, images)
        if not has_run(budget.out):  # its minutes can still be changed
            budget.check_validation()


def _take_steps(
    training: Training,
    loader: Iterator[Sequence[Tensor]],
    held_out: Sequence[Sample] | None,
    record: Record,
    writer: checkpoint.Writer,
    on_step: Callable[[StepInfo], None] | None,
) -> None:
    """Take the remaining steps; log, validate and save in between."""
    recipe, accelerator, budget = training.recipe, training.accelerator, training.budget
    losses: list[Tensor] = []  # (2,) each
    if budget:
        budget.begin()
    first_step, started = training.step, time.perf_counter()
    while training.step < training.schedule.num_steps:
        schedule = training.schedule
        loss, lr = training.advance(loader)
        losses.append(loss)
        step, num_steps = training.step, training.schedule.num_steps
        if training.schedule is not schedule:
            record.decided(step, num_steps)
        mean_loss = scores = None
        logs, validates, saves = (
            step % every == 0 or step == num_steps
            for every in (recipe.log_every, recipe.validate_every, recipe.checkpoint_every)
        )
        if logs:
            logged, losses = torch.stack(losses).cpu(), []  # waits for the device: the time is true
        seconds = (time.perf_counter() - started) / (step - first_step)
        if logs:
            mean_loss = record.steps(step, logged, lr, seconds)
        if validates or saves:
            training.check_finite()
        if validates and held_out is not None:
            with budget.validation(len(held_out), len(held_out)) if budget else nullcontext():
                confusion = training.validate(held_out)
            scores = confusion.scores()
            record.validation(step, scores)
            if not scores.miou <= training.best:  # a NaN is kept
                record.best(step, training.photo.network, confusion)
            training.best = max(training.best, scores.miou)
        elif step == num_steps:
            record.best(step, training.photo.network, None)
        if saves and accelerator.is_main_process:
            writer.save(training.state())
        if on_step:
            known = None if num_steps == UNDECIDED else num_steps
            on_step(StepInfo(step, known, seconds, mean_loss, lr, scores))
