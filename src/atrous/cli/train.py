"""`atrous train`: a recipe, or a data set of the user, to a run folder, or one for each seed."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, get_type_hints

from cyclopts import Parameter
from docstring_parser import parse_from_object

from atrous.cli.options import Flag, Json
from atrous.cli.progress import resolved_run, say, track
from atrous.errors import InputError
from atrous.files import write_json
from atrous.progress import untracked
from atrous.recipes import DATA_SETS, RECIPES, find
from atrous.report.seeds import seeds_text
from atrous.run import Run, check_free, has_run
from atrous.text import amount, typed
from atrous.train.recipe import RENAMED, Recipe, current_names
from atrous.train.seeds import TrainOne, run_folders, train_seeds
from atrous.weights.hub import is_remote


def _default(value: Any) -> str:
    """Return the default of a field as one types it; empty for what is left out, and flags."""
    return "" if value is None or value is False else typed(value)


if TYPE_CHECKING:
    from atrous.train.loop import StepInfo

    Overrides = dict[str, Any]
else:
    # Each field of a Recipe becomes an option, with its own help; only those given are in the dict.
    _help = {p.arg_name: p.description for p in parse_from_object(Recipe).params}
    _kinds = get_type_hints(Recipe)
    _kinds["class_weights"] = tuple[float | Literal["auto"], ...]  # cyclopts wants one tuple
    _options = {
        field.name: Annotated[
            _kinds[field.name],
            Parameter(help=_help[field.name], show_default=_default(field.default) or False),
        ]
        for field in fields(Recipe)
    }
    _hidden = {old: Annotated[_kinds[new], Parameter(show=False)] for old, new in RENAMED.items()}
    Overrides = TypedDict("Overrides", _options | _hidden, total=False)


def train(
    recipe: str | None = None,
    /,
    *,
    data: str | None = None,
    root: Path | None = None,
    out: Path | None = None,
    seeds: tuple[int, ...] | None = None,
    resume: Flag = False,
    json_output: Json = False,
    overrides: Annotated[Overrides | None, Parameter(name="*")] = None,
) -> None:
    """Train a model with a recipe, or on a data set of your own.

    Each field of the recipe is an option. The defaults shown are those of the recipe plain; other
    recipes, and plans, have their own. Several processes or GPUs: torchrun -m atrous train ...

    Args:
        recipe: camvid, paper or plain, or one of a study: against_fcn/fcn8s. With --data alone, a
            plan is made from the data and the machine.
        data: A built-in set, a folder with a dataset.toml, or such a file.
        root: The folder of a built-in set.
        out: The run folder; runs/RECIPE or runs/planned if left out.
        seeds: Train once for each of these seeds, into OUT/seed1, OUT/seed2, ..., and print mean
            and spread of the scores, which OUT/seeds.json keeps.
        resume: Go on from the last checkpoint in the run folder.
        json_output: Print the scores on standard output as JSON.
        overrides: Fields of the recipe.
    """
    began = time.monotonic()  # before torch is loaded and a training planned, which takes seconds
    given = _given(overrides or {}, seeds)
    if recipe is None and data is None and not (resume and out):
        raise InputError("name a recipe or give --data FOLDER; recipes: " + ", ".join(RECIPES))
    out, place = out or Path("runs") / (recipe or "planned"), data or DATA_SETS.get(recipe or "")
    named = None if recipe is None else find(recipe)
    choices: Sequence[tuple[str, str]] = ()
    runs = [out] if seeds is None else run_folders(out, seeds)
    if resume and (started := next(filter(has_run, runs), None)):
        named, place, root, choices = _recorded(started, data, root)
    elif place is None:
        raise InputError(f"{recipe or out}: give the data set with --data")
    chosen = replace(named or Recipe(), **given)  # refuses what cannot be, before torch is loaded
    for run in () if resume else runs:
        check_free(run)
    if named is None:
        chosen, choices = _planned(place, root, given)
    train_one = partial(run_training, data=place, root=root, resume=resume, plan=choices)
    if seeds is not None:
        document = _train_seeds(chosen, seeds, out, train_one, resume, quiet=json_output)
    else:
        document = train_one(chosen, out, began=began)
    if len(runs) > 1 and document["split"] is not None:
        options = f"--data {place}" + (f" --root {root}" if root else "")
        _say(f"next: atrous compare {' '.join(map(str, runs))} {options}")
    else:
        _say(f"next: atrous export {runs[0]} --out {out.name}.onnx")
    if json_output and _is_main():
        print(json.dumps(document, indent=2))


def _given(overrides: Mapping[str, Any], seeds: Sequence[int] | None) -> dict[str, Any]:
    """Return the fields of the recipe that are given, and refuse options that exclude others."""
    if {"minutes", "num_steps"} <= overrides.keys():
        raise InputError("--minutes decides how many steps there are; give it or --num-steps")
    if seeds is not None and "seed" in overrides:
        raise InputError("--seeds names the seed of each run; give it or --seed")
    for name in ("teacher", "unlabelled"):
        if name in overrides and not overrides[name]:  # such as an empty variable of the shell
            raise InputError(f"--{name} names nothing; give a folder, or leave it out")
    given = current_names(overrides)
    if given.get("class_weights") == ("auto",):
        given["class_weights"] = "auto"
    if given.get("init"):
        given["init"] = _run_of(given["init"])
    if "teacher" in given:
        given["teacher"] = tuple(map(_run_of, given["teacher"]))
    return given


def _run_of(model: str) -> str:
    """Return the run folder of a model that is fetched; any other as it was given."""
    return str(resolved_run(model)) if is_remote(model) else model


def _train_seeds(
    recipe: Recipe,
    seeds: Sequence[int],
    out: Path,
    train_one: TrainOne,
    resume: bool,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Train once for each seed; write and print their scores; return what is written."""
    result = train_seeds(recipe, seeds, out, train_one, resume=resume, notify=_say)
    document = result.to_dict()
    if _is_main():
        write_json(out / "seeds.json", document)
        if not quiet:
            print(seeds_text(result))
    return document


def run_training(
    recipe: Recipe,
    out: Path,
    data: str,
    root: Path | None,
    resume: bool = False,
    plan: Sequence[tuple[str, str]] = (),
    began: float | None = None,
) -> dict[str, Any]:
    """Train, and print what is trained, its progress and its best score on standard error.

    The minutes of a training count from `began` of `time.monotonic`, by default from now. Returns
    what scores.json holds.
    """
    # Threads that wait asleep: where other programs use the processors, too, spinning costs half.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    start = time.monotonic() if began is None else began
    from atrous.train.loop import train as run

    _say(_headline(recipe, data))
    progress = _ProgressLine()
    try:
        best = run(
            recipe,
            data,
            out,
            root=None if root is None else str(root),
            resume=resume,
            plan=plan,
            on_step=progress,
            notify=_say_above,
            track=track,
            clock=lambda: time.monotonic() - start,
        )
    except KeyboardInterrupt:
        _say_above(_stopped(out, progress.step, recipe.checkpoint_every))
        raise
    except RuntimeError as error:  # torch's; that of a CPU has no class of its own
        if not any(words in str(error) for words in ("out of memory", "can't allocate memory")):
            raise
        raise InputError(
            f"{out}: out of memory after step {progress.step:,}; start again, in another folder, "
            "with a smaller --batch-size or --crop-size"
        ) from None
    if best.get("miou") is not None:
        both = [best, best["per_image"]] if "per_image" in best else [best]  # older runs lack it
        _say(
            f"best {best['split']} mIoU {', '.join(map(_miou, both))} "
            f"of {amount(best['images'], 'image')} at step {best['step']:,}"
        )
    return best


def _stopped(out: Path, step: int, checkpoint_every: int) -> str:
    """Return at which step a training was stopped, and from which --resume goes on."""
    import torch

    from atrous.train.checkpoint import load_state

    if not has_run(out):
        return f"{out}: stopped before the first step; nothing is kept"
    state = load_state(out, torch.device("cpu"))
    kept = state["step"] if state else 0
    stopped = f"{out}: stopped after {amount(max(step, kept), 'step')}"
    if kept:
        return f"{stopped}; --resume goes on from step {kept:,}"
    every = amount(checkpoint_every, "step")
    return f"{stopped}, before the first checkpoint (one every {every}); --resume begins anew"


def _planned(
    data: str, root: Path | None, given: Mapping[str, Any]
) -> tuple[Recipe, tuple[tuple[str, str], ...]]:
    """Plan a training and print its choices."""
    from atrous.data.dataset import Dataset

    dataset = Dataset.open(data, root)
    from atrous.train.plan import plan  # loads torch

    planned = plan(dataset, given, track=track if _is_main() else untracked)
    _say("the plan, each option with its reason; those given by hand are kept:")
    for choice in planned.choices:
        _say(choice.lines())
    return planned


def _miou(scores: Mapping[str, Any]) -> str:
    """Return the mIoU in percent with half of its 95 % interval, and its protocol."""
    low, high = scores.get("interval") or (None, None)
    margin = "" if low is None else f"+- {50 * (high - low):.1f} "
    return f"{100 * scores['miou']:.1f} {margin}({scores['protocol']})"


def _recorded(
    out: Path, data: str | None, root: Path | None
) -> tuple[Recipe, str, Path | None, Sequence[tuple[str, str]]]:
    """Return the recipe of the run in `out`, its data and their root unless given, its plan."""
    from atrous.export.pipeline import dataset_of_run
    from atrous.train.provenance import recipe_of

    dataset_of_run(out, data, root)  # names the options that help where the run's data have moved
    run = Run.read(out)
    recorded = Path(run.data.root) if run.data.root else None
    return recipe_of(out, run), data or run.data.data or "", root or recorded, run.plan


def _headline(recipe: Recipe, data: str) -> str:
    imagenet = "ImageNet" if recipe.pretrained and recipe.backbone != "none" else "from nothing"
    start = recipe.init or recipe.backbone_weights or imagenet
    batch = f"{recipe.batch_size}"
    if recipe.accumulation_steps > 1:
        batch += f" x {recipe.accumulation_steps}"
    output_stride = recipe.model_options(0)["output_stride"]
    exact = "" if recipe.deterministic else ", not deterministic"
    steps = f"{recipe.num_steps:,} steps of {batch}"
    if recipe.minutes:
        steps = f"{recipe.minutes:g} min of steps of {batch}"
    taught = f", taught by {amount(len(recipe.teacher), 'run')}" if recipe.teacher else ""
    return (
        f"{recipe.model} on {recipe.backbone} ({start}), output stride {output_stride}, "
        f"{steps}, {recipe.precision}{exact}, on {data}{taught}"
    )


def _say(line: str) -> None:
    """Print a line on standard error, in the main process only."""
    if _is_main():
        say(line)


def _is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _say_above(line: str) -> None:
    """Print a line in place of the progress line, which the next step prints again below it."""
    _say(f"\r\x1b[K{line}" if sys.stderr.isatty() else line)


class _ProgressLine:
    """A line that is printed again after each step on a terminal; elsewhere, after validations."""

    def __init__(self) -> None:
        self.step, self.loss, self.score = 0, "", ""

    def __call__(self, info: "StepInfo") -> None:
        self.step = info.step
        if info.loss is not None:
            self.loss = f"loss {info.loss:.3f}  "
        if info.scores is not None:
            miou, protocol = 100 * info.scores.miou, info.scores.protocol
            self.score = f"  |  val mIoU {miou:.1f} ({protocol}) at {info.step:,}"
        finished = info.step == info.num_steps
        line = f" {info.step:,} steps  {info.seconds_per_step:.2f} s/step  "
        if info.num_steps is not None:
            left = round((info.num_steps - info.step) * info.seconds_per_step)
            clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}".removeprefix("0:")
            line = (
                f" {info.step:,}/{info.num_steps:,}  {info.step / info.num_steps:4.0%}  "
                f"{info.seconds_per_step:.2f} s/step  left {clock}  "
            )
        line += f"{self.loss}lr {info.lr:.1e}{self.score}"
        if sys.stderr.isatty():
            end = "\n" if finished else ""
            print(f"\r\x1b[K{line}", end=end, file=sys.stderr, flush=True)
        elif info.scores is not None or finished:
            _say(line)
