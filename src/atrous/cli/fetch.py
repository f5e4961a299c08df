"""`atrous data fetch`: a published data set, from its publisher's servers to the disk."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from atrous.cli.options import Flag
from atrous.errors import InputError

if TYPE_CHECKING:
    from atrous.data.fetch.dataset import Job
    from atrous.data.schema import Description


def fetch(
    name: str,
    /,
    *,
    root: Path,
    split: list[str] | None = None,
    yes: Flag = False,
    mirror: str | None = None,
) -> int:
    """Download a published data set, or the parts of it that are asked for.

    Stopped at any moment, the same command goes on where it was; what is there is left alone.

    Args:
        name: A built-in set (atrous data list), a folder with a dataset.toml, or such a file.
        root: Folder of the set; made if it is not there.
        split: Splits to fetch; all if left out.
        yes: Do not ask before the download.
        mirror: Address that takes the place of the publisher's, as in http://mirror.example/coco.

    Returns:
        The exit code: 1 if the answer is no, 0 otherwise.
    """
    from atrous.cli.progress import say, watched_bytes
    from atrous.data.dataset import Dataset
    from atrous.data.fetch.dataset import fetch as run
    from atrous.data.fetch.dataset import plan

    dataset = Dataset.open(name, root)
    for unknown in set(split or ()) - dataset.splits.keys():
        known = ", ".join(dataset.splits)
        raise InputError(f"{dataset.name}: no split {unknown!r}; it has {known}")
    description = dataset.description
    if not description.archives:
        raise InputError(f"{name}: {_by_hand(description)}")
    jobs = plan(description.archives, root, split, mirror)
    _print_plan(jobs, root)
    if all(job.done for job in jobs):
        print(f"all of it is in {root}; to fetch it again, remove {root / '.atrous'}")
        return 0
    print(f"licence: {dataset.licence}")
    if not yes and not _agreed(jobs, root):
        print("nothing is downloaded")
        return 1
    written = run(jobs, root, watched_bytes, say)
    print("wrote  " + "  ".join(str(path) for path in written))
    chosen = split[0] if split else next(iter(dataset.splits))
    print(f"next: atrous evaluate MODEL {name} --root {root} --split {chosen}")
    return 0


def _by_hand(description: "Description") -> str:
    """Return what to do about a set that cannot be fetched."""
    if (manual := description.manual) is None:
        return "its dataset.toml names no [[archives]]; docs/datasets.md says how to"
    return f"put it together by hand from {manual.page}: {manual.text}"


def _print_plan(jobs: Sequence["Job"], root: Path) -> None:
    from atrous.data.fetch.dataset import space_needed
    from atrous.data.fetch.unpack import free_space

    width = max((len(job.archive.name) for job in jobs), default=0)
    for job in jobs:
        size = "done" if job.done else _bytes(job.size)
        here = f", {_bytes(job.have)} of it here" if job.have else ""
        others = "" if job.done or job.is_all else "; other splits will download it again"
        print(f"{job.archive.name:{width}}  {size:>12}  to {root / job.archive.into}{here}{others}")
    needed, free = space_needed(jobs), free_space(root)
    print(f"disk: needs {_bytes(needed)} or more, {_bytes(free)} are free")


def _bytes(size: int | None) -> str:
    """Return a size in words; None: unknown."""
    if size is None:
        return "size unknown"
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _agreed(jobs: Sequence["Job"], root: Path) -> bool:
    """Ask on the terminal whether to download."""
    todo = [job for job in jobs if not job.done]
    size = sum((job.size or 0) - job.have for job in todo)
    unknown = " or more" * any(job.size is None for job in todo)
    question = f"Download {_bytes(size)}{unknown} to {root}?"
    if not sys.stdin.isatty():
        raise InputError(f"{question} There is no terminal to ask on: say so with --yes")
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
