"""One exact int64 confusion matrix, and the scores that are read from it by a named protocol.

"mIoU" means different things in different projects, so each score carries its protocol's name:

- `pooled`: pixels of all images are counted into one matrix. A class that is neither in the truth
  nor predicted is NaN and leaves the mean; a class that is predicted but absent from the truth
  counts 0. So do mmsegmentation and VainF.

IoU (Jaccard), mean and pixel accuracy, and frequency-weighted IoU are those of Long et al., "Fully
convolutional networks for semantic segmentation" (CVPR 2015), section 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.files import InputError
from atrous.taxonomy import IGNORE_INDEX

PROTOCOLS = {"pooled": "a predicted class without truth counts 0"}
"""What each protocol does where protocols differ."""

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Scores as fractions, 0 to 1; NaN where there is nothing to score."""

    protocol: str
    miou: float
    """Mean of `iou` over the classes that have one."""
    fwiou: float
    """Mean of `iou`, weighted by each class's share of the truth."""
    macc: float
    """Mean of `acc` over the classes that have one."""
    pacc: float
    """Share of the labelled pixels that are predicted right."""
    iou: NDArray[np.float64]
    """(K,) intersection over union."""
    acc: NDArray[np.float64]
    """(K,) share of the class's pixels that are predicted right (recall)."""

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """A JSON-ready form, in which NaN is None.

        Args:
            classes: K names, in the order of `iou`.
        """
        return {
            "protocol": self.protocol,
            "miou": _number(self.miou),
            "fwiou": _number(self.fwiou),
            "macc": _number(self.macc),
            "pacc": _number(self.pacc),
            "iou": {name: _number(x) for name, x in zip(classes, self.iou, strict=True)},
            "acc": {name: _number(x) for name, x in zip(classes, self.acc, strict=True)},
        }

    def table(self, classes: Sequence[str], num_images: int) -> str:
        """A table for people, at most 80 columns wide: the means, then each class, best IoU first.

        Args:
            classes: K names, in the order of `iou`.
            num_images: how many images were scored.
        """
        images = "1 image" if num_images == 1 else f"{num_images:,} images"
        lines = [
            f"{images}, {len(classes)} classes, protocol {self.protocol}:"
            f" {PROTOCOLS[self.protocol]}",
            f"  mIoU {percent(self.miou)}   fwIoU {percent(self.fwiou)}"
            f"   mAcc {percent(self.macc)}   pAcc {percent(self.pacc)}",
        ]
        width = min(max(len(name) for name in classes), 36)
        lines.append(f"  {'':{width}}  {'IoU':>5}  {'acc':>5}")
        # NaN sorts as -1, below every class that has a score.
        for k in np.argsort(-np.nan_to_num(self.iou, nan=-1.0), kind="stable"):
            bar = "█" * round(24 * float(np.nan_to_num(self.iou[k])))
            name, iou, acc = classes[k][:width], percent(self.iou[k]), percent(self.acc[k])
            lines.append(f"  {name:{width}}  {iou}  {acc}  {bar}".rstrip())
        return "\n".join(lines)


def percent(fraction: float) -> str:
    """A fraction in percent, five characters wide; NaN is a dash.

    >>> percent(0.6841), percent(float("nan"))
    (' 68.4', '    -')
    """
    return "    -" if np.isnan(fraction) else f"{100 * fraction:5.1f}"


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

    def update(self, prediction: Integers, label: Integers) -> None:
        """Count the pixels of one image, or of any number of them.

        Args:
            prediction: integer array of any shape, 0 to K - 1 wherever `label` is not ignored.
            label: integer array of the same shape, 0 to K - 1 or `ignore_index`.

        Raises:
            InputError: shapes differ, an array is not of integers, or a value is out of range.
                Nothing is counted then.
        """
        if prediction.shape != label.shape:
            raise InputError(
                f"the prediction is {prediction.shape}, its label {label.shape}; "
                "they must be of one shape"
            )
        if prediction.dtype == label.dtype == np.uint8:
            self.matrix += self._count_bytes(prediction.view(np.uint8), label.view(np.uint8))
        else:
            self.matrix += self._count(prediction, label)

    def _count(self, prediction: Integers, label: Integers) -> NDArray[np.int64]:
        """Count by the definition: (K, K), from integers of any width."""
        for name, array in (("prediction", prediction), ("label", label)):
            if array.dtype.kind not in "iu":
                raise InputError(f"the {name} holds {array.dtype}; class indices are integers")
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
        """The same for uint8, three times faster: all 256 x 256 pairs, then their ranges."""
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
            InputError: the two count other classes.
        """
        if (other.num_classes, other.ignore_index) != (self.num_classes, self.ignore_index):
            raise InputError(
                f"a confusion of {other.num_classes} classes (ignoring {other.ignore_index})"
                f" cannot be merged into one of {self.num_classes} (ignoring {self.ignore_index})"
            )
        self.matrix += other.matrix

    def scores(self, protocol: str = "pooled") -> Scores:
        """Read the scores from the counts.

        Raises:
            InputError: there is no protocol of this name.
        """
        if protocol not in PROTOCOLS:
            raise InputError(f"no metric protocol {protocol!r}; there is {', '.join(PROTOCOLS)}")
        hit = self.matrix.diagonal()  # (K,)
        truth = self.matrix.sum(axis=1)  # (K,)
        union = truth + self.matrix.sum(axis=0) - hit  # (K,)
        iou, acc = _divide(hit, union), _divide(hit, truth)
        pixels = int(truth.sum())
        return Scores(
            protocol=protocol,
            miou=_mean(iou),
            fwiou=float(truth @ np.nan_to_num(iou)) / pixels if pixels else np.nan,
            macc=_mean(acc),
            pacc=int(hit.sum()) / pixels if pixels else np.nan,
            iou=iou,
            acc=acc,
        )


def _divide(count: NDArray[np.int64], total: NDArray[np.int64]) -> NDArray[np.float64]:
    """`count / total`, NaN where the total is 0; both (K,)."""
    share = np.full(len(count), np.nan)
    np.divide(count, total, out=share, where=total > 0)
    return share


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of what is not NaN; NaN if nothing is left."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else np.nan


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
