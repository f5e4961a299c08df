"""Panoptic quality: one matching of segments, by the rules that panopticapi evaluates with.

Kirillov et al., "Panoptic segmentation" (CVPR 2019). The rules that implementations differ in:

- A match needs the same category, truth that is no crowd, and IoU strictly over one half.
- union = predicted + true - common - (predicted on void). The true area is the one that the segment
  states, if it does; the predicted one is always counted.
- Truth without a match is a false negative, unless it is a crowd. A prediction without one is a
  false positive, unless more than half of it lies on void and on the crowd of its own category; of
  several crowds of a category, the last counts.
- A category with neither truth nor prediction leaves the mean.
- An id that is only in the map, or only among the segments, is an error. (panopticapi asks this of
  the prediction alone.)

Segment maps hold long runs of equal ids, so an image is cut into runs before anything is counted;
nothing goes over its pixels once for each segment.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.metrics.protocols import percent
from atrous.metrics.segments import (
    Counts,
    Ids,
    Panoptic,
    Places,
    Segments,
    check_categories,
    check_panoptic,
    check_segments,
    overlaps,
)
from atrous.metrics.table import class_table
from atrous.text import amount

__all__ = ["CategoryQuality", "MeanQuality", "Panoptic", "PanopticQuality", "PanopticScores"]

_UNIT = 1 << 53
"""Every double from one half up is a whole multiple of 1 / 2**53, so IoUs add up as integers."""


@dataclass(frozen=True, kw_only=True)
class MeanQuality:
    """Means over the categories that occur, as fractions; NaN if none does."""

    pq: float
    """Panoptic quality."""
    sq: float
    """Segmentation quality."""
    rq: float
    """Recognition quality."""
    num_categories: int
    """How many categories occur, in truth or prediction."""


@dataclass(frozen=True, kw_only=True)
class CategoryQuality:
    """Counts of one category, and its scores as fractions, NaN if it does not occur."""

    name: str
    isthing: bool
    pq: float
    """Sum of the matches' IoU over TP + FP / 2 + FN / 2."""
    sq: float
    """Mean IoU of the matches, 0 if there is none."""
    rq: float
    """TP over TP + FP / 2 + FN / 2."""
    tp: int
    fp: int
    fn: int


@dataclass(frozen=True, kw_only=True)
class PanopticScores(MeanQuality):
    """Panoptic quality of all categories, of things, of stuff, and of each."""

    things: MeanQuality
    stuff: MeanQuality
    per_class: dict[int, CategoryQuality]
    """By category id."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, in which NaN is None; `per_class` is by name."""
        table = asdict(self)
        table["per_class"] = {score.pop("name"): score for score in table["per_class"].values()}
        return {key: _without_nan(value) for key, value in table.items()}

    def table(self, num_images: int) -> str:
        """A table for people, at most 80 columns wide: the means, then each class, best PQ first.

        Args:
            num_images: how many images were scored.
        """
        scores = self.per_class.values()
        lines = [
            f"{amount(num_images, 'image')}, {amount(len(scores), 'category', 'categories')}, "
            "panoptic quality as in panopticapi"
        ]
        for name, mean in (("all", self), ("things", self.things), ("stuff", self.stuff)):
            lines.append(
                f"  {name:6}  PQ {percent(mean.pq)}   SQ {percent(mean.sq)}   RQ {percent(mean.rq)}"
                f"   of {mean.num_categories} that occur"
            )
        columns = {
            "PQ": np.array([score.pq for score in scores]),
            "SQ": np.array([score.sq for score in scores]),
            "RQ": np.array([score.rq for score in scores]),
        }
        return "\n".join([*lines, *class_table([score.name for score in scores], columns)])


class PanopticQuality:
    """Matched and unmatched segments of each category: exact, mergeable in any order.

    >>> quality = PanopticQuality([{"id": 7, "name": "cat", "isthing": 1}])
    >>> one_cat = Panoptic(np.array([[0, 3, 3]]), [{"id": 3, "category_id": 7}])
    >>> quality.update(prediction=one_cat, truth=one_cat)
    >>> quality.scores().pq
    1.0
    """

    def __init__(self, categories: Iterable[Mapping[str, Any]]) -> None:
        """Score segments of these categories.

        Args:
            categories: as in COCO's JSON: `id`, `name`, `isthing` (0 or 1).

        Raises:
            InputError: a category lacks one of them, or an id or a name is there twice.
        """
        self.categories = tuple(categories)
        check_categories(self.categories)
        self._rank = {category["id"]: k for k, category in enumerate(self.categories)}
        self.counts: Counts = np.zeros((3, len(self.categories)), np.int64)
        """(3, K) true positives, false positives, false negatives."""
        self._iou = [0] * len(self.categories)
        """Of each category, the sum of its matches' IoU, in units of 1 / 2**53."""

    def update(
        self, prediction: Panoptic | tuple[Ids, Segments], truth: Panoptic | tuple[Ids, Segments]
    ) -> None:
        """Match the segments of one image.

        Args:
            prediction: its `ids` (H, W); `iscrowd` and `area` of its segments mean nothing.
            truth: its `ids` (H, W).

        Raises:
            InputError: sizes differ, an id is only in a map or only among its segments, or a
                segment is not what it should be. Nothing is counted then.
        """
        prediction, truth = Panoptic(*prediction), Panoptic(*truth)
        if np.shape(prediction.ids) != np.shape(truth.ids):
            raise InputError(
                f"the prediction is {np.shape(prediction.ids)}, its truth {np.shape(truth.ids)}; "
                "they must be of one shape"
            )
        predicted, true = self._side("prediction", prediction), self._side("truth", truth)
        true.area[1:] = [
            segment.get("area", pixels)
            for segment, pixels in zip(truth.segments, true.area[1:], strict=True)
        ]
        (p, t), common = overlaps(prediction, truth)
        self._match(predicted, true, p, t, common)

    def _side(self, name: str, panoptic: Panoptic) -> "_Side":
        try:
            check_segments(panoptic.segments, self._rank)
            area = check_panoptic(panoptic)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        rank = [self._rank[segment["category_id"]] for segment in panoptic.segments]
        crowd = [bool(segment.get("iscrowd", 0)) for segment in panoptic.segments]
        # Void, at place 0, is of no category, and no more to be found than a crowd is.
        return _Side(
            area=np.concatenate([[0], area]),
            rank=np.array([len(self._rank), *rank]),
            crowd=np.array([True, *crowd]),
        )

    def _match(
        self, predicted: "_Side", true: "_Side", p: Places, t: Places, common: Counts
    ) -> None:
        """Count one image, whose places p[m] and t[m] share common[m] pixels; each is (M,)."""
        num_categories = len(self.categories)
        on_void = np.zeros_like(predicted.area)
        on_void[p[t == 0]] = common[t == 0]
        union = predicted.area[p] + true.area[t] - common - on_void[p]
        match = (predicted.rank[p] == true.rank[t]) & ~true.crowd[t] & (2 * common > union)
        matched = true.rank[t[match]]

        is_missed = ~true.crowd
        is_missed[t[match]] = False

        crowds = 1 + np.flatnonzero(true.crowd[1:])
        last_crowd = np.zeros(num_categories + 1, np.int64)  # its place; 0 = the category has none
        last_crowd[true.rank[crowds]] = crowds
        excused = on_void.copy()
        on_crowd = (t > 0) & (t == last_crowd[predicted.rank[p]])
        excused[p[on_crowd]] += common[on_crowd]
        is_wrong = 2 * excused <= predicted.area
        is_wrong[p[match]] = False
        is_wrong[0] = False

        for row, ranks in enumerate((matched, predicted.rank[is_wrong], true.rank[is_missed])):
            self.counts[row] += np.bincount(ranks, minlength=num_categories)
        iou = common[match] / union[match]
        for rank, share in zip(matched.tolist(), iou.tolist(), strict=True):
            self._iou[rank] += int(share * _UNIT)

    def merge(self, other: "PanopticQuality") -> None:
        """Add the counts of `other`.

        Raises:
            InputError: the two count other categories.
        """
        if other.categories != self.categories:
            raise InputError("panoptic qualities of different categories cannot be merged")
        self.counts += other.counts
        self._iou = [mine + yours for mine, yours in zip(self._iou, other._iou, strict=True)]

    def scores(self) -> PanopticScores:
        """Read the scores from the counts."""
        per_class = {
            category["id"]: _category_quality(category, iou, *counts)
            for category, iou, counts in zip(
                self.categories, self._iou, self.counts.T.tolist(), strict=True
            )
        }
        scores = list(per_class.values())
        return PanopticScores(
            **asdict(_mean(scores)),
            things=_mean([score for score in scores if score.isthing]),
            stuff=_mean([score for score in scores if not score.isthing]),
            per_class=per_class,
        )


class _Side(NamedTuple):
    """The N segments of truth or prediction, by place; void is at place 0."""

    area: Counts
    """(1 + N,) pixels."""
    rank: Counts
    """(1 + N,) where the category stands among the K; K for void."""
    crowd: NDArray[np.bool_]
    """(1 + N,)"""


def _category_quality(
    category: Mapping[str, Any], iou: int, tp: int, fp: int, fn: int
) -> CategoryQuality:
    """Scores of a category whose matches' IoUs sum up to `iou` / 2**53."""
    segments = 2 * tp + fp + fn
    occurs = segments > 0
    return CategoryQuality(
        name=category["name"],
        isthing=bool(category["isthing"]),
        pq=2 * iou / (_UNIT * segments) if occurs else np.nan,
        sq=iou / (_UNIT * tp) if tp else 0.0 if occurs else np.nan,
        rq=2 * tp / segments if occurs else np.nan,
        tp=tp,
        fp=fp,
        fn=fn,
    )


def _mean(scores: Sequence[CategoryQuality]) -> MeanQuality:
    kept = [score for score in scores if not np.isnan(score.pq)]
    return MeanQuality(
        pq=fmean(score.pq for score in kept) if kept else np.nan,
        sq=fmean(score.sq for score in kept) if kept else np.nan,
        rq=fmean(score.rq for score in kept) if kept else np.nan,
        num_categories=len(kept),
    )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
