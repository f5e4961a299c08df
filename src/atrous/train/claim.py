"""run.json: what a run folder says about its run, and whether a training may go on in it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atrous.data.dataset import Dataset
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.images.bands import Channels
from atrous.models.bands import of_bands
from atrous.models.catalogue import normalization
from atrous.progress import Notify
from atrous.train import checkpoint
from atrous.train.data_check import LabelCounts, check_same_data, identity
from atrous.train.recipe import Recipe


def describe(
    recipe: Recipe,
    dataset: Dataset,
    samples: Split | Shards,
    data: str,
    root: str | None,
    channels: Channels,
) -> dict[str, Any]:
    """Return the content of run.json, but for the counts of the labels."""
    colors = channels.colors
    mean, std = (of_bands(values, colors) for values in normalization(recipe.backbone))
    return {
        "format": 1,
        "model": recipe.model_options(dataset.taxonomy.num_classes, len(colors)),
        "normalization": {"mean": list(mean), "std": list(std)},
        "taxonomy": dataset.taxonomy.to_dict(),
        "data": {
            **identity(dataset, samples),
            "licence": dataset.licence,
            "source": dataset.source,
            "data": data,
            "root": root,
            "bands_of": channels.of,
        },
        "recipe": recipe.to_dict(),
        "versions": checkpoint.versions(),
        "commit": checkpoint.commit(),
    }


def claim(
    out: Path,
    description: Mapping[str, Any],
    resume: bool,
    notify: Notify,
    count: Callable[[], LabelCounts],
) -> None:
    """Write run.json; go on with the run that the folder holds, if its recipe and data are these.

    Args:
        out: the run's folder.
        description: from `describe`.
        resume: go on with a run.
        notify: told where the data of a run lie elsewhere now.
        count: counts the labels; called for a new run alone, whose run.json keeps them.

    Raises:
        InputError: the folder holds a run and `resume` is not set, or it is not this one.
    """
    path = out / "run.json"
    for leftover in out.glob(".*.tmp*"):  # of a process that was killed while it wrote
        leftover.unlink()
    if not path.exists():
        if resume and (out / "last.pt").exists():
            raise InputError(
                f"{path}: no such file, so what last.pt was trained on is unknown; take a copy of "
                "the run, or give another --out"
            )
        checkpoint.write_json(path, {**description, "labels": asdict(count())})
        return
    if not resume:
        raise InputError(f"{out}: holds a run already; add --resume, or give another --out")
    run = checkpoint.read_json(path)
    try:
        theirs = Recipe.from_dict(run["recipe"]).to_dict()
        mine = Recipe.from_dict(description["recipe"]).to_dict()
        if changed := [name for name in mine if mine[name] != theirs[name]]:
            raise InputError(
                f"{out}: was started with {changed[0]} {theirs[changed[0]]}, "
                f"not {mine[changed[0]]}; resume it without that option, or give another --out"
            )
        for name in ("bands", "range"):
            was, now = (table["data"].get(name) for table in (run, description))
            if was != now:
                raise InputError(
                    f"{out}: was started with {name} {was}, not {now}; give another --out"
                )
        check_same_data(str(out), run, description, notify)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error}); take a copy of the run") from None
