"""Boundary IoU and boundary F, per class: how well predicted contours follow the true ones.

Boundary IoU: Cheng et al., "Boundary IoU" (CVPR 2021). Of each class's mask, only the band within a
distance of its contour counts; the image's border is contour. Departure: the counts of all images
are summed before they are divided.

Boundary F: Csurka et al., "What is a good evaluation measure for semantic segmentation?" (BMVC
2013). A contour pixel of a class is correct if the other side has a contour pixel of the same class
within a tolerance. Counts are summed over images, too; the image's border is no contour.

Each class has the contours of its own mask; eroding the label map itself would invent pixels of
absent classes. Ignored pixels are removed from truth and prediction, so that the edge of an
ignored region is the same contour on both sides, and a perfect prediction scores 1.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.metrics.protocols import (
    Floats,
    Integers,
    check_labels,
    check_size,
    divide,
    mean_of_known,
    rates,
    without_nan,
)
from atrous.taxonomy import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundaryScores:
    """Scores as fractions, 0 to 1; NaN for a class without contour in truth and prediction."""

    iou: Floats
    """(K,) boundary IoU."""
    f: Floats
    """(K,) boundary F, the harmonic mean of precision and recall."""
    miou: float
    """Mean of `iou` over the classes where it is defined."""
    mf: float
    """Mean of `f` over the classes where it is defined."""

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return JSON-ready values, in which NaN is None; `classes` are K names."""
        return without_nan(
            {
                "boundary_miou": self.miou,
                "boundary_mf": self.mf,
                "boundary_iou": dict(zip(classes, self.iou, strict=True)),
                "boundary_f": dict(zip(classes, self.f, strict=True)),
            }
        )


class BoundaryRates(NamedTuple):
    """Scores of many counts at once, as fractions; NaN as in `BoundaryScores`."""

    miou: Floats  # (...)
    mf: Floats  # (...)
    iou: Floats  # (..., K)
    f: Floats  # (..., K)


def boundary_rates(counts: NDArray[np.number[Any]]) -> BoundaryRates:
    """Score each of many counts (..., 7, K), as in `Boundary.images`, or sums of such."""
    band = rates(counts[..., :3, :], "pooled")
    true, found, predicted, right = np.moveaxis(counts[..., 3:, :].astype(np.float64), -2, 0)
    precision = np.nan_to_num(divide(right, predicted))  # (..., K)
    recall = np.nan_to_num(divide(found, true))
    f = np.nan_to_num(divide(2 * precision * recall, precision + recall))
    f[true + predicted == 0] = np.nan
    return BoundaryRates(band.miou, mean_of_known(f), band.iou, f)


@dataclass(eq=False)
class Boundary:
    """Exact counts of band and contour pixels per image and class, which merge in any order.

    >>> label = np.zeros((40, 40), np.uint8)
    >>> label[10:30, 10:30] = 1
    >>> boundary = Boundary(2)
    >>> boundary.update(label, label)
    >>> boundary.scores().miou
    1.0
    """

    num_classes: int
    """K; classes count from 0."""
    ratio: float = 0.02
    """Width of the bands as a share of the image's diagonal; at least one pixel."""
    tolerance: float = 0.0075
    """Tolerance of a contour's place, as a share of the image's diagonal."""
    ignore_index: int = IGNORE_INDEX
    """Label of the pixels that are removed from both sides."""

    def __post_init__(self) -> None:
        self.images: list[NDArray[np.uint32]] = []
        """Pixels of each class in each image, (7, K): of the bands common to both sides, true and
        predicted ones; of the contours true, of these found, predicted, of these right."""

    def update(self, prediction: Integers, label: Integers) -> None:
        """Count one image; nothing is counted if an array is refused.

        Args:
            prediction: (H, W) integers, 0 to K - 1 wherever `label` is not ignored.
            label: (H, W) integers, 0 to K - 1 or `ignore_index`.
        """
        if label.ndim != 2:
            raise InputError(f"the label is {label.shape}; boundaries need images, (H, W)")
        check_size(label)
        check_labels(prediction, label, self.num_classes, self.ignore_index)
        smallest = np.min_scalar_type(self.num_classes)
        true, predicted = (  # (H, W) each, K where ignored
            np.where(label == self.ignore_index, self.num_classes, array).astype(smallest)
            for array in (label, prediction)
        )
        diagonal = math.hypot(*label.shape)
        bands = self._bands(true, predicted, max(1, round(self.ratio * diagonal)))
        contours = self._contours(true, predicted, self.tolerance * diagonal)
        self.images.append(np.concatenate([bands, contours]).astype(np.uint32))

    def counts(self) -> NDArray[np.uint32]:
        """Return `images` as one array, (N, 7, K)."""
        return np.array(self.images, np.uint32).reshape(-1, 7, self.num_classes)

    def _bands(self, true: Integers, predicted: Integers, width: int) -> NDArray[np.int64]:
        """Return the band pixels of one image, (3, K)."""
        true_band, predicted_band = _band(true, width), _band(predicted, width)  # (H, W)
        common = true_band & predicted_band & (true == predicted)
        counted = (true[common], true[true_band], predicted[predicted_band])
        return np.stack([self._per_class(classes) for classes in counted])

    def _contours(self, true: Integers, predicted: Integers, radius: float) -> NDArray[np.int64]:
        """Return the contour pixels of one image, (4, K)."""
        square = int(radius * radius)
        reach = math.isqrt(square)
        height, width = (side + 2 * reach for side in true.shape)
        a, b = (_contour(labels, self.num_classes, reach) for labels in (true, predicted))
        places = (a, a[_near(a, b, square, width)], b, b[_near(b, a, square, width)])
        return np.stack([self._per_class(place // (height * width)) for place in places])

    def _per_class(self, classes: Integers) -> NDArray[np.int64]:
        """Return the number of times that each class occurs, (K,)."""
        return np.bincount(classes, minlength=self.num_classes)[: self.num_classes]

    def merge(self, other: "Boundary") -> None:
        """Add the counts of `other`, which has the same classes, widths and tolerance."""
        if astuple(other) != astuple(self):  # the settings: counts are no fields
            raise InputError("boundary counts of other classes or widths cannot be merged")
        self.images += other.images

    def scores(self) -> BoundaryScores:
        """Read the scores from the counts; a predicted class without truth counts 0."""
        miou, mf, iou, f = boundary_rates(self.counts().sum(0, np.int64))
        return BoundaryScores(iou=iou, f=f, miou=float(miou), mf=float(mf))


def _band(labels: Integers, width: int) -> NDArray[np.bool_]:
    """Return where pixels are within `width` of their class's contour or the border, (H, W).

    `width` erosions of each class's mask by a 3x3 square remove these pixels: a pixel remains if
    the square around it, 2 `width` + 1 wide, lies within the image and holds one class, so that its
    largest label equals its smallest.
    """
    height, breadth = labels.shape
    band = np.ones(labels.shape, bool)
    size = 2 * width + 1
    if min(height, breadth) >= size:
        varies = _running(np.maximum, labels, size) != _running(np.minimum, labels, size)
        band[width : height - width, width : breadth - width] = varies
    return band


def _running(extreme: np.ufunc, values: Integers, size: int) -> Integers:
    """Return the extreme of each square: (H, W) to (H - size + 1, W - size + 1)."""
    for _ in range(2):  # rows, then columns
        covered = 1
        while 2 * covered <= size:
            values = extreme(values[:-covered], values[covered:])
            covered *= 2
        if covered < size:
            values = extreme(values[: covered - size], values[size - covered :])
        values = values.T
    return values


def _contour(labels: Integers, num_classes: int, reach: int) -> NDArray[np.int64]:
    """Return the sorted places of pixels that touch another class up, down, left or right, (P,).

    Places are flat indices into the planes of all classes, each with a margin of `reach` on every
    side.
    """
    edge = np.zeros(labels.shape, bool)
    for rows, touched in ((labels, edge), (labels.T, edge.T)):
        differs = rows[1:] != rows[:-1]
        touched[1:] |= differs
        touched[:-1] |= differs
    y, x = np.nonzero(edge & (labels < num_classes))
    height, width = (side + 2 * reach for side in labels.shape)
    return np.sort((labels[y, x].astype(np.int64) * height + y + reach) * width + x + reach)


def _near(
    points: NDArray[np.int64], others: NDArray[np.int64], square: int, width: int
) -> NDArray[np.bool_]:
    """Return whether each place has one of `others` within the square root of `square`, (P,).

    A row of the disk around a place is a range of places: one search finds the first in the range.
    """
    ends = np.append(others, np.iinfo(np.int64).max)
    near = np.zeros(len(points), bool)
    left = np.arange(len(points))
    reach = math.isqrt(square)
    for dy in sorted(range(-reach, reach + 1), key=abs):
        dx = math.isqrt(square - dy * dy)
        middle = points[left] + dy * width
        found = ends[np.searchsorted(ends, middle - dx)] <= middle + dx
        near[left[found]] = True
        left = left[~found]
    return near
