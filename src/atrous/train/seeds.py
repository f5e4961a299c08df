"""Several trainings that differ in the seed alone: how much of a score is chance."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isnan, nan
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from atrous.errors import InputError
from atrous.metrics.protocols import without_nan
from atrous.progress import Notify, unheard
from atrous.run import Run, check_free, has_run
from atrous.text import typed
from atrous.train.recipe import Recipe

__all__ = ["SeedScores", "Spread", "TrainOne", "train_seeds"]

TrainOne = Callable[[Recipe, Path], Mapping[str, Any]]
"""Trains by a recipe into a run folder, or goes on there; returns what scores.json holds."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Statistics of a score over the seeds, as fractions."""

    mean: float
    std: float
    """Sample standard deviation (of n - 1); NaN for one seed."""
    min: float
    max: float


@dataclass(frozen=True, kw_only=True)
class SeedScores:
    """What scores.json of each run holds."""

    seeds: tuple[int, ...]
    runs: tuple[Path, ...]
    scores: tuple[Mapping[str, Any], ...]
    """N tables, as `atrous.train.train` returns them."""

    def by_protocol(self) -> dict[str, list[Mapping[str, Any]]]:
        """Return the N tables of each protocol of the split val; nothing if there is none."""
        if self.scores[0]["split"] is None:
            return {}
        return {"pooled": [*self.scores], "per-image": [each["per_image"] for each in self.scores]}

    def miou(self) -> dict[str, list[float]]:
        """Return the N mIoU of each protocol, fractions or NaN."""
        return {
            protocol: [nan if table["miou"] is None else table["miou"] for table in tables]
            for protocol, tables in self.by_protocol().items()
        }

    def spreads(self) -> dict[str, Spread]:
        """Return the spread of each protocol's mIoU."""
        return {protocol: _spread(values) for protocol, values in self.miou().items()}

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        miou = self.miou()
        runs = [
            {
                "seed": seed,
                "run": run.name,
                "step": scores["step"],
                "miou": {protocol: values[i] for protocol, values in miou.items()},
            }
            for i, (seed, run, scores) in enumerate(
                zip(self.seeds, self.runs, self.scores, strict=True)
            )
        ]
        first = {name: self.scores[0][name] for name in ("split", "images")}
        spreads = {protocol: asdict(spread) for protocol, spread in self.spreads().items()}
        return without_nan({**first, "runs": runs, "miou": spreads})


def train_seeds(
    recipe: Recipe,
    seeds: Sequence[int],
    out: Path,
    train_one: TrainOne,
    *,
    resume: bool = False,
    notify: Notify = unheard,
) -> SeedScores:
    """Train once for each seed, one after the other, into the folders seed1, seed2, ... of `out`.

    Args:
        recipe: options of all trainings, but for the seed.
        seeds: the seeds, each once.
        out: the folder of the run folders.
        train_one: trains, such as `atrous.train.train` with its data; for a resume, it goes on with
            a run that was stopped, and returns the scores of one that is complete.
        resume: whether run folders may hold runs.
        notify: called with a line before each training.
    """
    from atrous.train.provenance import check_same_recipe

    recipes, runs = [replace(recipe, seed=seed) for seed in seeds], run_folders(out, seeds)
    for each, run in zip(recipes, runs, strict=True):  # all of them before the first is trained
        if not resume:
            check_free(run)
        elif has_run(run):
            check_same_recipe(run, Run.read(run), each)
    scores: list[Mapping[str, Any]] = []
    for each, run in zip(recipes, runs, strict=True):
        notify(f"seed {each.seed}, {len(scores) + 1} of {len(seeds)}: {run}")
        scores.append(train_one(each, run))
        gc.collect()  # a training refers to itself, and its network may lie on the GPU
    return SeedScores(seeds=tuple(seeds), runs=tuple(runs), scores=tuple(scores))


def run_folders(out: Path, seeds: Sequence[int]) -> list[Path]:
    """Return the run folder of each seed, given once; refuse an `out` that is a run itself."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds are {typed(seeds)}; give one or more, each once")
    if has_run(out):
        raise InputError(f"{out}: holds a run; for several seeds, give another --out")
    return [out / f"seed{seed}" for seed in seeds]


def _spread(values: Sequence[float]) -> Spread:
    if any(map(isnan, values)):
        return Spread(mean=nan, std=nan, min=nan, max=nan)
    std = stdev(values) if len(values) > 1 else nan
    return Spread(mean=mean(values), std=std, min=min(values), max=max(values))
