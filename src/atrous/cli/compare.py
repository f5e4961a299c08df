"""`atrous compare`: several models or recipes side by side on one data set."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from atrous.cli.options import Count, Json, Size
from atrous.cli.progress import resolved, say, say_fourth_band, track
from atrous.cli.train import run_training
from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.evaluation import compare as comparing
from atrous.evaluation.evaluate import Truth
from atrous.export.pipeline import bundles_by_runtime
from atrous.files import write_text
from atrous.infer.runtimes.open import OF_BUNDLES, OF_RUNS, check_name
from atrous.kernels import usable_cores
from atrous.metrics.protocols import check_protocol
from atrous.progress import unheard
from atrous.recipes import RECIPES, STUDIES, find
from atrous.report.compare_page import write_page
from atrous.report.comparison import comparison_text
from atrous.run import Run, has_run, last_step
from atrous.text import amount, nearest, printable
from atrous.train.recipe import Recipe
from atrous.weights.hub import zoo_names


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CostOptions:
    """How costs are counted and measured."""

    size: Size | None = None
    """Height and width of the image that costs are counted and measured on; by default those of the
    split's first image."""
    runtime: Annotated[tuple[str, ...], Parameter(show_default=False)] = (
        *("onnxruntime", "openvino", "torch"),
    )
    """Runtimes to measure, by default onnxruntime, openvino and torch if they are installed. For
    the first two, runs are exported into a temporary folder."""
    rounds: Count = 20
    """Number of times that each model labels the image in each runtime."""
    latency: bool = True
    """Measure speed and memory; needs exports and separate processes."""
    threads: Count | None = None
    """Threads of each model; by default as many as this process may run on."""


_COST_DEFAULTS = CostOptions()


def compare(
    *items: str,
    data: str,
    root: Path | None = None,
    split: str = "val",
    out: Path = Path("runs/compare"),
    protocol: str = "pooled",
    score_runtime: tuple[str, ...] = (),
    cost: CostOptions = _COST_DEFAULTS,
    json_output: Json = False,
) -> None:
    """Compare models or recipes on one data set.

    Writes OUT/compare.html, a page with pictures, and OUT/compare.json. A recipe without a finished
    run is trained first, into OUT/NAME; an unfinished run is resumed.

    Args:
        items: Two or more run folders, bundles, names of models, hf://OWNER/NAME, recipes (also
            STUDY/NAME), or studies, which are several recipes.
        data: A built-in set, a folder with a dataset.toml, or such a file.
        root: Folder of a built-in set.
        split: Split of the data set to score.
        out: Folder for the results, and for the runs of recipes.
        protocol: Definition of the scores: pooled, mmseg, detectron2, kazuto, torchvision or
            per-image.
        score_runtime: Runtimes that label the images: each model takes the first that fits its
            file. By default onnxruntime for bundles; for runs torch:cuda where torch finds CUDA,
            and torch elsewhere.
        cost: How costs are counted and measured.
        json_output: Print the JSON document instead of the tables.
    """
    # torch's threads wait asleep: spinning threads would slow the runtime that is timed next.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    check_protocol(protocol)
    for name in (*cost.runtime, *score_runtime):
        check_name(name, (*OF_BUNDLES, *OF_RUNS))
    truth = Truth.of(Dataset.open(data, root), split)
    say_fourth_band(truth.dataset)
    open_model = partial(
        comparing.open_model,
        truth=truth,
        threads=cost.threads or usable_cores(),
        runtimes=score_runtime,
    )
    models = _open_models(items, open_model, truth, data, root, out)
    with tempfile.TemporaryDirectory() as folder:
        paths = {model.name: model.path for model in models}
        runtimes = cost.runtime if cost.latency else ()
        comparison = comparing.compare(
            models,
            truth,
            protocol=protocol,
            size=cost.size,
            files=bundles_by_runtime(paths, runtimes, Path(folder), track),
            rounds=cost.rounds,
            track=track,
        )
    _write_and_print(comparison, models, out, json_output)


def _write_and_print(
    comparison: comparing.Comparison,
    models: Sequence[comparing.Model],
    out: Path,
    json_output: bool,
) -> None:
    document = json.dumps(comparison.to_dict(), indent=2)
    write_text(out / "compare.json", document + "\n")
    predict = {model.name: model.segmenter.predict for model in models}
    scenes = comparing.scenes(comparison, predict, comparison.truth.samples)
    write_page(out / "compare.html", comparison, scenes)
    print(document if json_output else comparison_text(comparison))
    if not json_output:
        print(f"wrote {out / 'compare.html'}  {out / 'compare.json'}")


def _open_models(
    items: Sequence[str],
    open_model: Callable[[str, Path], comparing.Model],
    truth: Truth,
    data: str,
    root: Path | None,
    out: Path,
) -> list[comparing.Model]:
    """Open all models, then train recipes without a finished run."""
    wanted = _wanted(items)
    models = {
        name: open_model(name, item) for name, item in wanted.items() if isinstance(item, Path)
    }
    out.mkdir(parents=True, exist_ok=True)
    recipes = {name: item for name, item in wanted.items() if isinstance(item, Recipe)}
    if recipes:
        say(_study_progress(recipes, out))
    for number, (name, recipe) in enumerate(recipes.items(), start=1):
        announce = partial(say, f"{name}, recipe {number} of {len(recipes)}")
        run = _trained(recipe, truth, data, root, out / name, announce)
        models[name] = open_model(name, run)
    return list(models.values())


def _study_progress(recipes: Mapping[str, Recipe], out: Path) -> str:
    """Return a line: how many recipes are trained, and where the others stopped."""
    begun = {name: out / name for name in recipes if has_run(out / name)}
    trained = [name for name, run in begun.items() if Run.read(run).is_finished(run)]
    parts = [f"{out}: {len(trained)} of {amount(len(recipes), 'recipe')} trained"]
    for name, run in begun.items():
        if name not in trained:
            parts.append(f"{name} stopped after step {last_step(run) or 0:,}")
    return "; ".join(parts)


def _wanted(items: Sequence[str]) -> dict[str, Path | Recipe]:
    """Return the models and recipes by their names in the tables: the shortest unique ones.

    Where a name has several meanings: a shipped model, then a path, then a recipe.
    """
    found: list[tuple[str, str, Path | Recipe]] = []  # short name, long name, item
    for item in items:
        path = Path(item)
        is_model = item in zoo_names() or path.is_file() or has_run(path)
        if not is_model and item in STUDIES:
            members = STUDIES[item]().items()
            found += [(name, f"{item}/{name}", recipe) for name, recipe in members]
        elif not is_model and (item in RECIPES or item.partition("/")[0] in STUDIES):
            found.append((path.name, item, find(item)))
        elif not is_model and (near := nearest(item, [*zoo_names(), *RECIPES, *STUDIES])):
            raise InputError(f"{item}: no model, recipe or study. Did you mean {near}?")
        else:
            path = resolved(item)
            name = path.stem if path.suffix == ".onnx" else path.resolve().name
            found.append((printable(name), printable(item), path))
    times = Counter(short for short, _, _ in found)
    wanted = {short if times[short] == 1 else long: model for short, long, model in found}
    if not 2 <= len(wanted) == len(found):
        raise InputError("give two or more different models, recipes or studies")
    return wanted


def _trained(
    recipe: Recipe,
    truth: Truth,
    data: str,
    root: Path | None,
    run: Path,
    announce: Callable[[], None],
) -> Path:
    """Train by `recipe` into the folder `run`, unless it is finished; return `run`."""
    from atrous.train.provenance import check_same_data, describe_data, recipe_of

    theirs = Run.read(run) if has_run(run) else None
    if theirs is None or not theirs.is_finished(run) or recipe_of(run, theirs) != recipe:
        announce()
        run_training(recipe, run, data, root, resume=theirs is not None)
        return run
    mine = describe_data(truth.dataset, data, None if root is None else str(root))
    check_same_data(run, theirs, mine, truth.dataset.taxonomy.classes, unheard)
    return run
