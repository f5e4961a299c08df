"""train(): a recipe and a data set in, a run folder out.

No random state is carried from step to step: the order of the images, their augmentation and the
dropout of step n depend only on the seed and n. So a resumed run ends with exactly the weights of
a run without a stop.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from atrous.data.dataset import Dataset
from atrous.data.sample import Sample
from atrous.decode import read_json
from atrous.errors import InputError
from atrous.metrics import Confusion, Scores
from atrous.models.bands import Colors, of_bands
from atrous.models.catalogue import normalization
from atrous.models.photo import PhotoNetwork
from atrous.progress import Notify, Track, unheard, untracked
from atrous.taxonomy import IGNORE_INDEX
from atrous.train import checkpoint
from atrous.train.average import Average
from atrous.train.budget import UNDECIDED, Budget
from atrous.train.crops import Crops, mixed_seed
from atrous.train.data_check import LabelCounts, checked_labels, splits_of
from atrous.train.determinism import algorithms
from atrous.train.graph import CudaGraph, GraphedStep, Lead
from atrous.train.loader import batches, moved, positions_of
from atrous.train.loss.upsampled import upsampled_loss
from atrous.train.network import start_network
from atrous.train.optim import build_optimizer, learning_rate, load_optimizer, set_learning_rate
from atrous.train.precision import CastNetwork
from atrous.train.processes import end_training, share_cpu, summed, synchronize_norms
from atrous.train.provenance import claim, describe, keys_digest, recorded_counts
from atrous.train.recipe import Recipe
from atrous.train.record import STABILIZE, Record
from atrous.train.teacher import Teachers, distillation_loss
from atrous.train.teacher_views import TeacherViews, unpacked
from atrous.train.unlabelled import find_unlabelled, joined
from atrous.train.validation import validate

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
    if clock is None:
        clock = partial(_seconds_since, time.monotonic())
    out, dataset = Path(out), Dataset.open(data, root)
    samples, held_out = splits_of(dataset, notify)
    taxonomy, colors = dataset.taxonomy, samples.channels().colors
    given, classes = len(recipe.class_weights), taxonomy.num_classes
    if recipe.class_weights != "auto" and given not in (0, classes):
        raise InputError(f"{given} class weights for {classes} classes; give one for each")
    accelerator = _accelerator(recipe, out)
    unlabelled = find_unlabelled(dataset, recipe.unlabelled, (samples, held_out), notify)
    state = checkpoint.load_state(out, accelerator.device) if resume else None
    fresh = state is None  # a resumed run needs no initial weights
    teachers = None
    if recipe.teacher:
        teachers = Teachers(recipe, taxonomy.classes, len(colors), accelerator.device)
    count = cache(partial(checked_labels, samples, taxonomy, recipe.class_weights, notify, track))
    rarity: tuple[float, ...] = ()
    if recipe.class_weights == "auto" or recipe.rare_crops:
        counts = _same_counts(accelerator, out, count)
        rarity = counts.rarity()
        if recipe.class_weights == "auto":
            recipe = replace(recipe, class_weights=counts.weights())
    training = Training(
        recipe,
        taxonomy.num_classes,
        colors,
        accelerator,
        network,
        teachers=teachers,
        fresh=fresh,
        notify=notify,
    )
    if recipe.minutes:
        training.budget = Budget(recipe, out, accelerator, clock, notify, resume=resume)
    if accelerator.is_main_process:  # here, so that a failed start leaves no folder
        digests = teachers.digests if teachers else ()
        left_over = training.left_over
        run = describe(recipe, dataset, data, root, left_over, digests, plan, unlabelled)
        claim(out, run, resume, notify, count)
    if state is not None:
        training.restore(state, out)
    record = Record(out, taxonomy.classes, training.step, accelerator, notify)
    if training.budget:
        training.schedule = training.budget.schedule(training.step)
    crops = Crops(joined(samples, unlabelled), recipe, rarity)
    views = _views(training, crops, out, track)
    loader = _loader(training, crops, views, notify, track)
    exact = algorithms(deterministic=recipe.deterministic)
    with exact, checkpoint.Writer(out, accelerator.device) as writer:
        if training.budget and training.step < training.schedule.num_steps:
            _begin(training.budget, training, held_out)
        _take_steps(training, loader, held_out, record, writer, on_step)
    accelerator.wait_for_everyone()
    end_training(accelerator)
    return read_json(out / "scores.json", dict[str, Any], "resume the training")


def _same_counts(
    accelerator: Accelerator, out: Path, count: Callable[[], LabelCounts]
) -> LabelCounts:
    """Return the counts of the labels that the run records, or will; the same in each process."""
    counts: list[Any] = [None]
    if accelerator.is_main_process:
        counts = [recorded_counts(out) or count()]
    broadcast_object_list(counts)
    found: LabelCounts = counts[0]
    return found


def _views(training: "Training", crops: Crops, out: Path, track: Track) -> TeacherViews | None:
    """Return the kept outputs of the teachers, all computed; None if none are kept."""
    teachers, accelerator = training.teachers, training.accelerator
    if not teachers or not training.recipe.teacher_views:
        return None
    views = TeacherViews(out, crops, teachers.digests, keys_digest(crops.samples), training.stride)
    if training.step < training.schedule.num_steps:
        shown = track if accelerator.is_main_process else untracked
        views.compute(teachers, accelerator, shown)
    training.teachers = None  # they have done their work, and their memory is wanted
    return views


def _loader(
    training: "Training", crops: Crops, views: TeacherViews | None, notify: Notify, track: Track
) -> Iterator[Sequence[Tensor]]:
    """Return the batches of this process, with the kept outputs of teachers if there are `views`.

    Only the main process reports.
    """
    accelerator, device = training.accelerator, training.accelerator.device
    process = accelerator.process_index, accelerator.num_processes
    reports = (notify, track) if accelerator.is_main_process else ()
    cut = batches(crops, training.step, *process, device, *reports)
    if views is None:
        return cut
    kept = views.batches(positions_of(training.recipe, training.step, *process))
    return ((*crop, moved(values, device)) for crop, values in zip(cut, kept, strict=True))


def _seconds_since(start: float) -> float:
    return time.monotonic() - start


def _begin(budget: Budget, training: "Training", held_out: Sequence[Sample] | None) -> None:
    """Begin with the steps of a training whose time is given; first time a validation."""
    if held_out is not None:
        for images in budget.trials(len(held_out)):
            with budget.validation(len(images), len(held_out)):
                training.validate(held_out, images)
        budget.check_validation()
    budget.begin()


def _take_steps(
    training: "Training",
    loader: Iterator[Sequence[Tensor]],
    held_out: Sequence[Sample] | None,
    record: Record,
    writer: checkpoint.Writer,
    on_step: Callable[[StepInfo], None] | None,
) -> None:
    """Take the remaining steps; log, validate and save in between."""
    recipe, accelerator, budget = training.recipe, training.accelerator, training.budget
    losses: list[Tensor] = []  # (2,) each
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


def is_capturable(recipe: Recipe, accelerator: Accelerator) -> bool:
    """Return whether the step never waits for the device: fp16's scaler decides on the host."""
    return accelerator.device.type == "cuda" and recipe.precision != "fp16"


class Training:
    """State of a training between two steps, and the step that changes it."""

    def __init__(
        self,
        recipe: Recipe,
        num_classes: int,
        colors: Colors,
        accelerator: Accelerator,
        network: nn.Module | None = None,
        *,
        teachers: Teachers | None = None,
        fresh: bool = True,
        notify: Notify = unheard,
    ) -> None:
        """Start before the first step; see `start_network`."""
        self.recipe, self.accelerator, self.num_classes = recipe, accelerator, num_classes
        self.notify, self.teachers = notify, teachers
        self.step, self.best = 0, -math.inf
        self.budget: Budget | None = None
        self.schedule = recipe  # with the number of steps that holds now
        torch.manual_seed(recipe.seed)
        network, self.left_over = start_network(recipe, num_classes, colors, network, fresh=fresh)
        self.stride = int(network.stride)  # type: ignore[arg-type]
        self.auxiliary_strides: tuple[int, ...] = tuple(network.auxiliary_strides)  # type: ignore[arg-type]
        if recipe.sync_batchnorm and accelerator.num_processes > 1:
            synchronize_norms(network, accelerator.device)
        self.network = network.to(accelerator.device).to(memory_format=torch.channels_last)
        self.average = Average(self.network, recipe.ema_decay) if recipe.ema_decay else None
        capturable = is_capturable(recipe, accelerator)
        self.optimizer = build_optimizer(self.network, recipe, capturable=capturable)
        casts = capturable and recipe.precision == "bf16" and not recipe.compile
        self.dtype = torch.bfloat16 if casts else torch.float32  # of the network's input
        trained = CastNetwork(self.network) if casts else self.network
        self.wrapped, self.stepper = accelerator.prepare(trained, self.optimizer)
        self.forward = torch.compile(self.wrapped) if recipe.compile else self.wrapped
        self.uses_graph = capturable and recipe.cuda_graph and accelerator.num_processes == 1
        self.graph = self._new_graph()
        self.lead = Lead() if accelerator.device.type == "cuda" else None
        kept = self.average.network if self.average else self.network
        mean, std = (of_bands(values, colors) for values in normalization(recipe.backbone))
        self.photo = PhotoNetwork(kept, mean, std).to(accelerator.device)

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "best": self.best,
            "network": self.network.state_dict(),
            "average": self.average.network.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
            "seconds": self.budget.seconds() if self.budget else None,
        }

    def restore(self, state: Mapping[str, Any], out: Path) -> None:
        """Restore the result of `state`; `out` is the run folder, for messages."""
        self.graph = self._new_graph()  # the optimiser's tensors will lie elsewhere
        try:
            self.step, self.best = state["step"], state["best"]
            self.network.load_state_dict(state["network"])
            load_optimizer(self.optimizer, state["optimizer"])
            if self.average:
                self.average.network.load_state_dict(state["average"])
            if self.budget:
                self.budget.before = float(state["seconds"])
            if self.accelerator.scaler:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
            raise InputError(
                f"{out / checkpoint.NAME}: of another network, or damaged; start again without it"
            ) from None

    def advance(self, loader: Iterator[Sequence[Tensor]]) -> tuple[Tensor, float]:
        """Take one optimiser step.

        Returns:
            (2,), on the device: the loss, and 1 if any pixel has a label or a teacher, otherwise 0;
            and the learning rate.
        """
        recipe = self.recipe
        parts = [part for _ in range(recipe.accumulation_steps) for part in next(loader)]
        # after the loader, whose augmentation seeds the generator of a GPU, too
        torch.manual_seed(mixed_seed(recipe.seed, self.step, self.accelerator.process_index))
        lr = learning_rate(self.step, self.schedule)
        set_learning_rate(self.optimizer, lr)
        result = self.graph(parts) if self.graph else self._step(parts)
        self.step += 1
        if self.average:
            self.average.update(self.step)
        if self.lead:
            self.lead.step_taken()
        if self.budget and self.budget.review(self.step):
            self.schedule = self.budget.schedule(self.step)
        return result, lr

    def _step(self, parts: Sequence[Tensor]) -> Tensor:
        """Change the weights by a step; what it does in Python is not repeated in a CUDA graph.

        Args:
            parts: image, target and, where teachers' outputs are kept, these, of each batch, one
                after the other.

        Returns:
            As `advance`.
        """
        recipe, accelerator = self.recipe, self.accelerator
        self.wrapped.train()
        self.stepper.zero_grad()
        total = torch.zeros((), device=accelerator.device)
        taught = bool(recipe.teacher)
        labelled = torch.full((), taught, dtype=torch.bool, device=accelerator.device)
        size = len(parts) // recipe.accumulation_steps
        for batch in range(recipe.accumulation_steps):
            image, target, *kept = (
                part.to(accelerator.device, non_blocking=True)
                for part in parts[size * batch : size * (batch + 1)]
            )
            last = batch == recipe.accumulation_steps - 1
            with nullcontext() if last else accelerator.no_sync(self.wrapped):
                loss = self._loss(image, target, *kept) / recipe.accumulation_steps
                accelerator.backward(loss)
            total += loss.detach()
            labelled |= (target != IGNORE_INDEX).any()
        if recipe.clip_norm:
            accelerator.clip_grad_norm_(self.wrapped.parameters(), recipe.clip_norm)
        self.stepper.step()
        shares = summed(torch.stack((total, labelled.float())))
        return torch.stack((shares[0] / accelerator.num_processes, shares[1].clamp(max=1)))

    def validate(self, split: Sequence[Sample], indices: Sequence[int] | None = None) -> Confusion:
        """Count the confusions of a split, or of the samples of `indices`."""
        return validate(self.photo, split, self.num_classes, self.accelerator, indices)

    def check_finite(self) -> None:
        """Refuse weights that have become infinite or NaN."""
        state = self.network.state_dict()
        finite = torch.stack([tensor.isfinite().all() for tensor in state.values()]).tolist()
        for name, is_finite in zip(state, finite, strict=True):
            if not is_finite:
                raise InputError(f"after step {self.step}, {name} is not finite; {STABILIZE}")

    def _new_graph(self) -> GraphedStep | None:
        if not self.uses_graph:
            return None
        return GraphedStep(self._step, CudaGraph(), self.accelerator.device, self.notify)

    def _loss(self, image: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the loss of a batch.

        Args:
            image: (B, h, w, C) uint8.
            target: (B, h, w) uint8.
            kept: outputs of teachers, as `TeacherViews.batches` yields them.
        """
        taught = None  # (B, K, h / stride, w / stride)
        if kept is not None:
            taught = unpacked(kept)
        elif self.teachers is not None:
            taught = self.teachers(image, self.stride)
        output = self.forward(self.photo.normalize(image, self.dtype))
        loss = upsampled_loss(output.logits, target, self.stride, self.recipe)
        for logits, stride in zip(output.auxiliary, self.auxiliary_strides, strict=True):
            auxiliary = upsampled_loss(logits, target, stride, self.recipe)
            loss = loss + self.recipe.auxiliary_weight * auxiliary
        if taught is not None:
            distilled = distillation_loss(output.logits, taught, self.recipe.teacher_temperature)
            loss = loss + self.recipe.teacher_weight * distilled
        return loss
