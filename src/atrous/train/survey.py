"""What a plan knows of a data set: sizes of images, shares and widths of classes, from a sample."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import Dataset
from atrous.infer.ordered_map import in_order
from atrous.kernels import usable_cores
from atrous.progress import Progress, silent
from atrous.train.unlabelled import find_unlabelled

_MOST_MASKS = 128
"""Masks that are read; their medians differ little from those of all."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Numbers of a data set's split train that a plan follows from."""

    images: int
    """Number of images, those without masks included."""
    validation_images: int
    """Number of images of the split val; 0 without one."""
    masks: int
    """Number of masks that were read."""
    size: tuple[int, int]
    """Median height and median width, in pixels."""
    shares: tuple[float, ...]
    """(K,) part of the labelled pixels that each class has; all 0 without a label."""
    object_width: float | None
    """Median over the classes but the most frequent one of the mean length, in pixels, of their
    runs of pixels in rows and columns; None where no second class has a pixel."""

    @property
    def pixels(self) -> int:
        """Pixels of the median image."""
        return self.size[0] * self.size[1]


def survey(dataset: Dataset, progress: Progress = silent, unlabelled: Sequence[str] = ()) -> Survey:
    """Read up to 128 training masks, drawn at random but the same each time, in threads.

    Args:
        dataset: with a split train and maybe val.
        progress: called after each mask.
        unlabelled: where images without masks are, as in a recipe.
    """
    samples, num_classes = dataset.split("train"), dataset.taxonomy.num_classes
    held_out = dataset.split("val") if "val" in dataset.splits else None
    others = find_unlabelled(dataset, unlabelled, (samples, held_out))
    drawn = np.random.default_rng(0).permutation(len(samples))[:_MOST_MASKS].tolist()
    pixels, runs = np.zeros(256, np.int64), np.zeros(256, np.int64)
    sizes = []

    def read(index: int) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[int, ...]]:
        label = samples.label(index)
        return np.bincount(label.ravel(), minlength=256), count_runs(label), label.shape

    with ThreadPoolExecutor(usable_cores()) as readers:
        for counts, lines, size in in_order(readers, read, drawn, ahead=2 * usable_cores()):
            pixels += counts
            runs += lines
            sizes.append(size)
            progress(len(sizes), len(drawn))
    height, width = np.median(sizes, axis=0).round().astype(int).tolist()
    pixels, runs = pixels[:num_classes], runs[:num_classes]
    return Survey(
        images=len(samples) + sum(map(len, others)),
        validation_images=0 if held_out is None else len(held_out),
        masks=len(sizes),
        size=(height, width),
        shares=tuple((pixels / max(pixels.sum(), 1)).tolist()),
        object_width=_object_width(pixels, runs),
    )


def count_runs(label: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the runs of equal pixels in the rows and in the columns of (H, W), by value (256,)."""
    runs = np.zeros(256, np.int64)
    for lines in (label, label.T):
        runs += np.bincount(lines[:, 0], minlength=256)
        runs += np.bincount(lines[:, 1:][lines[:, 1:] != lines[:, :-1]], minlength=256)
    return runs


def _object_width(pixels: NDArray[np.int64], runs: NDArray[np.int64]) -> float | None:
    """Return `Survey.object_width` from (K,) pixels and runs; each pixel is in two runs."""
    others = np.delete(np.arange(len(pixels)), pixels.argmax())
    present = others[pixels[others] > 0]
    return float(np.median(2 * pixels[present] / runs[present])) if len(present) else None
