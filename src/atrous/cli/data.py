"""`atrous data`: look at data sets, fetch, check and pack them, and make one to learn with."""

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from atrous.cli.options import Count, Flag, Json
from atrous.cli.progress import say, track, track_bytes
from atrous.data.dataset import Dataset, builtin_names
from atrous.errors import InputError
from atrous.text import amount, bytes_text

if TYPE_CHECKING:  # the doctor, which is looked up here, need not load it
    from atrous.data.fetch.dataset import Job

data = App(name="data", help="Look at data sets, fetch, check or pack them, or make one.")
data.command(
    "atrous.cli.doctor:doctor",  # imported when it is called; until then, this line is its help
    name="doctor",
    help="Say what is wrong with a folder of labelled images, and describe it.",
)


data.command(
    "atrous.cli.data_export:data_export",
    name="export",
    help="Write labels in the format of an annotation tool, or of another program.",
)


@data.command(name="list")
def list_(*, json_output: Json = False) -> None:
    """List the data sets that atrous reads as they were published.

    Args:
        json_output: Print one JSON document instead of the table.
    """
    datasets = [Dataset.open(name, Path()) for name in builtin_names()]
    if json_output:
        document = [
            {
                "name": dataset.name,
                "classes": list(dataset.taxonomy.classes),
                "splits": list(dataset.splits),
                "licence": dataset.licence,
                "source": dataset.source,
            }
            for dataset in datasets
        ]
        print(json.dumps(document, indent=2))
        return
    for dataset in datasets:
        splits = ", ".join(dataset.splits)
        print(f"{dataset.name:21} {dataset.taxonomy.num_classes:3} classes  {splits}")
        print(textwrap.fill(dataset.licence, 80, initial_indent="  ", subsequent_indent="  "))
    print("next: atrous data fetch NAME --root FOLDER; docs/sets.md tells what each holds")
    print("Your own folder: atrous data doctor FOLDER")


@data.command
def shapes(folder: Path, /, *, train: int = 200, val: int = 40, seed: int = 0) -> None:
    """Write a small generated data set: coloured shapes on a noisy ground.

    Args:
        folder: Where; made if it is not there.
        train: Images to train on.
        val: Images to validate on.
        seed: Another seed, other images.
    """
    from atrous.data.shapes import write_shapes

    write_shapes(folder, train, val, seed=seed)
    print(f"wrote {folder}/dataset.toml with {train} and {val} images of 4 classes")
    print(f"next: atrous train --data {folder} --backbone resnet18 --no-pretrained --num-steps 200")


@data.command
def pack(
    data: str,
    /,
    *,
    out: Path,
    split: list[str] | None = None,
    root: Path | None = None,
    shard_size_mb: Count = 128,
) -> None:
    """Pack a data set into shards: tar files, for training at scale.

    Shards are read fast from any disk. Images are packed as they are, masks as train ids, and each
    sample is checked. Train on the folder as on any other: atrous train --data OUT. webdataset and
    tar read it, too.

    Args:
        data: A built-in set, a folder with a dataset.toml, or such a file.
        out: The new folder.
        split: Splits to pack; all that have masks if left out.
        root: The folder of a built-in set.
        shard_size_mb: Size of a shard, in millions of bytes.
    """
    from atrous.data.shards.pack import pack as write_shards

    dataset = Dataset.open(data, root)
    with_masks = [name for name, files in dataset.splits.items() if files.has_masks]
    names = list(dict.fromkeys(split or with_masks))
    with track("samples") as progress:
        packed = write_shards(dataset, names, out, shard_size_mb * 10**6, progress)
    for part in packed:
        left_out = f", {part.missing} of its list are not here" if part.missing else ""
        samples, shards = amount(part.samples, "sample"), amount(part.shards, "shard")
        print(f"  {part.split:<10} {samples} in {shards}{left_out}")
    print(f"wrote {out}")
    print(f"next: atrous train --data {out}")


@data.command
def fetch(
    name: str,
    /,
    *,
    root: Path,
    split: list[str] | None = None,
    yes: Flag = False,
    mirror: str | None = None,
) -> int:
    """Download a published data set, or some of its splits.

    If the download stops, the same command resumes it; files that exist are not changed.

    Args:
        name: A built-in set (atrous data list), a folder with a dataset.toml, or such a file.
        root: Folder of the set; made if it is not there.
        split: Splits to fetch; all if left out.
        yes: Do not ask before the download.
        mirror: Address that replaces the publisher's, such as http://mirror.example/coco.

    Returns:
        The exit code: 1 if the answer is no, 0 otherwise.
    """
    from atrous.data.fetch.dataset import fetch as fetch_archives
    from atrous.data.fetch.dataset import plan

    dataset = Dataset.open(name, root)
    for unknown in set(split or ()) - dataset.splits.keys():
        known = ", ".join(dataset.splits)
        raise InputError(f"{dataset.name}: no split {unknown!r}; it has {known}")
    description = dataset.description
    if not description.archives:
        fix = "its dataset.toml names no [[archives]]; docs/datasets.md says how to"
        if (manual := description.manual) is not None:
            fix = f"put it together by hand from {manual.page}: {manual.text}"
        raise InputError(f"{name}: {fix}")
    jobs = plan(description.archives, root, split, mirror)
    _print_plan(jobs, root)
    if all(job.done for job in jobs):
        print(f"all of it is in {root}; to fetch it again, remove {root / '.atrous'}")
        return 0
    print(f"licence: {dataset.licence}")
    if not yes and not _agreed(jobs, root):
        print("nothing is downloaded")
        return 1
    written = fetch_archives(jobs, root, track_bytes, say)
    print("wrote  " + "  ".join(str(path) for path in written))
    chosen = split[0] if split else next(iter(dataset.splits))
    print(f"next: atrous evaluate MODEL {name} --root {root} --split {chosen}")
    return 0


def _print_plan(jobs: "Sequence[Job]", root: Path) -> None:
    from atrous.data.fetch.dataset import space_needed
    from atrous.data.fetch.unpack import free_space

    width = max(len(job.archive.name) for job in jobs)
    for job in jobs:
        size = "done" if job.done else bytes_text(job.size)
        here = f", {bytes_text(job.have)} of it here" if job.have else ""
        others = "" if job.done or job.is_all else "; other splits will download it again"
        print(f"{job.archive.name:{width}}  {size:>12}  to {root / job.archive.into}{here}{others}")
    needed, free = space_needed(jobs), free_space(root)
    print(f"disk: needs {bytes_text(needed)} or more, {bytes_text(free)} are free")


def _agreed(jobs: "Sequence[Job]", root: Path) -> bool:
    """Ask on the terminal whether to download."""
    todo = [job for job in jobs if not job.done]
    size = sum((job.size or 0) - job.have for job in todo)
    unknown = " or more" * any(job.size is None for job in todo)
    question = f"Download {bytes_text(size)}{unknown} to {root}?"
    if not sys.stdin.isatty():
        raise InputError(f"{question} There is no terminal to answer on: add --yes")
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
