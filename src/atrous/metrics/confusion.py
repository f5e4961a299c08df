"""One exact int64 confusion matrix, with the margins of each image, and the scores read from them.

The matrix answers questions about all pixels of a data set. Questions about its images (a mean over
images, an interval, a paired comparison) need three counts per image and class: 12 K bytes an
image, 2 kB for 171 classes. All counts are integers, so parts that are counted separately merge to
the same scores.
"""

from collections.abc import Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.metrics.archive import read_archive, write_archive
from atrous.metrics.protocols import (
    Integers,
    Scores,
    check_labels,
    check_protocol,
    check_size,
    scores_of,
)
from atrous.taxonomy import IGNORE_INDEX

__all__ = ["Confusion", "Pair", "TreeLevel", "tree_scores"]

_Group = TypeVar("_Group", bound=Hashable)


class Pair(NamedTuple):
    """A confusion of two classes."""

    true: int
    predicted: int
    pixels: int
    share: float
    """Share of the true class's pixels."""


class Confusion:
    """Counts of (true class, predicted class) over labelled pixels: exact, mergeable in any order.

    >>> confusion = Confusion(2)
    >>> confusion.update(np.array([0, 1, 1]), np.array([0, 1, 0]))
    >>> confusion.matrix.tolist()
    [[1, 1], [0, 1]]
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        """Count classes 0 to `num_classes` - 1; pixels labelled `ignore_index` are left out."""
        if num_classes < 1:
            raise InputError(f"num_classes is {num_classes}; a confusion matrix needs 1 or more")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.matrix: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)
        """(K, K), rows are the truth, columns the prediction."""
        self.images: list[NDArray[np.uint32]] = []
        """Margins of each image, (3, K): hit, truth and predicted pixels of each class."""
        self.keys: list[str] = []
        """Names of `images`, in their order; "" where none was given."""
        self.about: dict[str, Any] = {}
        """JSON-ready facts that are saved with the counts: model, data, split, classes."""

    def update(self, prediction: Integers, label: Integers, key: str = "") -> None:
        """Count the pixels of one image; nothing is counted if an array is refused.

        Args:
            prediction: integers of any shape, 0 to K - 1 wherever `label` is not ignored.
            label: integers of the same shape, 0 to K - 1 or `ignore_index`; fewer than 2^32.
            key: name of the image, by which `merge` notices an image that is in both parts.
        """
        check_size(label)
        counts = self._count_bytes(prediction, label)
        if counts is None:
            check_labels(prediction, label, self.num_classes, self.ignore_index)
            counts = self._count(prediction, label)
        self.matrix += counts
        self.images.append(_margins(counts).astype(np.uint32))
        self.keys.append(key)

    def counts(self) -> NDArray[np.uint32]:
        """Return `images` as one array, (N, 3, K); unknown after `grouped`, which sums them."""
        counts = np.array(self.images, np.uint32).reshape(-1, 3, self.num_classes)
        if not np.array_equal(counts.sum(0, np.int64), _margins(self.matrix)):
            raise InputError("the counts of the images by themselves are not known, only their sum")
        return counts

    def _count(self, prediction: Integers, label: Integers) -> NDArray[np.int64]:
        """Count by the definition, from integers of any width, (K, K)."""
        labelled = label != self.ignore_index
        true, predicted = (x[labelled].astype(np.int64) for x in (label, prediction))  # (N,) each
        counts = np.bincount(true * self.num_classes + predicted, minlength=self.num_classes**2)
        return counts.reshape(self.num_classes, self.num_classes)

    def _count_bytes(self, prediction: Integers, label: Integers) -> NDArray[np.int64] | None:
        """Count all 256 x 256 pairs of bytes, several times faster, (K, K).

        None if values do not fit into bytes, or if they are refused.
        """
        predicted, true = _as_bytes(prediction), _as_bytes(label)
        if predicted is None or true is None or predicted.shape != true.shape:
            return None
        pair = true.astype(np.uint16)
        pair <<= 8
        pair |= predicted
        joint = np.bincount(pair.ravel(), minlength=1 << 16).reshape(256, 256)
        if 0 <= self.ignore_index < 256:
            joint[self.ignore_index] = 0
        if joint[self.num_classes :].any() or joint[:, self.num_classes :].any():
            return None
        counts = np.zeros_like(self.matrix)
        size = min(self.num_classes, 256)
        counts[:size, :size] = joint[:size, :size]
        return counts

    def merge(self, other: "Confusion") -> None:
        """Add the counts of `other`, which has the same classes and other images."""
        if (other.num_classes, other.ignore_index) != (self.num_classes, self.ignore_index):
            raise InputError(
                f"a confusion of {other.num_classes} classes (ignoring {other.ignore_index})"
                f" cannot be merged into one of {self.num_classes} (ignoring {self.ignore_index})"
            )
        if twice := set(self.keys) & set(other.keys) - {""}:
            raise InputError(f"{min(twice)}: counted in both parts; merge each part once")
        self.matrix += other.matrix
        self.images += other.images
        self.keys += other.keys

    def scores(self, protocol: str = "pooled") -> Scores:
        """Read the scores from the counts, by one of `PROTOCOLS`."""
        check_protocol(protocol)
        margins = self.counts() if protocol == "per-image" else _margins(self.matrix)
        return scores_of(margins, protocol)

    def pairs(self, n: int) -> list[Pair]:
        """Return the `n` most frequent confusions, or fewer, the most frequent first."""
        if n < 0:
            raise InputError(f"{n} pairs cannot be listed; ask for 0 or more")
        wrong = self.matrix.copy()
        np.fill_diagonal(wrong, 0)
        truth = self.matrix.sum(axis=1)  # (K,)
        first = np.argsort(-wrong, axis=None, kind="stable")[:n]
        return [
            Pair(int(t), int(p), int(wrong[t, p]), float(wrong[t, p] / truth[t]))
            for t, p in zip(*np.unravel_index(first, wrong.shape), strict=True)
            if wrong[t, p]
        ]

    def grouped(self, groups: Sequence[_Group]) -> tuple["Confusion", tuple[_Group, ...]]:
        """Count groups of classes as if each were one class.

        Args:
            groups: K values, one for each class; classes of one value become one, in the order of
                their first.

        Returns:
            The counts of the groups, without those of each image, and the values.
        """
        names = tuple(dict.fromkeys(groups))
        member = np.array([names.index(group) for group in groups])  # (K,)
        sums = Confusion(len(names), self.ignore_index)
        np.add.at(sums.matrix, (member[:, None], member[None, :]), self.matrix)
        return sums, names

    def save(self, path: Path | str) -> None:
        """Write all counts, keys and `about` to a .npz file."""
        about = {"ignore_index": self.ignore_index, "keys": self.keys, "about": self.about}
        write_archive(path, {"matrix": self.matrix, "images": self.counts()}, about)

    @classmethod
    def load(cls, path: Path | str) -> "Confusion":
        """Read what `save` wrote."""
        arrays, text = read_archive(path, {"matrix": np.int64, "images": np.uint32})
        matrix, images = arrays["matrix"], arrays["images"]
        with suppress(msgspec.ValidationError):
            saved = msgspec.convert(text, _Saved)
            named = [key for key in saved.keys if key]
            are_keys = len(named) == len(set(named))
            if are_keys and _are_counts(matrix, images) and len(saved.keys) == len(images):
                confusion = cls(len(matrix), saved.ignore_index)
                confusion.matrix += matrix
                confusion.images += list(images.astype(np.uint32))
                confusion.keys, confusion.about = saved.keys, saved.about
                return confusion
        raise InputError(f"{path}: its counts contradict each other; save them again")


class _Saved(msgspec.Struct):
    """The JSON in a file of counts."""

    ignore_index: int
    keys: list[str]
    about: dict[str, Any]


def _are_counts(matrix: Integers, images: Integers) -> bool:
    """Return whether `matrix` is (K, K), and `images` are margins (N, 3, K) that sum to it."""
    return (
        matrix.ndim == 2
        and 0 < matrix.shape[0] == matrix.shape[1]
        and images.shape[1:] == (3, len(matrix))
        and bool((matrix >= 0).all())
        and bool((images[:, :1] <= images[:, 1:]).all())
        and np.array_equal(images.sum(0, np.int64), _margins(matrix))
    )


class TreeLevel(NamedTuple):
    """The scores at one depth of a class tree."""

    names: tuple[str, ...]
    """Paths of the groups, "stuff/indoor"; and "road (class)" for a class above this depth."""
    scores: Scores


def tree_scores(
    confusion: Confusion, groups: Sequence[str], classes: Sequence[str], protocol: str = "pooled"
) -> list[TreeLevel]:
    """Score each depth of a class tree that has several groups, then the classes.

    Args:
        confusion: counts of K classes.
        groups: K paths of the group that holds each class, root first: "stuff/indoor/textile".
        classes: K names, the leaves.
        protocol: one of `PROTOCOLS` but "per-image": only sums are known of groups.
    """
    paths = [tuple(part for part in group.split("/") if part) for group in groups]
    levels = []
    for depth in range(1, max(map(len, paths)) + 1):
        # A tuple names a group and a string a class: the two may have one name.
        sums, members = confusion.grouped(
            [
                path[:depth] if len(path) >= depth else f"{name} (class)"
                for path, name in zip(paths, classes, strict=True)
            ]
        )
        if len(members) > 1:
            names = tuple(m if isinstance(m, str) else "/".join(m) for m in members)
            levels.append(TreeLevel(names, sums.scores(protocol)))
    return [*levels, TreeLevel(tuple(classes), confusion.scores(protocol))]


def _as_bytes(array: Integers) -> NDArray[np.uint8] | None:
    """Return the same values as uint8; None if they do not fit."""
    if array.dtype == np.uint8:
        return array.view(np.uint8)
    fits = array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255
    return array.astype(np.uint8) if fits else None


def _margins(matrix: Integers) -> NDArray[np.int64]:
    """Return hit, truth and predicted pixels of each class: (K, K) to (3, K)."""
    return np.stack([matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)])
