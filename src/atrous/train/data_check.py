"""What a training makes sure of about its data: there is something to learn, and a resume has it.

A set whose masks hold one class trains to 100 % and has learned nothing, so the classes are counted
before the first step.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import Dataset
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.infer.ordered_map import in_order
from atrous.kernels import usable_cores
from atrous.progress import Notify, Progress, Track, silent
from atrous.taxonomy import IGNORE_INDEX, Taxonomy
from atrous.text import amount

_LEAST_MASKS = 64
"""Read of a split, if it has so many, even where fewer hold all classes."""
_MOST_NAMES = 8
"""Of classes in a line."""


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """Pixels of each class in the masks of a split, or in enough of them to have seen all."""

    masks: int
    """Masks that were read."""
    total: int
    """Masks of the split."""
    unlabelled: int
    """Masks, of those that were read, whose pixels are all ignored."""
    pixels: tuple[int, ...]
    """(K,) of each class."""
    ignored: int
    """Pixels."""

    @property
    def seen(self) -> list[int]:
        """Train ids of the classes that a mask holds."""
        return np.flatnonzero(self.pixels).tolist()

    def line(self, taxonomy: Taxonomy) -> str:
        """Return the counts in one line, the most frequent classes first."""
        labelled = max(1, sum(self.pixels))
        order = sorted(self.seen, key=lambda k: -self.pixels[k])
        shares = [f"{taxonomy.classes[k]} {_percent(self.pixels[k] / labelled)}" for k in order]
        more = len(shares) - _MOST_NAMES
        shown = shares[:_MOST_NAMES] + [f"{more} more"] * (more > 0)
        if self.ignored:
            shown.append(
                f"and ignored {_percent(self.ignored / (self.ignored + sum(self.pixels)))}"
            )
        part = f"{self.masks:,} of " if self.masks < self.total else ""
        masks = amount(self.total, "training mask")
        return f"labels of {part}{masks}: {', '.join(shown)}"


def count_labels(
    samples: Split | Shards, num_classes: int, progress: Progress = silent
) -> LabelCounts:
    """Count the pixels of each class, in threads and in a random order, until all were seen.

    Where a class is in no mask, all masks are read.

    Raises:
        InputError: a mask cannot be read.
    """
    pixels = np.zeros(256, np.int64)
    masks = unlabelled = 0
    order = np.random.default_rng(0).permutation(len(samples)).tolist()

    def read(index: int) -> NDArray[np.int64]:
        return np.bincount(samples.label(index).ravel(), minlength=256)

    with ThreadPoolExecutor(usable_cores()) as readers:
        for counts in in_order(readers, read, order, ahead=2 * usable_cores()):
            pixels += counts
            masks += 1
            unlabelled += not counts[:IGNORE_INDEX].any()
            progress(masks, len(samples))
            if masks >= _LEAST_MASKS and pixels[:num_classes].all():
                break
    return LabelCounts(
        masks=masks,
        total=len(samples),
        unlabelled=unlabelled,
        pixels=tuple(pixels[:num_classes].tolist()),
        ignored=int(pixels[IGNORE_INDEX]),
    )


def checked_labels(
    samples: Split | Shards,
    taxonomy: Taxonomy,
    class_weights: Sequence[float],
    notify: Notify,
    track: Track,
) -> LabelCounts:
    """Count the labels and tell of them; refuse those that teach nothing, warn of what they lack.

    Raises:
        InputError: a mask cannot be read, they hold no class or one, or none of theirs has a
            weight.
    """
    with track("masks counted") as progress:
        counts = count_labels(samples, taxonomy.num_classes, progress)
    name, seen = taxonomy.name, counts.seen
    fix = "check labels.map and labels.ignore in dataset.toml"
    if not seen:
        raise InputError(
            f"{name}: every pixel of its {amount(counts.total, 'training mask')} is ignored; {fix}"
        )
    if len(seen) == 1:
        raise InputError(
            f"{name}: {counts.line(taxonomy)}: one class alone, so there is nothing to tell apart; "
            f"{fix}"
        )
    if class_weights and not any(class_weights[k] for k in seen):
        raise InputError(
            f"{name}: class_weights are 0 for all classes that its training masks hold; "
            "give one of them a weight"
        )
    notify(counts.line(taxonomy))
    if lacking := [c for k, c in enumerate(taxonomy.classes) if k not in seen]:
        notify(f"warning: no training mask holds {_listed(lacking)}, so it is never learned; {fix}")
    if counts.unlabelled:
        notify(
            f"warning: {counts.unlabelled} of {amount(counts.masks, 'training mask')} are ignored "
            f"whole and teach nothing; {fix}"
        )
    return counts


def refuse_one_class(taxonomy: Taxonomy) -> None:
    """Refuse a set that names one class, of which every labelled pixel is.

    Raises:
        InputError: it does.
    """
    if taxonomy.num_classes == 1:
        raise InputError(
            f"{taxonomy.name}: one class, {taxonomy.classes[0]}, so there is nothing to tell it "
            "from; name the background as a class of its own in dataset.toml"
        )


def has_labels(samples: Split | Shards) -> bool:
    """Whether any mask holds a class; the masks are read up to the first that does.

    Raises:
        InputError: a mask cannot be read.
    """
    return any((samples.label(i) != IGNORE_INDEX).any() for i in range(len(samples)))


def identity(dataset: Dataset, samples: Split | Shards) -> dict[str, Any]:
    """Return what tells the data of a training from others, wherever they lie; JSON-ready."""
    held_out = dataset.split("val") if "val" in dataset.splits else None
    return {
        "name": dataset.name,
        "named": dataset.named,
        "samples": len(samples),
        "keys_sha256": _digest(samples),
        "val_keys_sha256": None if held_out is None else _digest(held_out),
        **dataset.bands.to_dict(),
    }


def _digest(samples: Split | Shards) -> str:
    return sha256("\n".join(samples.keys).encode(errors="surrogatepass")).hexdigest()


def check_same_data(
    run: str, theirs: Mapping[str, Any], mine: Mapping[str, Any], notify: Notify
) -> None:
    """Refuse to go on with a run on other data than it was started on.

    A folder that only moved holds the same data. A run of before their keys were recorded is judged
    by the name and the classes.

    Args:
        run: the run's folder, for messages.
        theirs: content of its run.json.
        mine: what this training would write there.
        notify: told where the same data lie elsewhere.

    Raises:
        InputError: the data differ; the line says in what.
    """
    old, new = theirs["data"], mine["data"]
    named = new["named"] or old.get("named", False)  # else the name is the folder's
    classes = [each["taxonomy"]["classes"] for each in (theirs, mine)]
    unlike = [pair for pair in zip_longest(*classes, fillvalue="none") if pair[0] != pair[1]]
    read_as = [(each.get("bands"), each.get("range")) for each in (old, new)]
    for differ, before, now in (
        (named and old["name"] != new["name"], f"the data set {old['name']}", new["name"]),
        (
            unlike,
            f"{len(classes[0])} classes with {_listed([before for before, _ in unlike])}",
            f"{len(classes[1])} with {_listed([now for _, now in unlike])} in that place",
        ),
        (
            old.get("samples", new["samples"]) != new["samples"],
            f"{old.get('samples')} training samples",
            new["samples"],
        ),
        (
            old.get("keys_sha256", new["keys_sha256"]) != new["keys_sha256"],
            "training samples of other keys, or in another order",
            f"those of {new['data']}",
        ),
        (
            old.get("val_keys_sha256", new["val_keys_sha256"]) != new["val_keys_sha256"],
            "validation samples of other keys, or none",  # so that no two scores can be compared
            f"those of {new['data']}",
        ),
        (
            read_as[0] != read_as[1],
            "images of bands {} and range {}".format(*read_as[0]),
            "{} and {}".format(*read_as[1]),
        ),
    ):
        if differ:
            raise InputError(
                f"{run}: was started on {before}, not {now}; resume it on its own data "
                f"({old['data']}), or give another --out"
            )
    if (old["data"], old["root"]) != (new["data"], new["root"]):
        notify(
            f"{new['data']}: taken for the data that {run} was started on ({old['data']}), moved: "
            "name, classes and keys are the same"
        )


def _percent(share: float) -> str:
    return "under 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
