"""Origin of a run: recipe, data, software; a resume must have the same recipe and data."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path

from msgspec import UNSET, structs

from atrous import __version__
from atrous.data.dataset import Dataset
from atrous.data.sample import Samples
from atrous.data.split import Split
from atrous.decode import convert
from atrous.errors import InputError
from atrous.models.bands import of_bands
from atrous.models.catalogue import normalization
from atrous.progress import Notify
from atrous.run import Normalization, Run, RunData, check_free, has_run
from atrous.text import some
from atrous.train import checkpoint
from atrous.train.data_check import MAX_NAMES, LabelCounts
from atrous.train.recipe import Recipe

_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow")
"""Packages that a result depends on."""
FREE_TO_CHANGE = {"num_workers", "keep_decoded", "cuda_graph", "teacher", "unlabelled"}
"""Fields of a recipe that change no crop and no bit of a step, so that a resume may have others.

Teachers, and images without masks, may have moved: they are compared by weights and by keys.
"""


def describe(
    recipe: Recipe,
    dataset: Dataset,
    data: str,
    root: str | None,
    left_over: Sequence[str],
    teachers: Sequence[str] = (),
    plan: Sequence[tuple[str, str]] = (),
    unlabelled: Sequence[Split] = (),
) -> Run:
    """Return the run.json of a new training, without the counts of its labels.

    Args:
        recipe: of the training.
        dataset: its data.
        data: name of a built-in set, folder or dataset.toml, as it was given.
        root: the folder of a built-in set.
        left_over: tensors of a given backbone checkpoint that were not used.
        teachers: digests of the weights of the recipe's teachers.
        plan: options that a plan chose, and the reason of each.
        unlabelled: images without masks.
    """
    colors = dataset.split("train").channels().colors
    mean, std = (of_bands(values, colors) for values in normalization(recipe.backbone))
    packages = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return Run(
        model=recipe.model_options(dataset.taxonomy.num_classes, len(colors)),
        normalization=Normalization(mean=mean, std=std),
        taxonomy=dataset.taxonomy,
        data=describe_data(dataset, data, root),
        recipe=recipe.to_dict(),
        plan=list(plan),
        versions={"python": platform.python_version(), "atrous": __version__, **packages},
        commit=_commit(),
        left_over=list(left_over),
        teachers=list(teachers),
        unlabelled=[keys_digest(images) for images in unlabelled],
    )


def describe_data(dataset: Dataset, data: str, root: str | None) -> RunData:
    """Describe the data of a training: name and keys, which identify them, and their place."""
    samples = dataset.split("train")
    held_out = dataset.split("val") if "val" in dataset.splits else None
    return RunData(
        name=dataset.name,
        named=bool(dataset.description.name),
        samples=len(samples),
        keys_sha256=keys_digest(samples),
        val_keys_sha256=None if held_out is None else keys_digest(held_out),
        bands=list(dataset.bands.numbers) or UNSET,
        range=dataset.bands.value_range or UNSET,
        licence=dataset.licence,
        source=dataset.source,
        data=data,
        root=root,
        bands_of=samples.channels().of,
    )


def claim(
    out: Path, run: Run, resume: bool, notify: Notify, count: Callable[[], LabelCounts]
) -> None:
    """Write run.json for a new run, or check that the run in `out` has this recipe and these data.

    Args:
        out: the run folder.
        run: from `describe`.
        resume: whether a run may be in `out`.
        notify: called if the same data have moved.
        count: counts the labels of a new run.
    """
    for leftover in out.rglob(".*.tmp*"):  # written by a process that was killed
        leftover.unlink()
    if not has_run(out):
        if resume and (out / checkpoint.NAME).exists():
            raise InputError(
                f"{out}: no run.json, so what {checkpoint.NAME} was trained on is unknown; take a "
                "copy of the run, or give another --out"
            )
        structs.replace(run, labels=asdict(count())).write(out)
        return
    if not resume:
        check_free(out)
    theirs = Run.read(out)
    check_same_recipe(out, theirs, Recipe.from_dict(run.recipe))
    if theirs.teachers != run.teachers:
        raise InputError(
            f"{out}: was started with teachers of other weights, or in another order; resume it "
            "with its own, or give another --out"
        )
    if theirs.unlabelled != run.unlabelled:
        raise InputError(
            f"{out}: was started with other images without masks, or in another order; resume it "
            "with its own (--unlabelled, if they have moved), or give another --out"
        )
    check_same_data(out, theirs, run.data, run.taxonomy.classes, notify)


def check_same_recipe(out: Path, theirs: Run, recipe: Recipe) -> None:
    """Refuse to resume the run in `out`, whose run.json is `theirs`, with another recipe.

    Class weights that are "auto" may be any: only counts of the labels say what they are.
    """
    old, new = recipe_of(out, theirs).to_dict(), recipe.to_dict()
    free = FREE_TO_CHANGE | ({"class_weights"} if recipe.class_weights == "auto" else set())
    if changed := [name for name in new if new[name] != old[name] and name not in free]:
        name = changed[0]
        raise InputError(
            f"{out}: was started with {name} {old[name]}, not {new[name]}; "
            "resume it without that option, or give another --out"
        )


def recorded_counts(folder: Path) -> LabelCounts | None:
    """Return the counts of the labels that a run records; None if there is none, or an older."""
    labels = Run.read(folder).labels if has_run(folder) else {}
    if "labelled" not in labels:
        return None
    return convert(labels, LabelCounts, folder / "run.json", "start again without it")


def recipe_of(folder: Path, run: Run) -> Recipe:
    """Return the recipe of the training in a run folder."""
    if not run.recipe:
        raise InputError(
            f"{folder}: holds imported weights, not a training; give another --out, and "
            f"--init {folder} to start from them"
        )
    try:
        return Recipe.from_dict(run.recipe)
    except InputError as error:
        raise InputError(f"{folder}: {error}; resume it with the atrous that wrote it") from None


def check_same_data(
    out: Path, theirs: Run, data: RunData, classes: Sequence[str], notify: Notify
) -> None:
    """Refuse to resume a run on other data; data that only moved are the same.

    Args:
        out: the run folder, for messages.
        theirs: its run.json.
        data: the data of this training.
        classes: class names of these data.
        notify: called if the same data have moved.
    """
    if theirs.data.data is UNSET:
        raise InputError(
            f"{out}: its run.json does not say what it was trained on; take a copy of the run"
        )
    for before, now in _differences(theirs, data, classes):
        raise InputError(
            f"{out}: was started on {before}, not {now}; resume it on its own data "
            f"({theirs.data.data}), or give another --out"
        )
    if (theirs.data.data, theirs.data.root) != (data.data, data.root):
        notify(
            f"{data.data}: taken for the data that {out} was started on ({theirs.data.data}), "
            "moved: name, classes and keys are the same"
        )


def _differences(
    theirs: Run, new: RunData, classes: Sequence[str]
) -> Iterator[tuple[str, str | int]]:
    """Yield each difference: before, now. Fields that an older run.json lacks are skipped."""
    old, old_classes = theirs.data, theirs.taxonomy.classes
    if (old.named or new.named) and old.name != new.name:  # other names are those of folders
        yield f"the data set {old.name}", new.name
    pairs = zip_longest(old_classes, classes, fillvalue="none")
    if unlike := [pair for pair in pairs if pair[0] != pair[1]]:
        before, now = (some(names, MAX_NAMES) for names in zip(*unlike, strict=True))
        yield (
            f"{len(old_classes)} classes with {before}",
            f"{len(classes)} with {now} in that place",
        )
    if old.samples not in (UNSET, new.samples):
        yield f"{old.samples} training samples", f"{new.samples}"
    if old.keys_sha256 not in (UNSET, new.keys_sha256):
        yield "training samples of other keys, or in another order", f"those of {new.data}"
    if old.val_keys_sha256 not in (UNSET, new.val_keys_sha256):  # else scores are not comparable
        yield "validation samples of other keys, or none", f"those of {new.data}"
    if old.bands_text() != new.bands_text():
        yield f"images of {old.bands_text()}", new.bands_text()


def keys_digest(samples: Samples) -> str:
    """Return a digest of the samples' keys, in order."""
    return sha256("\n".join(samples.keys).encode(errors="surrogatepass")).hexdigest()


def _commit() -> str | None:
    """Return the git commit of the source, with "+" if changed since; None outside of git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails in another's repository
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
