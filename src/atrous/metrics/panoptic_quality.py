"""Panoptic quality, with the matching rules of panopticapi.

Kirillov et al., "Panoptic segmentation" (CVPR 2019). Rules in which implementations differ:

- A match needs the same category, truth that is no crowd, and an IoU strictly above one half.
- union = predicted + true - common - (predicted on void). The true area is the segment's `area` if
  it has one; the predicted area is always counted.
- Truth without a match is a false negative, unless it is a crowd. A prediction without a match is a
  false positive, unless more than half of it lies on void and on the crowd of its own category; of
  several crowds of a category, the last counts.
- A category with neither truth nor prediction is left out of the mean.
- An id that is only in the map, or only among the segments, is an error. (panopticapi checks this
  for the prediction alone.)

Segment maps hold long runs of equal ids, so counting works on runs, not once per segment on all
pixels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError, named
from atrous.metrics.protocols import check_shapes, without_nan
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

__all__ = ["CategoryQuality", "MeanQuality", "Panoptic", "PanopticQuality", "PanopticScores"]

_UNIT = 1 << 53
"""Each double from one half to one is a multiple of 1 / 2**53, so IoUs add up as integers."""


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
    """Number of categories that occur, in truth or prediction."""


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
        """Return JSON-ready values, in which NaN is None; `per_class` is by name."""
        document = asdict(self)
        scores = document["per_class"].values()
        return without_nan(document | {"per_class": {score.pop("name"): score for score in scores}})


class PanopticQuality:
    """Exact counts of matched and unmatched segments per category, which merge in any order.

    >>> quality = PanopticQuality([{"id": 7, "name": "cat", "isthing": 1}])
    >>> one_cat = Panoptic(np.array([[0, 3, 3]]), [{"id": 3, "category_id": 7}])
    >>> quality.update(prediction=one_cat, truth=one_cat)
    >>> quality.scores().pq
    1.0
    """

    def __init__(self, categories: Iterable[Mapping[str, Any]]) -> None:
        """Score segments of these categories: `id`, `name`, `isthing` (0 or 1), as in COCO."""
        self.categories = tuple(categories)
        check_categories(self.categories)
        self._rank = {category["id"]: k for k, category in enumerate(self.categories)}
        self.counts: Counts = np.zeros((3, len(self.categories)), np.int64)
        """(3, K) true positives, false positives, false negatives."""
        self._iou = [0] * len(self.categories)
        """Sum of the matches' IoU of each category, in units of 1 / 2**53."""

    def update(
        self, prediction: Panoptic | tuple[Ids, Segments], truth: Panoptic | tuple[Ids, Segments]
    ) -> None:
        """Match the segments of one image; nothing is counted if a side is refused.

        Args:
            prediction: `ids` (H, W); `iscrowd` and `area` of its segments are ignored.
            truth: `ids` (H, W).
        """
        prediction, truth = Panoptic(*prediction), Panoptic(*truth)
        check_shapes(prediction.ids, truth.ids)
        predicted, true = self._side("prediction", prediction), self._side("truth", truth)
        true.area[1:] = [
            segment.get("area", pixels)
            for segment, pixels in zip(truth.segments, true.area[1:], strict=True)
        ]
        (p, t), common = overlaps(prediction, truth)
        self._match(predicted, true, p, t, common)

    def _side(self, name: str, panoptic: Panoptic) -> "_Side":
        with named(name):
            check_segments(panoptic.segments, self._rank)
            area = check_panoptic(panoptic)
        rank = [self._rank[segment["category_id"]] for segment in panoptic.segments]
        crowd = [bool(segment.get("iscrowd", 0)) for segment in panoptic.segments]
        # Void, at place 0, has no category and, like a crowd, is never a false negative.
        return _Side(
            area=np.concatenate([[0], area]),
            rank=np.array([len(self._rank), *rank]),
            crowd=np.array([True, *crowd]),
        )

    def _match(
        self, predicted: "_Side", true: "_Side", p: Places, t: Places, common: Counts
    ) -> None:
        """Count one image whose places p[m] and t[m] share common[m] pixels, (M,) each."""
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
        """Add the counts of `other`, which has the same categories."""
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
            **vars(_mean(scores)),
            things=_mean(score for score in scores if score.isthing),
            stuff=_mean(score for score in scores if not score.isthing),
            per_class=per_class,
        )


class _Side(NamedTuple):
    """The N segments of truth or prediction by place; void is at place 0."""

    area: Counts
    """(1 + N,) pixels."""
    rank: Counts
    """(1 + N,) index of the category among the K; K for void."""
    crowd: NDArray[np.bool_]
    """(1 + N,)"""


def _category_quality(
    category: Mapping[str, Any], iou: int, tp: int, fp: int, fn: int
) -> CategoryQuality:
    """Return the scores of a category whose matches' IoU add up to `iou` / 2**53."""
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


def _mean(scores: Iterable[CategoryQuality]) -> MeanQuality:
    kept = [score for score in scores if not np.isnan(score.pq)]
    pq, sq, rq = (
        fmean(getattr(score, name) for score in kept) if kept else np.nan
        for name in ("pq", "sq", "rq")
    )
    return MeanQuality(pq=pq, sq=sq, rq=rq, num_categories=len(kept))
