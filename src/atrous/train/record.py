"""Record of a training in its run folder: log, events, best weights and their scores."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.files import write_json, write_text
from atrous.metrics import Confusion, Scores
from atrous.metrics.interval import intervals
from atrous.metrics.protocols import without_nan
from atrous.progress import Notify
from atrous.run import save_weights
from atrous.text import amount

STABILIZE = "lower --base-lr, add --clip-norm 1 or use fp32"
"""Advice for a training that diverges."""
_DIVERGED = 1e6
"""No training recovers from a larger loss; random guesses have log K."""


class Record:
    """Writes log.jsonl, events, best.safetensors and scores.json, in the main process."""

    def __init__(
        self,
        out: Path,
        classes: tuple[str, ...],
        step: int,
        accelerator: Accelerator,
        notify: Notify,
    ) -> None:
        """Go on after `step` steps."""
        self.out, self.classes, self.accelerator, self.notify = out, classes, accelerator, notify
        self.log = Log(out / "log.jsonl", step) if accelerator.is_main_process else None
        self.warned = False
        accelerator.init_trackers("events")

    def steps(self, step: int, losses: Tensor, lr: float, seconds: float) -> float | None:
        """Write the steps since the last line; return the mean loss of those that had labels.

        Args:
            step: the last of them.
            losses: (n, 2), on the CPU: loss, and 1 for a step with labels, otherwise 0.
            lr: learning rate of the last.
            seconds: per step.
        """
        loss, unlabelled = _mean_loss(losses, step)
        values = {"loss": loss, "lr": lr, "seconds_per_step": round(seconds, 4)}
        if unlabelled:
            values["unlabelled_steps"] = unlabelled
            if not self.warned:
                self.notify(
                    f"warning: {amount(unlabelled, 'step')} up to step {step:,} taught nothing: no "
                    "pixel of the crops has a label (log.jsonl counts more, the loss leaves "
                    "them out); check labels.ignore, or give a larger --crop-size"
                )
            self.warned = True
        known = {name: value for name, value in values.items() if value is not None}
        self.accelerator.log(known, step=step)
        if self.log:
            self.log.write({"step": step, **values})
        return loss

    def decided(self, step: int, num_steps: int) -> None:
        """Write how many steps the training has from a step on."""
        if self.log:
            self.log.write({"step": step, "num_steps": num_steps})

    def validation(self, step: int, scores: Scores) -> None:
        """Write a validation."""
        self.accelerator.log({"miou": scores.miou}, step=step)
        if self.log:
            self.log.write({"step": step, "val": scores.to_dict(self.classes)})

    def best(self, step: int, network: nn.Module, confusion: Confusion | None) -> None:
        """Write the best weights so far and their scores; None if there is no validation."""
        if not self.log:
            return
        save_weights(self.out, network)
        summary: dict[str, Any] = {"step": step, "split": None, "images": 0}
        if confusion is not None:
            summary |= {"split": "val", "images": len(confusion.images)}
            summary |= _scores(confusion, "pooled", self.classes)
            summary["per_image"] = _scores(confusion, "per-image", self.classes)
        write_json(self.out / "scores.json", summary)


def _scores(confusion: Confusion, protocol: str, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the scores by a protocol, with the 95 % interval of mIoU, JSON-ready."""
    ends = intervals(confusion.counts(), protocol)["miou"]
    return confusion.scores(protocol).to_dict(classes) | without_nan({"interval": ends})


class Log:
    """log.jsonl: one JSON object a line; a resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path, step: int) -> None:
        """Open for appending, after the lines up to `step`."""
        self.path = path
        if path.exists():
            write_text(path, "".join(_lines_until(path, step)))

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def _lines_until(path: Path, step: int) -> list[str]:
    kept = []
    for line in path.read_text("utf-8", "replace").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # cut off when the process was killed, or damaged
    return kept


def _mean_loss(losses: Tensor, step: int) -> tuple[float | None, int]:
    """Return the mean loss of the steps with labels (None: no such step), and the number without.

    `losses` and `step` are those of `Record.steps`.
    """
    values, labelled = losses.unbind(1)  # (n,) each
    highest = float(values.max())
    if not highest <= _DIVERGED:  # or NaN
        raise InputError(f"the loss at step {step} is {highest:.3g}; {STABILIZE}")
    taught = int(labelled.sum())
    return float(values.sum()) / taught if taught else None, len(losses) - taught
