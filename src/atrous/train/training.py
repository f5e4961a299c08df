"""The state of a training, and the step that changes it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from atrous.data.sample import Sample
from atrous.errors import InputError
from atrous.metrics import Confusion
from atrous.models.bands import Colors, of_bands
from atrous.models.catalogue import normalization
from atrous.models.photo import PhotoNetwork
from atrous.progress import Notify, unheard
from atrous.taxonomy import IGNORE_INDEX
from atrous.train import checkpoint
from atrous.train.average import Average
from atrous.train.budget import Budget
from atrous.train.crops import mixed_seed
from atrous.train.graph import CudaGraph, GraphedStep, Lead
from atrous.train.loss.upsampled import upsampled_loss
from atrous.train.network import start_network
from atrous.train.optim import build_optimizer, learning_rate, load_optimizer, set_learning_rate
from atrous.train.precision import CastNetwork
from atrous.train.processes import summed, synchronize_norms
from atrous.train.recipe import Recipe
from atrous.train.record import STABILIZE
from atrous.train.teacher import Teachers, distillation_loss, inside
from atrous.train.teacher_views import unpacked
from atrous.train.validation import validate


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
        budget: Budget | None = None,
        fresh: bool = True,
        notify: Notify = unheard,
    ) -> None:
        """Start before the first step; see `start_network`."""
        self.recipe, self.accelerator, self.num_classes = recipe, accelerator, num_classes
        self.notify, self.teachers, self.budget = notify, teachers, budget
        self.step, self.best = 0, -math.inf
        # AdamW sees no loss's scale: beside a second loss of the pixels, Dice would count less.
        pixels = 1 + recipe.teacher_weight if recipe.teacher else 1.0
        self.balanced = replace(recipe, dice_weight=pixels * recipe.dice_weight)
        self.schedule = budget.schedule(0) if budget else recipe  # has the steps that hold now
        torch.manual_seed(recipe.seed)
        network, self.left_over = start_network(recipe, num_classes, colors, network, fresh=fresh)
        self.stride = int(network.stride)  # type: ignore[arg-type]
        self.aligned = bool(getattr(network, "aligned", False))
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
            "num_steps": self.schedule.num_steps if self.budget else None,
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
                self.schedule = self.budget.schedule(self.step)
                decided = self.schedule.num_steps == state["num_steps"]
            if self.accelerator.scaler:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
            raise InputError(
                f"{out / checkpoint.NAME}: of another network, or damaged; start again without it"
            ) from None
        if self.budget and not decided:
            raise InputError(
                f"{self.budget.path}: lacks decisions that {checkpoint.NAME} was trained by; take "
                "a copy of the run, or start again in another folder"
            )

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
            taught = self.teachers(image, self.stride, aligned=self.aligned)
        output = self.forward(self.photo.normalize(image, self.dtype))
        aligned = self.aligned
        loss = upsampled_loss(output.logits, target, self.stride, self.balanced, aligned=aligned)
        for logits, stride in zip(output.auxiliary, self.auxiliary_strides, strict=True):
            auxiliary = upsampled_loss(logits, target, stride, self.recipe, aligned=aligned)
            loss = loss + self.recipe.auxiliary_weight * auxiliary
        if taught is not None:
            temperature, shown = self.recipe.teacher_temperature, inside(image, self.stride)
            distilled = distillation_loss(output.logits, taught, temperature, shown)
            loss = loss + self.recipe.teacher_weight * distilled
        return loss
