"""Checks of the training data before the first step.

Training on masks of a single class reaches 100 % and learns nothing, so the labels are counted
first.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import Dataset
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.images.bands import Bands
from atrous.infer.ordered_map import in_order
from atrous.kernels import usable_cores
from atrous.models.bands import Colors
from atrous.progress import Notify, Progress, Track, silent
from atrous.taxonomy import IGNORE_INDEX, Taxonomy
from atrous.text import amount, percent_share, some

_MIN_MASKS = 64
"""Fewest masks of a split that are read, even if fewer hold all classes."""
MAX_NAMES = 8
"""Most classes that a message names."""
_COLORS = ("red", "green", "blue")


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """Pixels of each class in the masks of a split, or in enough masks to have seen all classes."""

    masks: int
    """Number of masks that were read."""
    total: int
    """Number of masks of the split."""
    unlabelled: int
    """Number of masks read whose pixels are all ignored."""
    pixels: tuple[int, ...]
    """(K,) pixels of each class."""
    ignored: int
    """Number of ignored pixels."""
    labelled: tuple[int, ...] = ()
    """(K,) labelled pixels of the masks that hold each class; older runs lack it."""

    @property
    def seen(self) -> list[int]:
        """Train ids of the classes that a mask holds."""
        return np.flatnonzero(self.pixels).tolist()

    def weights(self) -> tuple[float, ...]:
        """Return (K,) class weights by median frequency balancing.

        The frequency of a class is its share of the masks that hold it, and its weight the median
        frequency over its own (Eigen and Fergus 2015, section 6.3). A class that no mask holds
        has 1.
        """
        frequency = np.array(self.pixels) / np.maximum(self.labelled, 1)
        median = np.median(frequency[self.seen])
        return tuple((median / np.where(frequency > 0, frequency, median)).tolist())

    def rarity(self) -> tuple[float, ...]:
        """Return (K,) one over the share of each class; 0 for one that no mask holds."""
        total = sum(self.pixels)
        return tuple(total / count if count else 0.0 for count in self.pixels)

    def line(self, taxonomy: Taxonomy) -> str:
        """Return the counts in one line, the most frequent classes first."""
        labelled = sum(self.pixels)
        order = sorted(self.seen, key=lambda k: -self.pixels[k])
        shares = [
            f"{taxonomy.classes[k]} {percent_share(self.pixels[k] / labelled)}" for k in order
        ]
        more = len(shares) - MAX_NAMES
        shown = shares[:MAX_NAMES] + [f"{more} more"] * (more > 0)
        if self.ignored:
            shown.append(f"and ignored {percent_share(self.ignored / (self.ignored + labelled))}")
        part = f"{self.masks:,} of " if self.masks < self.total else ""
        return f"labels of {part}{amount(self.total, 'training mask')}: {', '.join(shown)}"


def splits_of(dataset: Dataset, notify: Notify) -> tuple[Split | Shards, Split | Shards | None]:
    """Return the splits train and val; None for a val without labels, or if there is none."""
    taxonomy = dataset.taxonomy
    if taxonomy.num_classes == 1:
        raise InputError(
            f"{taxonomy.name}: one class, {taxonomy.classes[0]}, so there is nothing to tell it "
            "from; name the background as a class of its own in dataset.toml"
        )
    samples = dataset.split("train")
    held_out = dataset.split("val") if "val" in dataset.splits else None
    if held_out is not None:
        held_out[0]  # fails now, instead of at the first validation, if files cannot be read
        if not has_labels(held_out):
            notify("warning: no mask of split val holds a class, so nothing is validated")
            held_out = None
    for line in (dataset.fourth_band[1], _bands_line(dataset.bands, samples.channels().colors)):
        if line:
            notify(line)
    return samples, held_out


def has_labels(samples: Split | Shards) -> bool:
    """Return whether any mask holds a class; masks are read up to the first that does."""
    return any((samples.label(i) != IGNORE_INDEX).any() for i in range(len(samples)))


def checked_labels(
    samples: Split | Shards,
    taxonomy: Taxonomy,
    class_weights: Sequence[float] | Literal["auto"],
    notify: Notify,
    track: Track,
) -> LabelCounts:
    """Count the labels; refuse masks that nothing can be learned from; warn of missing classes."""
    with track("masks counted") as progress:
        counts = count_labels(samples, taxonomy.num_classes, progress)
    seen, fix = counts.seen, "check labels.map and labels.ignore in dataset.toml"
    fault = ""
    if not seen:
        fault = f"every pixel of its {amount(counts.total, 'training mask')} is ignored; {fix}"
    elif len(seen) == 1:
        line = counts.line(taxonomy)
        fault = f"{line}: one class alone, so there is nothing to tell apart; {fix}"
    elif class_weights not in ((), "auto") and not any(class_weights[k] for k in seen):
        fault = (
            "class_weights are 0 for all classes that its training masks hold; "
            "give one of them a weight"
        )
    if fault:
        raise InputError(f"{taxonomy.name}: {fault}")
    notify(counts.line(taxonomy))
    if absent := [name for k, name in enumerate(taxonomy.classes) if k not in seen]:
        learned = "it is" if len(absent) == 1 else "they are"
        names = some(absent, MAX_NAMES)
        notify(f"warning: no training mask holds {names}, so {learned} never learned; {fix}")
    if counts.unlabelled:
        notify(
            f"warning: {counts.unlabelled} of {amount(counts.masks, 'training mask')} are ignored "
            f"whole and teach nothing; {fix}"
        )
    return counts


def count_labels(
    samples: Split | Shards, num_classes: int, progress: Progress = silent
) -> LabelCounts:
    """Count the pixels of each class, in threads and in random order, until all classes are seen.

    If no mask holds a class, all masks are read.
    """
    pixels, labelled = np.zeros(256, np.int64), np.zeros(256, np.int64)
    masks = unlabelled = 0
    order = np.random.default_rng(0).permutation(len(samples)).tolist()

    def read(index: int) -> NDArray[np.int64]:
        return np.bincount(samples.label(index).ravel(), minlength=256)

    with ThreadPoolExecutor(usable_cores()) as readers:
        for counts in in_order(readers, read, order, ahead=2 * usable_cores()):
            pixels += counts
            labelled += (counts > 0) * counts[:num_classes].sum()
            masks += 1
            unlabelled += not counts[:IGNORE_INDEX].any()
            progress(masks, len(samples))
            if masks >= _MIN_MASKS and pixels[:num_classes].all():
                break
    return LabelCounts(
        masks=masks,
        total=len(samples),
        unlabelled=unlabelled,
        pixels=tuple(pixels[:num_classes].tolist()),
        ignored=int(pixels[IGNORE_INDEX]),
        labelled=tuple(labelled[:num_classes].tolist()),
    )


def _bands_line(bands: Bands, colors: Colors) -> str:
    """Describe the bands of a training and their colours; empty for plain colours."""
    parts = []
    if bands.numbers:
        named = zip(bands.numbers, colors, strict=True)
        shown = (f"{i} {'of no known color' if c is None else _COLORS[c]}" for i, c in named)
        parts.append(f"bands: {', '.join(shown)}")
    if bands.value_range is not None:
        parts.append("black {:g}, white {:g}".format(*bands.value_range))
    if len(colors) != 3:
        parts.append("no jitter of saturation and hue")
    return "; ".join(parts)
