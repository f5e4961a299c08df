"""atrous train: a recipe, or a dataset of one's own, to a run folder."""

import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_type_hints

from cyclopts import Parameter
from docstring_parser import parse_from_object

from atrous.cli.options import Flag
from atrous.cli.progress import watched
from atrous.errors import InputError
from atrous.recipes import RECIPES, find
from atrous.run import Run, has_run
from atrous.train.recipe import RENAMED, Recipe, current_names

if TYPE_CHECKING:
    from atrous.train.loop import StepInfo

    Overrides = dict[str, Any]
else:
    # Each field of a Recipe becomes an option, with its own help; only those given are in the dict.
    _help = {p.arg_name: p.description for p in parse_from_object(Recipe).params}
    _kinds = get_type_hints(Recipe)
    _options = {
        field.name: Annotated[_kinds[field.name], Parameter(help=_help[field.name])]
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
    resume: Flag = False,
    overrides: Annotated[Overrides | None, Parameter(name="*")] = None,
) -> None:
    """Train a model with a recipe, or on a data set of your own.

    Each field of the recipe is an option. Several processes or GPUs: torchrun -m atrous train ...

    Args:
        recipe: camvid, camvid_small, paper or plain, or one of a study: against_fcn/fcn8s; "plain"
            if only --data is given.
        data: A built-in set, a folder with a dataset.toml, or such a file.
        root: The folder of a built-in set.
        out: The run folder; runs/RECIPE if left out.
        resume: Go on from the last checkpoint in the run folder.
        overrides: Fields of the recipe.
    """
    if recipe is None and data is None and not (resume and out):
        raise InputError("name a recipe or give --data FOLDER; recipes: " + ", ".join(RECIPES))
    name = recipe or "plain"
    chosen, out = find(name), out or Path("runs") / name
    place = data or ("camvid" if name in ("camvid", "camvid_small") else None)
    if resume and has_run(out):
        chosen, place, root = _recorded(out, chosen if recipe else None, data, root)
    elif place is None:
        raise InputError(f"{name}: give the data set with --data")
    chosen = replace(chosen, **current_names(overrides or {}))

    train_and_tell(chosen, place, root, out, resume)
    _say(f"next: atrous export {out} --out {out.name}.onnx")


def train_and_tell(
    recipe: Recipe, data: str, root: Path | None, out: Path, resume: bool = False
) -> None:
    """Train, and tell on standard error what, how far, and how well; see `atrous.train.loop`."""
    # Threads that wait asleep: where others use the processors too, spinning costs up to half.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from atrous.train.loop import train as run

    _say(_headline(recipe, data))
    best = run(
        recipe,
        data,
        out,
        root=None if root is None else str(root),
        resume=resume,
        on_step=_Watcher(),
        notify=_say_above,
        track=watched,
    )
    if best.get("miou") is not None:
        low, high = best.get("interval") or (None, None)
        margin = "" if low is None else f"+- {50 * (high - low):.1f} "  # half of the 95 % interval
        _say(
            f"best {best['split']} mIoU {100 * best['miou']:.1f} {margin}"
            f"({best['protocol']}, {best['images']} images) at step {best['step']:,}"
        )


def _recorded(
    out: Path, named: Recipe | None, data: str | None, root: Path | None
) -> tuple[Recipe, str, Path | None]:
    """What the run in `out` was started with; what is given again wins, and the run checks it."""
    from atrous.export.pipeline import dataset_of_run
    from atrous.train.provenance import recipe_of

    dataset_of_run(out, data, root)  # whose error says it, where the run's data have moved
    run = Run.read(out)
    theirs = Path(run.data.root) if run.data.root else None
    return recipe_of(out, run), data or run.data.data or "", root or theirs


def _headline(recipe: Recipe, data: str) -> str:
    start = "ImageNet" if recipe.pretrained and recipe.backbone != "none" else "from nothing"
    if recipe.init:
        start = recipe.init
    elif recipe.backbone_weights:
        start = recipe.backbone_weights
    batch = f"{recipe.batch_size}"
    if recipe.accumulation_steps > 1:
        batch += f" x {recipe.accumulation_steps}"
    output_stride = recipe.model_options(0)["output_stride"]
    return (
        f"{recipe.model} on {recipe.backbone} ({start}), output stride {output_stride}, "
        f"{recipe.num_steps:,} steps of {batch}, {recipe.precision}, on {data}"
    )


def _say(line: str) -> None:
    if int(os.environ.get("RANK", "0")) == 0:
        print(line, file=sys.stderr, flush=True)


def _say_above(line: str) -> None:
    """Say a line; the one that follows the training on a terminal is drawn anew below it."""
    _say(f"\r\x1b[K{line}" if sys.stderr.isatty() else line)


class _Watcher:
    """A line that follows the training on a terminal; elsewhere only the validations."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.loss, self.score = "", ""

    def __call__(self, status: "StepInfo") -> None:
        if status.loss is not None:
            self.loss = f"loss {status.loss:.3f}  "
        if status.scores is not None:
            miou, protocol = 100 * status.scores.miou, status.scores.protocol
            self.score = f"  |  val mIoU {miou:.1f} ({protocol}) at {status.step:,}"
        finished = status.step == status.num_steps
        if self.terminal:
            end = "\n" if finished else ""
            print(f"\r\x1b[K{self._line(status)}", end=end, file=sys.stderr, flush=True)
        elif status.scores is not None or finished:
            _say(self._line(status))

    def _line(self, status: "StepInfo") -> str:
        left = round((status.num_steps - status.step) * status.seconds_per_step)
        clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}".removeprefix("0:")
        return (
            f" {status.step:,}/{status.num_steps:,}  {status.step / status.num_steps:4.0%}  "
            f"{status.seconds_per_step:.2f} s/step  left {clock}  {self.loss}lr {status.lr:.1e}"
            f"{self.score}"
        )
