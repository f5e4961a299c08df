"""One exact int64 confusion matrix, with the margins of each image, and the scores read from them.

The matrix answers what the pixels of a data set say. What its images say one by one (their mean, an
interval, a paired comparison) is answered by three counts per image and class: 12 K bytes an image,
2 kB at 171 classes. All are integers, so parts that are counted apart merge to the same scores.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.metrics.archive import read_archive, write_archive
from atrous.metrics.protocols import Integers, Scores, check_protocol, mean_scores, pooled_scores
from atrous.taxonomy import IGNORE_INDEX

__all__ = ["Confusion", "Pair", "TreeLevel", "tree_scores"]

_Group = TypeVar("_Group", bound=Hashable)


class Pair(NamedTuple):
    """A confusion of two classes."""

    true: int
    predicted: int
    pixels: int
    share: float
    """Of the true class's pixels."""


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
        """For each image, (3, K): hit, truth and predicted pixels of each class."""
        self.keys: list[str] = []
        """The images' names, in the order of `images`; "" where none was given."""
        self.about: dict[str, Any] = {}
        """What a saved file shall say besides (JSON): of which model, which data, which part."""

    def update(self, prediction: Integers, label: Integers, key: str = "") -> None:
        """Count the pixels of one image.

        Args:
            prediction: integer array of any shape, 0 to K - 1 wherever `label` is not ignored.
            label: integer array of the same shape, 0 to K - 1 or `ignore_index`.
            key: the image's name, by which `merge` notices one that is counted twice.

        Raises:
            InputError: shapes differ, an array is not of integers, a value is out of range, or
                there are more pixels than 32 bits count. Nothing is counted then.
        """
        if label.size >= 2**32:
            raise InputError(f"an image of {label.size:,} pixels; count it in parts below 2^32")
        if prediction.shape != label.shape:
            raise InputError(
                f"the prediction is {prediction.shape}, its label {label.shape}; "
                "they must be of one shape"
            )
        predicted_bytes, label_bytes = _as_bytes(prediction), _as_bytes(label)
        if predicted_bytes is None or label_bytes is None:
            counts = self._count(prediction, label)
        else:
            counts = self._count_bytes(predicted_bytes, label_bytes)
        self.matrix += counts
        self.images.append(_margins(counts).astype(np.uint32))
        self.keys.append(key)

    def counts(self) -> NDArray[np.uint32]:
        """All of `images` in one array, (N, 3, K).

        Raises:
            InputError: they do not add up to the matrix, as after `grouped`.
        """
        counts = np.array(self.images, np.uint32).reshape(-1, 3, self.num_classes)
        if not np.array_equal(counts.sum(0, np.int64), _margins(self.matrix)):
            raise InputError("the counts of the images by themselves are not known, only their sum")
        return counts

    def _count(self, prediction: Integers, label: Integers) -> NDArray[np.int64]:
        """Count by the definition: (K, K), from integers of any width."""
        for name, array in (("prediction", prediction), ("label", label)):
            if array.dtype.kind not in "iu":
                raise InputError(
                    f"the {name} holds {array.dtype}; class indices are integers: astype(np.uint8)"
                )
        labelled = label != self.ignore_index
        true, predicted = label[labelled], prediction[labelled]  # (N,)
        for name, values in (("label", true), ("prediction", predicted)):
            wrong = values[(values < 0) | (values >= self.num_classes)]
            if wrong.size:
                raise self._out_of_range(name, int(wrong[0]))
        pair = true.astype(np.int64) * self.num_classes + predicted.astype(np.int64)  # (N,)
        counts = np.bincount(pair, minlength=self.num_classes**2)
        return counts.reshape(self.num_classes, self.num_classes)

    def _count_bytes(
        self, prediction: NDArray[np.uint8], label: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """The same for bytes, several times faster: all 256 x 256 pairs, then their ranges."""
        pair = label.astype(np.uint16)
        pair <<= 8
        pair |= prediction
        joint = np.bincount(pair.ravel(), minlength=1 << 16).reshape(256, 256)
        if 0 <= self.ignore_index < 256:
            joint[self.ignore_index] = 0
        for name, outside in (
            ("label", joint[self.num_classes :].any(axis=1)),
            ("prediction", joint[:, self.num_classes :].any(axis=0)),
        ):
            if outside.any():
                raise self._out_of_range(name, self.num_classes + int(outside.argmax()))
        counts = np.zeros_like(self.matrix)
        size = min(self.num_classes, 256)
        counts[:size, :size] = joint[:size, :size]
        return counts

    def _out_of_range(self, name: str, value: int) -> InputError:
        allowed = f"0 to {self.num_classes - 1}"
        mend = f" or {self.ignore_index} (ignored)" if name == "label" else ""
        return InputError(f"the {name} holds {value}, where {allowed}{mend} can be")

    def merge(self, other: "Confusion") -> None:
        """Add the counts of `other`.

        Raises:
            InputError: the two count other classes, or one image is in both.
        """
        if (other.num_classes, other.ignore_index) != (self.num_classes, self.ignore_index):
            raise InputError(
                f"a confusion of {other.num_classes} classes (ignoring {other.ignore_index})"
                f" cannot be merged into one of {self.num_classes} (ignoring {self.ignore_index})"
            )
        twice = set(self.keys) & set(other.keys) - {""}
        if twice:
            raise InputError(f"{min(twice)}: counted in both parts; merge each part once")
        self.matrix += other.matrix
        self.images += other.images
        self.keys += other.keys

    def scores(self, protocol: str = "pooled") -> Scores:
        """Read the scores from the counts.

        Raises:
            InputError: there is no protocol of this name.
        """
        check_protocol(protocol)
        if protocol == "per-image":
            return mean_scores(self.counts(), protocol)
        return pooled_scores(_margins(self.matrix), protocol)

    def pairs(self, n: int) -> list[Pair]:
        """The `n` most frequent confusions, at most; the most frequent first.

        Raises:
            InputError: `n` is below 0.
        """
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
            groups: K names, or whatever else tells groups apart; classes of one name become one, in
                the order of their first.

        Returns:
            The counts of the groups, which are no longer known image by image, and their names.
        """
        names = tuple(dict.fromkeys(groups))
        member = np.array([names.index(group) for group in groups])  # (K,)
        sums = Confusion(len(names), self.ignore_index)
        np.add.at(sums.matrix, (member[:, None], member[None, :]), self.matrix)
        return sums, names

    def save(self, path: Path | str) -> None:
        """Write all counts, keys and `about` to a .npz file.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        about = {"ignore_index": self.ignore_index, "keys": self.keys, "about": self.about}
        write_archive(path, {"matrix": self.matrix, "images": self.counts()}, about)

    @classmethod
    def load(cls, path: Path | str) -> "Confusion":
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing or damaged, or its counts contradict each other.
        """
        arrays, text = read_archive(path, {"matrix": np.int64, "images": np.uint32})
        matrix, images = arrays["matrix"], arrays["images"]
        if not (_are_counts(matrix, images) and _is_text(text, len(images))):
            raise InputError(f"{path}: its counts contradict each other; save them again")
        confusion = cls(len(matrix), text["ignore_index"])
        confusion.matrix += matrix
        confusion.images += list(images.astype(np.uint32))
        confusion.keys += text["keys"]
        confusion.about |= text["about"]
        return confusion


def _are_counts(matrix: Integers, images: Integers) -> bool:
    """Whether arrays of a file are a matrix (K, K) and the margins (N, 3, K) of its images."""
    return (
        matrix.ndim == 2
        and 0 < matrix.shape[0] == matrix.shape[1]
        and images.shape[1:] == (3, len(matrix))
        and bool((matrix >= 0).all())
        and bool((images[:, :1] <= images[:, 1:]).all())
        and np.array_equal(images.sum(0, np.int64), _margins(matrix))
    )


def _is_text(text: Mapping[str, Any], num_images: int) -> bool:
    """Whether a file's JSON has an `ignore_index`, `about`, and one key for each image."""
    keys = text.get("keys")
    if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
        return False
    named = [key for key in keys if key]
    return (
        len(keys) == num_images
        and len(set(named)) == len(named)
        and isinstance(text.get("ignore_index"), int)
        and isinstance(text.get("about"), dict)
    )


class TreeLevel(NamedTuple):
    """The scores at one depth of a class tree."""

    names: tuple[str, ...]
    """Paths of the groups, "stuff/indoor"; and "road (class)" for classes that hang higher up."""
    scores: Scores


def tree_scores(
    confusion: Confusion,
    groups: Sequence[str],
    classes: Sequence[str],
    protocol: str = "pooled",
) -> list[TreeLevel]:
    """The scores at each depth of a class tree that has several groups, then of the classes.

    Args:
        confusion: counts of K classes.
        groups: K paths of where each class hangs, root first: "stuff/indoor/textile".
        classes: K names, the leaves.
        protocol: as for `Confusion.scores`; not "per-image" (of groups, only sums are known).
    """
    paths = [tuple(part for part in group.split("/") if part) for group in groups]
    levels = []
    for depth in range(1, max(map(len, paths)) + 1):
        # a tuple for a group, a text for a class by itself: the two may have one name
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
    """The same values as uint8; None where they do not fit."""
    if array.dtype == np.uint8:
        return array.view(np.uint8)
    fits = array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255
    return array.astype(np.uint8) if fits else None


def _margins(matrix: Integers) -> NDArray[np.int64]:
    """Hit, truth and predicted pixels of each class, (3, K), of a matrix (K, K)."""
    return np.stack([matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)])
