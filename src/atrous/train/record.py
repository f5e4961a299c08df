"""What a training writes down: log, events, best weights and scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.metrics import Confusion, Scores
from atrous.metrics.interval import interval
from atrous.metrics.protocols import number
from atrous.progress import Notify
from atrous.text import amount
from atrous.train import checkpoint

_DIVERGED = 1e6
"""A loss beyond any that training could come back from; one of chance is the logarithm of K."""
CALM = "lower --base-lr, add --clip-norm 1 or use fp32"


class Record:
    """What the main process writes down of a training: log, events, best weights and scores."""

    def __init__(
        self,
        out: Path,
        classes: tuple[str, ...],
        step: int,
        accelerator: Accelerator,
        notify: Notify,
    ) -> None:
        self.out, self.classes, self.accelerator = out, classes, accelerator
        self.notify, self.warned = notify, False
        self.main = accelerator.is_main_process
        self.log = checkpoint.Log(out / "log.jsonl", step) if self.main else None
        accelerator.init_trackers("events")

    def progress(
        self, step: int, losses: Sequence[Tensor], lr: float, seconds: float
    ) -> float | None:
        """Write the steps since the last line; return the mean loss of those that had labels."""
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

    def scores(self, step: int, scores: Scores) -> None:
        """Write a validation."""
        self.accelerator.log({"miou": scores.miou}, step=step)
        if self.log:
            self.log.write({"step": step, "val": scores.to_dict(self.classes)})

    def best(self, step: int, network: nn.Module, confusion: Confusion | None) -> None:
        """Write the best weights so far and their scores."""
        if not self.main:
            return
        checkpoint.save_weights(self.out / "best.safetensors", network)
        summary: dict[str, Any] = {"step": step, "split": None, "images": 0}
        if confusion is not None:
            ends = interval(confusion.counts())  # of mIoU, over the images
            summary |= {"split": "val", "images": len(confusion.images)}
            summary |= confusion.scores().to_dict(self.classes)
            summary |= {"interval": [number(end) for end in ends]}
        checkpoint.write_json(self.out / "scores.json", summary)


def _mean_loss(losses: Sequence[Tensor], step: int) -> tuple[float | None, int]:
    """Return the mean loss of the steps that had labels, None if none had; and how many had not."""
    values, labelled = torch.stack(list(losses)).unbind(1)  # (n,) each
    highest = float(values.max())
    if not highest <= _DIVERGED:  # or no number
        raise InputError(f"the loss at step {step} is {highest:.3g}; {CALM}")
    taught = int(labelled.sum())
    return float(values.sum()) / taught if taught else None, len(losses) - taught
