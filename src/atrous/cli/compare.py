"""`atrous compare`: several models or recipes side by side on one data set."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter

from atrous.errors import InputError
from atrous.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from atrous.data.dataset import Dataset
    from atrous.data.shards.read import Shards
    from atrous.data.split import Split
    from atrous.evaluation.compare import Weighing
    from atrous.evaluation.score import Tally
    from atrous.infer.segmenter import Segmenter
    from atrous.train.recipe import Recipe

RUNTIMES = ("onnxruntime", "openvino", "torch")


def compare(
    *items: str,
    data: str,
    root: Path | None = None,
    split: str = "val",
    out: Path = Path("runs/compare"),
    protocol: str = "pooled",
    size: Annotated[tuple[int, int] | None, Parameter(negative=())] = None,
    runtime: Annotated[
        tuple[str, ...], Parameter(consume_multiple=True, negative=(), show_default=False)
    ] = RUNTIMES,
    rounds: int = 20,
    latency: bool = True,
    threads: int | None = None,
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Weigh models or recipes against each other on one data set.

    Writes OUT/compare.html, a page with pictures, and OUT/compare.json. A recipe that was not
    trained yet is trained first, into OUT/NAME; where that was begun, it goes on.

    Args:
        items: Two or more run folders, bundles, shipped models, recipes (also STUDY/NAME), or
            studies, which are several recipes.
        data: A built-in set, a folder with a dataset.toml, or such a file.
        root: The folder of a built-in set.
        split: Split of the data set to score.
        out: Folder for the results, and for the runs of recipes.
        protocol: How the score is computed: pooled, mmseg, detectron2, kazuto, torchvision or
            per-image.
        size: Height and width of the image that costs are counted and measured on; by default those
            of the split's first image.
        runtime: Runtimes to measure, by default onnxruntime, openvino and torch where they are
            installed. For the first two, runs are exported into a temporary folder.
        rounds: How often each model labels the image in each runtime.
        latency: Whether speed and memory are measured, which takes exports and processes.
        threads: How many to use; by default as many as this process may run on.
        json_output: Print the JSON document instead of the tables.
    """
    # Threads of torch that wait asleep: those that spin take the time of the runtime after them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from atrous.cli.rasters import say_fourth_band
    from atrous.cli.weighed import tables
    from atrous.data.dataset import Dataset
    from atrous.evaluation.compare import scenes
    from atrous.files import replacing
    from atrous.kernels import usable_cores
    from atrous.metrics.protocols import check_protocol
    from atrous.report.compare_page import write_page

    # Whatever can be refused is refused before the work.
    check_protocol(protocol)
    _check_runtimes(runtime)
    threads = usable_cores() if threads is None else threads
    if min(rounds, threads, *(size or ())) < 1:
        raise InputError("--rounds, --threads and --size take numbers of 1 or more")
    dataset = Dataset.open(data, root)
    truth = _Truth(dataset, split, dataset.split(split), protocol)
    say_fourth_band(dataset)
    wanted = _wanted(items)
    paths = {name: model for name, model in wanted.items() if isinstance(model, Path)}
    opened = {name: _open(name, path, dataset, threads) for name, path in paths.items()}
    out.mkdir(parents=True, exist_ok=True)
    for name, model in wanted.items():
        if not isinstance(model, Path):
            paths[name] = _trained(model, dataset, data, root, out / name)
            opened[name] = _open(name, paths[name], dataset, threads)

    weighing = _weigh(
        paths, opened, truth, _image(truth.samples, size), runtime if latency else (), rounds
    )
    document = json.dumps(weighing.to_dict(), indent=2)
    with replacing(out / "compare.json") as temporary:
        temporary.write_text(document + "\n", "utf-8")
    predict = {name: segmenter.predict for name, segmenter in opened.items()}
    write_page(out / "compare.html", weighing, scenes(weighing, predict, truth.samples))
    if json_output:
        print(document)
        return
    print("\n".join(tables(weighing)))
    print(f"wrote {out / 'compare.html'}  {out / 'compare.json'}")


class _Truth(NamedTuple):
    """What models are scored on."""

    dataset: "Dataset"
    split: str
    samples: "Split | Shards"
    protocol: str


def _weigh(
    paths: Mapping[str, Path],
    opened: Mapping[str, "Segmenter"],
    truth: _Truth,
    image: "NDArray[np.uint8]",  # (H, W, C)
    runtimes: Sequence[str],
    rounds: int,
) -> "Weighing":
    """Score all models, then count and measure what they cost on `image`."""
    import numpy as np

    from atrous.cli.progress import watched
    from atrous.evaluation.compare import Weighed, Weighing
    from atrous.evaluation.cost import cost_of
    from atrous.evaluation.speed import measure
    from atrous.export.forms import files_by_runtime
    from atrous.infer.runtime_selection import processor, versions

    size, dataset = (image.shape[0], image.shape[1]), truth.dataset
    threads = next(iter(opened.values())).runtime.threads
    tallies = {name: _tally(segmenter, truth.samples, name) for name, segmenter in opened.items()}
    with tempfile.TemporaryDirectory() as folder:
        files = files_by_runtime(paths, runtimes, Path(folder), watched)
        speeds, lacking = measure(files, image, threads=threads, rounds=rounds, track=watched)
    models = [
        Weighed(
            name=name,
            model=opened[name].description,
            tally=tallies[name],
            protocol=truth.protocol,
            cost=cost_of(path, size),
            speeds=speeds.get(name, {}),
        )
        for name, path in paths.items()
    ]
    return Weighing(
        data=dataset.name,
        split=truth.split,
        missing=truth.samples.missing,
        taxonomy=dataset.taxonomy,
        protocol=truth.protocol,
        size=size,
        machine={"processor": processor(), "threads": threads, **versions()},
        lacking=lacking,
        models=sorted(models, key=lambda model: -np.nan_to_num(model.scores.miou, nan=-1)),
    )


def _check_runtimes(names: Sequence[str]) -> None:
    from atrous.infer.runtimes.open import OF_BUNDLES, OF_RUNS

    known = (*OF_BUNDLES, *OF_RUNS)
    for name in names:
        if name not in known:
            raise InputError(f"--runtime {name}: no such runtime. There are: {', '.join(known)}")


def _image(samples: "Split | Shards", size: tuple[int, int] | None) -> "NDArray[np.uint8]":
    """The first image (H, W, C), resized if a size is given."""
    from PIL import Image

    from atrous.images.photos import resized

    image = samples[0].image
    return image if size is None else resized(image, size, Image.Resampling.BICUBIC)


def _wanted(items: Sequence[str]) -> "dict[str, Path | Recipe]":
    """What is to be compared, by the name that it has in the tables: the shortest that is its own.

    A path to a model goes before a recipe of that name, and a shipped name before both.
    """
    from atrous.infer.bundle import zoo_names
    from atrous.recipes import RECIPES, STUDIES, find

    found: list[tuple[str, str, Path | Recipe]] = []  # short name, long name, what it is
    for item in items:
        path = Path(item)
        if item in zoo_names() or path.is_file() or (path / "run.json").is_file():
            found.append(_model(item))
        elif item in STUDIES:
            members = STUDIES[item]().items()
            found += [(name, f"{item}/{name}", recipe) for name, recipe in members]
        elif item in RECIPES or item.partition("/")[0] in STUDIES:
            found.append((path.name, item, find(item)))
        elif near := get_close_matches(item, [*zoo_names(), *RECIPES, *STUDIES], n=1):
            raise InputError(f"{item}: no model, recipe or study. Did you mean {near[0]}?")
        else:
            found.append(_model(item))
    times = Counter(short for short, _, _ in found)
    wanted = {short if times[short] == 1 else long: model for short, long, model in found}
    if not 2 <= len(wanted) == len(found):
        raise InputError("give two or more different models, recipes or studies")
    return wanted


def _model(item: str) -> tuple[str, str, Path]:
    from atrous.cli.convert import fetched
    from atrous.infer.bundle import find_model

    path = find_model(fetched(item))
    name = path.stem if path.suffix == ".onnx" else path.resolve().name
    return printable(name), printable(item), path


def _open(name: str, path: Path, dataset: "Dataset", threads: int) -> "Segmenter":
    """Open a model that knows the classes of the data set, in its plain runtime."""
    from atrous.cli.evaluate import check_same_classes
    from atrous.infer.runtime_selection import plain_runtime
    from atrous.infer.segmenter import load

    segmenter = load(path, threads, plain_runtime(path))
    classes = segmenter.metadata.taxonomy.classes
    check_same_classes(classes, dataset.taxonomy.classes, name, dataset.name)
    return segmenter


def _trained(recipe: "Recipe", dataset: "Dataset", data: str, root: Path | None, run: Path) -> Path:
    """Train by `recipe` into the folder `run`, if that was not done already; return `run`.

    Raises:
        InputError: it was done on other data.
    """
    from atrous.cli.train import train_and_tell
    from atrous.train.data_check import check_same_data, identity

    if not _is_finished(run, recipe):
        train_and_tell(recipe, data, root, run, resume=(run / "run.json").exists())
        return run
    theirs = json.loads((run / "run.json").read_text("utf-8"))
    place = {"data": data, "root": None if root is None else str(root)}
    mine = identity(dataset, dataset.split("train")) | place
    check_same_data(
        str(run), theirs, {"data": mine, "taxonomy": dataset.taxonomy.to_dict()}, lambda line: None
    )
    return run


def _is_finished(run: Path, recipe: "Recipe") -> bool:
    """Whether `run` holds a training by this very recipe that reached its last step."""
    from atrous.train.recipe import Recipe

    try:
        theirs = json.loads((run / "run.json").read_text("utf-8"))["recipe"]
        last = (run / "log.jsonl").read_text("utf-8").splitlines()[-1]
        reached = json.loads(last)["step"] == recipe.num_steps
    except (OSError, ValueError, LookupError):  # not begun, or cut off
        return False
    return reached and (run / "best.safetensors").is_file() and Recipe.from_dict(theirs) == recipe


def _tally(segmenter: "Segmenter", samples: "Split | Shards", name: str) -> "Tally":
    """Label and count all images."""
    from atrous.cli.progress import watched
    from atrous.evaluation.score import Tally, count, predicted
    from atrous.metrics import Boundary, Confusion

    num_classes = segmenter.metadata.taxonomy.num_classes
    tally = Tally(Confusion(num_classes), Boundary(num_classes))
    every = range(len(samples))
    images = predicted(lambda image: (segmenter.predict(image), None), samples, every)
    with watched(f"images, {name}") as progress:
        count(images, tally, len(samples), progress)
    return tally
