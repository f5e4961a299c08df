"""train(): a recipe and a dataset in, a run folder out.

Nothing random is carried from step to step: the order of the images, their augmentation and the
dropout of step n all follow from the seed and n. That is what makes a resumed run end with exactly
the weights of an undisturbed one.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from numpy.typing import NDArray
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from atrous.data.dataset import Dataset
from atrous.data.sample import Sample
from atrous.errors import InputError
from atrous.evaluation.score import count_samples
from atrous.metrics import Confusion, Scores
from atrous.models.bands import Colors, of_bands, take_bands
from atrous.models.catalogue import build, normalization
from atrous.models.photo import PhotoNetwork
from atrous.progress import Notify, Track, unheard, untracked
from atrous.taxonomy import IGNORE_INDEX
from atrous.train import checkpoint
from atrous.train.bands import bands_line, bands_of_start
from atrous.train.claim import claim, describe
from atrous.train.data_check import checked_labels, has_labels, refuse_one_class
from atrous.train.labels import labels_of
from atrous.train.loader import batches, mixed_seed
from atrous.train.loss.upsampled import upsampled_loss
from atrous.train.optim import build_optimizer, learning_rate
from atrous.train.recipe import Recipe
from atrous.train.record import CALM, Record
from atrous.weights.importers.backbones import load_backbone


@dataclass(frozen=True)
class StepInfo:
    """What a watcher of a training is told after each step."""

    step: int
    """Steps done, 1 to num_steps."""
    num_steps: int
    seconds_per_step: float
    loss: float | None
    """Mean since the last line of the log, of the steps that had labels; None between two lines."""
    lr: float
    scores: Scores | None
    """Of the validation after this step; None if there was none."""


def train(
    recipe: Recipe,
    data: str,
    root: str | None,
    out: Path,
    resume: bool = False,
    on_step: Callable[[StepInfo], None] | None = None,
    network: nn.Module | None = None,
    notify: Notify = unheard,
    track: Track = untracked,
) -> dict[str, Any]:
    """Train a network and keep its last and best weights in `out`.

    Args:
        recipe: how to train. On a resume it must be the one that the run was started with.
        data: name of a built-in set, folder or dataset.toml, with the splits "train" and maybe
            "val".
        root: the folder of a built-in set.
        out: the run folder. It must not hold a run yet, unless `resume` is set.
        resume: go on from the last checkpoint in `out`, or start if there is none.
        on_step: called after each step.
        network: train this one instead of the recipe's: it takes what those of `atrous.models` take
            and returns their `Output`. Its run can be scored and resumed, but not loaded by name.
        notify: told in lines what the data hold, and what is odd about them.
        track: shows the count of the labels before the first step.

    Returns:
        The content of scores.json: the best validation, or the last step if there is no val split.

    Raises:
        InputError: recipe, data or run folder are not usable, the data hold nothing to learn, a
            run is resumed on other data, or the training diverges.
        OSError: the disk is full; the checkpoint before is kept.
    """
    dataset = Dataset.open(data, root)
    refuse_one_class(dataset.taxonomy)
    samples = dataset.split("train")
    held_out = dataset.split("val") if "val" in dataset.splits else None
    if held_out is not None:
        held_out[0]  # files that cannot be read are told of now, not at the first validation
        if not has_labels(held_out):
            notify("warning: no mask of split val holds a class, so nothing is validated")
            held_out = None
    channels = samples.channels()
    for line in (dataset.fourth_band[1], bands_line(dataset.bands, channels.colors)):
        if line:
            notify(line)
    AcceleratorState._reset_state()  # of an earlier training in this process
    accelerator = Accelerator(
        mixed_precision="no" if recipe.precision == "fp32" else recipe.precision,
        log_with="tensorboard",
        project_dir=str(out),
    )
    state = checkpoint.load_state(out, accelerator.device) if resume else None
    fresh = state is None  # a resumed run needs neither ImageNet's weights nor those of `init`
    num_classes = dataset.taxonomy.num_classes
    training = _Training(recipe, num_classes, accelerator, network, fresh, channels.colors)
    if accelerator.is_main_process:  # not before: a start that fails leaves no folder
        description = describe(recipe, dataset, samples, data, root, channels)
        description["left_over"] = list(training.left_over)  # of the backbone's weights
        weights = recipe.class_weights
        args = samples, dataset.taxonomy, weights, notify, track
        claim(out, description, resume, notify, partial(checked_labels, *args))
    if state is not None:
        try:
            training.restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
            raise InputError(
                f"{out / 'last.pt'}: of another network, or damaged; start again without it"
            ) from None
    record = Record(out, dataset.taxonomy.classes, training.step, accelerator, notify)
    rank, world_size = accelerator.process_index, accelerator.num_processes
    loader = batches(samples, recipe, training.step, rank, world_size)

    losses: list[Tensor] = []  # (2,) each
    first_step, started = training.step, time.perf_counter()
    while training.step < recipe.num_steps:
        loss, lr = training.advance(loader)
        losses.append(loss)
        step, finished = training.step, training.step == recipe.num_steps
        seconds = (time.perf_counter() - started) / (step - first_step)
        mean_loss = scores = confusion = None
        if finished or step % recipe.log_every == 0:
            mean_loss, losses = record.progress(step, losses, lr, seconds), []
        validated = held_out is not None and (finished or step % recipe.validate_every == 0)
        saved = finished or step % recipe.checkpoint_every == 0
        if validated or saved:
            training.check_finite()
        if held_out is not None and validated:
            confusion = training.validate(held_out)
            scores = confusion.scores()
            record.scores(step, scores)
        if finished if scores is None else not scores.miou <= training.best:  # NaN is kept
            record.best(step, training.photo.network, confusion)
        if scores is not None:
            training.best = max(training.best, scores.miou)
        if accelerator.is_main_process and saved:
            checkpoint.save_state(out, training.state())
        if on_step:
            on_step(StepInfo(step, recipe.num_steps, seconds, mean_loss, lr, scores))
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return checkpoint.read_json(out / "scores.json")


class _Training:
    """A training between two steps: all that a checkpoint holds, and what acts on it."""

    def __init__(
        self,
        recipe: Recipe,
        num_classes: int,
        accelerator: Accelerator,
        network: nn.Module | None,
        fresh: bool,
        colors: Colors,
    ) -> None:
        self.recipe, self.accelerator, self.num_classes = recipe, accelerator, num_classes
        self.step, self.best = 0, -math.inf
        if len(recipe.class_weights) not in (0, num_classes):
            given = len(recipe.class_weights)
            raise InputError(f"{given} class weights for {num_classes} classes; give one for each")
        torch.manual_seed(recipe.seed)
        own = network is None and fresh
        first = bands_of_start(recipe, len(colors)) if own else len(colors)
        if network is None:
            chosen = recipe.init or recipe.backbone_weights
            pretrained = fresh and recipe.pretrained and chosen is None
            options = recipe.model_options(num_classes, first)
            network = build(**options, pretrained=pretrained)
        self.left_over: tuple[str, ...] = ()
        if fresh and recipe.backbone_weights is not None:
            path = Path(recipe.backbone_weights)
            self.left_over = load_backbone(network, recipe.backbone, path)
        if fresh and recipe.init is not None:
            checkpoint.start_from(network, Path(recipe.init))
        if first != len(colors):
            take_bands(network, colors, keep_weights=True)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1 - recipe.batchnorm_decay
        self.stride = int(network.stride)  # type: ignore[arg-type]
        self.auxiliary_stride = int(network.auxiliary_stride)  # type: ignore[arg-type]
        self.network = network.to(accelerator.device).to(memory_format=torch.channels_last)
        decay = recipe.ema_decay
        self.average = ModelEmaV3(self.network, decay, use_warmup=True) if decay else None
        self.optimizer = build_optimizer(self.network, recipe)
        self.wrapped, self.stepper = accelerator.prepare(self.network, self.optimizer)
        self.forward = torch.compile(self.wrapped) if recipe.compile else self.wrapped
        kept = self.average.module if self.average else self.network
        mean, std = (of_bands(values, colors) for values in normalization(recipe.backbone))
        self.photo = PhotoNetwork(kept, mean, std).to(accelerator.device)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on from here."""
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "best": self.best,
            "network": self.network.state_dict(),
            "average": self.average.module.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.step, self.best = state["step"], state["best"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.module.load_state_dict(state["average"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def advance(self, loader: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, float]:
        """Take one optimiser step.

        Returns:
            on the device, (2,): its loss, and 1 if any of its pixels has a label, otherwise 0; and
            its learning rate.
        """
        recipe, accelerator = self.recipe, self.accelerator
        torch.manual_seed(mixed_seed(recipe.seed, self.step, accelerator.process_index))
        lr = learning_rate(self.step, recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"]
        self.wrapped.train()
        total = torch.zeros((), device=accelerator.device)
        labelled = torch.zeros((), dtype=torch.bool, device=accelerator.device)
        for batch in range(recipe.accumulation):
            image, target = (part.to(accelerator.device) for part in next(loader))
            last = batch == recipe.accumulation - 1
            with nullcontext() if last else accelerator.no_sync(self.wrapped):
                loss = self._loss(image, target) / recipe.accumulation
                accelerator.backward(loss)
            total += loss.detach()
            labelled |= (target != IGNORE_INDEX).any()
        if recipe.clip_norm:
            accelerator.clip_grad_norm_(self.wrapped.parameters(), recipe.clip_norm)
        self.stepper.step()
        self.stepper.zero_grad()
        self.step += 1
        if self.average:
            self.average.update(self.network, self.step)
        return torch.stack((total, labelled.float())), lr

    def check_finite(self) -> None:
        """Refuse weights that have become infinite or no number.

        Raises:
            InputError: they have.
        """
        for name, tensor in self.network.state_dict().items():
            if not tensor.isfinite().all():
                raise InputError(f"after step {self.step}, {name} is not finite; {CALM}")

    def _loss(self, image: Tensor, target: Tensor) -> Tensor:  # (B, h, w, 3) uint8, (B, h, w)
        output = self.forward(self.photo.normalize(image))
        loss = upsampled_loss(output.logits, target, self.stride, self.recipe)
        if output.auxiliary is not None:
            loss = loss + self.recipe.auxiliary_weight * upsampled_loss(
                output.auxiliary, target, self.auxiliary_stride, self.recipe
            )
        return loss

    def validate(self, split: Sequence[Sample]) -> Confusion:
        """Score the weights that would be kept, at native size; each process takes its share."""
        accelerator = self.accelerator
        self.photo.eval()
        mine = range(accelerator.process_index, len(split), accelerator.num_processes)
        stride = self.stride

        @torch.inference_mode()
        def predict(image: NDArray[np.uint8]) -> NDArray[np.integer[Any]]:
            logits = self.photo(torch.tensor(image)[None].to(accelerator.device))[0]
            return labels_of(logits, stride, image.shape[:2])

        confusion = count_samples(predict, split, self.num_classes, indices=mine)
        parts: list[Confusion] = gather_object([confusion])
        whole, *others = parts
        for part in others:
            whole.merge(part)
        return whole
