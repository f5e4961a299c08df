"""What "mIoU" means: one named protocol for each of the ways in which people compute it.

Every protocol reads the same exact integers, the margins of a confusion matrix: for each class, how
many pixels are a hit (truth and prediction agree), are of the class in the truth, and are predicted
as it. Ignored pixels are in none of the three. `docs/metrics.md` works one example through all.

IoU (Jaccard), mean and pixel accuracy, and frequency-weighted IoU are those of Long et al., "Fully
convolutional networks for semantic segmentation" (CVPR 2015), section 5.
"""

import math
from collections.abc import Sequence
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
    """Refuse a name that is not in `PROTOCOLS`.

    Raises:
        InputError: there is no protocol of this name.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"no metric protocol {protocol!r}; there is {', '.join(PROTOCOLS)}")


class Rates(NamedTuple):
    """The scores of many margins at once, as fractions; NaN where there is nothing to score."""

    miou: Floats
    """(...)"""
    fwiou: Floats
    """(...)"""
    macc: Floats
    """(...)"""
    pacc: Floats
    """(...)"""
    iou: Floats
    """(..., K)"""
    acc: Floats
    """(..., K)"""


def rates(margins: NDArray[np.number[Any]], protocol: str) -> Rates:
    """Score each margins by itself; for "per-image" those of one image.

    Args:
        margins: (..., 3, K), hit, truth and predicted pixels, of one image or summed over many.
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
        miou, macc = _mean(in_truth if protocol == "kazuto" else iou), _mean(acc)
    return Rates(miou, fwiou, macc, divide(hit.sum(-1), pixels), iou, acc)


def divide(count: Floats, total: Floats) -> Floats:
    """`count / total`, NaN where the total is 0; of one shape."""
    share = np.full(np.shape(total), np.nan)
    np.divide(count, total, out=share, where=total > 0)
    return share


def _mean(values: Floats) -> Floats:
    """The mean over the last axis of what is not NaN; NaN if nothing is left."""
    return divide(np.nan_to_num(values).sum(-1), (~np.isnan(values)).sum(-1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Scores as fractions, 0 to 1; NaN where there is nothing to score."""

    protocol: str
    miou: float
    """Mean of `iou` over the classes that have one, or as the protocol has it."""
    fwiou: float
    """Mean of `iou`, weighted by each class's share of the truth."""
    macc: float
    """Mean of `acc` over the classes that have one, or as the protocol has it."""
    pacc: float
    """Share of the labelled pixels that are predicted right."""
    iou: Floats
    """(K,) intersection over union."""
    acc: Floats
    """(K,) share of the class's pixels that are predicted right (recall)."""

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """A JSON-ready form, in which NaN is None.

        Args:
            classes: K names, in the order of `iou`.
        """
        return {
            "protocol": self.protocol,
            "miou": number(self.miou),
            "fwiou": number(self.fwiou),
            "macc": number(self.macc),
            "pacc": number(self.pacc),
            "iou": {name: number(x) for name, x in zip(classes, self.iou, strict=True)},
            "acc": {name: number(x) for name, x in zip(classes, self.acc, strict=True)},
        }


def pooled_scores(margins: Integers, protocol: str) -> Scores:
    """The scores of all images' margins in one sum, (3, K)."""
    return _scores(rates(margins, protocol), protocol)


def mean_scores(counts: Integers, protocol: str) -> Scores:
    """The mean of each score over the images that have one, from counts (N, 3, K).

    Sums are rounded once, at their end, so that the order of the images does not matter.
    """
    means = (np.apply_along_axis(_exact_mean, 0, each) for each in rates(counts, protocol))
    return _scores(Rates(*means), protocol)


def _scores(one: Rates, protocol: str) -> Scores:
    return Scores(
        protocol=protocol,
        miou=float(one.miou),
        fwiou=float(one.fwiou),
        macc=float(one.macc),
        pacc=float(one.pacc),
        iou=one.iou,
        acc=one.acc,
    )


def percent(fraction: float) -> str:
    """A fraction in percent, five characters wide; NaN is a dash.

    >>> percent(0.6841), percent(float("nan"))
    (' 68.4', '    -')
    """
    return "    -" if np.isnan(fraction) else f"{100 * fraction:5.1f}"


def number(value: float) -> float | None:
    """A float as JSON can hold it: NaN is None."""
    return None if np.isnan(value) else float(value)


def _exact_mean(values: Floats) -> float:
    """The mean of what is not NaN, the same in whatever order; NaN if nothing is left."""
    kept = values[~np.isnan(values)]
    return math.fsum(kept) / len(kept) if len(kept) else math.nan
