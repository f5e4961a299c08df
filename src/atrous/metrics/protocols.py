"""What "mIoU" means: a named protocol for each way in which it is computed in practice.

Every protocol reads the same exact integers, the margins of a confusion matrix: for each class, the
pixels that are a hit (truth and prediction agree), that are of the class in the truth, and that are
predicted as the class. Ignored pixels are in none of the three. `docs/metrics.md` works one example
through all protocols.

IoU (Jaccard), mean and pixel accuracy, and frequency-weighted IoU are those of Long et al., "Fully
convolutional networks for semantic segmentation" (CVPR 2015), section 5.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError

PROTOCOLS = {
    "pooled": "a predicted class without truth counts 0",
    "mmseg": "a predicted class without truth counts 0",
    "detectron2": "a class without truth is left out",
    "kazuto": "a class without truth is left out of the means",
    "torchvision": "all classes count; NaN if one never occurs",
    "per-image": "mean over images of the classes in their truth",
}
"""What each protocol does where protocols differ; printed beside each score."""

Integers = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


def check_protocol(protocol: str) -> None:
    """Refuse a name that is not in `PROTOCOLS`."""
    if protocol not in PROTOCOLS:
        raise InputError(f"no metric protocol {protocol!r}; there is {', '.join(PROTOCOLS)}")


class Rates(NamedTuple):
    """Scores of many margins at once, as fractions; NaN where there is nothing to score."""

    miou: Floats  # (...)
    fwiou: Floats  # (...)
    macc: Floats  # (...)
    pacc: Floats  # (...)
    iou: Floats  # (..., K)
    acc: Floats  # (..., K)


def rates(margins: NDArray[np.number[Any]], protocol: str) -> Rates:
    """Score each of many margins.

    Args:
        margins: (..., 3, K) hit, truth and predicted pixels, of one image or summed over many; with
            "per-image", of one image.
        protocol: one of `PROTOCOLS`.
    """
    hit, truth, predicted = np.moveaxis(margins.astype(np.float64), -2, 0)  # (..., K) each
    iou, acc = divide(hit, truth + predicted - hit), divide(hit, truth)
    pixels = truth.sum(-1)
    fwiou = divide((truth * np.nan_to_num(iou)).sum(-1), pixels)
    in_truth = np.where(truth > 0, iou, np.nan)
    if protocol in ("detectron2", "per-image"):
        iou = in_truth
    if protocol == "torchvision":
        miou, macc = iou.mean(-1), acc.mean(-1)
    else:
        miou, macc = mean_of_known(in_truth if protocol == "kazuto" else iou), mean_of_known(acc)
    return Rates(miou, fwiou, macc, divide(hit.sum(-1), pixels), iou, acc)


def check_size(label: Integers) -> None:
    """Refuse an image whose pixels cannot be counted in uint32."""
    if label.size >= 2**32:
        raise InputError(f"an image of {label.size:,} pixels; count it in parts below 2^32")


def check_labels(prediction: Integers, label: Integers, num_classes: int, ignored: int) -> None:
    """Refuse arrays that are no class indices of one shape; `ignored` pixels may hold any value."""
    check_shapes(prediction, label)
    labelled = label != ignored
    for name, array in (("label", label), ("prediction", prediction)):
        if array.dtype.kind not in "iu":
            raise InputError(
                f"the {name} holds {array.dtype}; class indices are integers: astype(np.uint8)"
            )
        values = array[labelled]
        wrong = values[(values < 0) | (values >= num_classes)]
        if wrong.size:
            allowed = f"0 to {num_classes - 1}" + f" or {ignored} (ignored)" * (name == "label")
            raise InputError(f"the {name} holds {wrong[0]}, where {allowed} can be")


def check_shapes(prediction: NDArray[Any], label: NDArray[Any]) -> None:
    """Refuse a prediction that has another shape than its label."""
    if np.shape(prediction) != np.shape(label):
        raise InputError(
            f"the prediction is {np.shape(prediction)}, its label {np.shape(label)}; "
            "they must be of one shape"
        )


def divide(count: Floats, total: Floats) -> Floats:
    """Return `count / total`, elementwise; NaN where the total is 0."""
    share = np.full(np.shape(total), np.nan)
    np.divide(count, total, out=share, where=total > 0)
    return share


def mean_of_known(values: Floats) -> Floats:
    """Return the mean over the last axis without NaN; NaN if nothing is left."""
    return divide(np.nan_to_num(values).sum(-1), (~np.isnan(values)).sum(-1))


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores as fractions, 0 to 1; NaN where there is nothing to score."""

    protocol: str
    miou: float
    """Mean of `iou` over the classes where it is defined, or as the protocol says."""
    fwiou: float
    """Mean of `iou`, weighted by each class's share of the truth."""
    macc: float
    """Mean of `acc` over the classes where it is defined, or as the protocol says."""
    pacc: float
    """Share of the labelled pixels that are predicted correctly."""
    iou: Floats
    """(K,) intersection over union."""
    acc: Floats
    """(K,) share of the class's pixels that are predicted correctly (recall)."""

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return JSON-ready values, in which NaN is None; `classes` are K names."""
        iou, acc = (dict(zip(classes, values, strict=True)) for values in (self.iou, self.acc))
        return without_nan(vars(self) | {"iou": iou, "acc": acc})


def scores_of(margins: Integers, protocol: str) -> Scores:
    """Score the margins of all images: their sum, (3, K); or (N, 3, K) with "per-image".

    With "per-image", each score is the mean over the images where it is defined.
    """
    one = rates(margins, protocol)
    if protocol == "per-image":
        one = Rates(*(np.apply_along_axis(_exact_mean, 0, each) for each in one))
    miou, fwiou, macc, pacc = map(float, one[:4])
    return Scores(protocol, miou, fwiou, macc, pacc, one.iou, one.acc)


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON-ready values: NaN becomes None, and arrays become lists.

    >>> without_nan({"iou": np.array([0.5, np.nan])})
    {'iou': [0.5, None]}
    """
    text = json.dumps(values, default=lambda value: value.tolist())
    ready: dict[str, Any] = json.loads(text, parse_constant=lambda constant: None)
    return ready


def _exact_mean(values: Floats) -> float:
    """Return the mean without NaN, rounded once, so the same in any order; NaN of nothing."""
    kept = values[~np.isnan(values)]
    return math.fsum(kept) / len(kept) if len(kept) else math.nan
