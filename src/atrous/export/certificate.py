"""Certificates: labels and scores of a bundle compared with those of torch in float32.

A bundle passes if neither the IoU of a class nor the mean IoU falls by more than the budget, in
points (hundredths). Usually the worst class decides. A class that is not in the truth counts only
in the mean, if it is predicted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atrous.data.sample import Sample
from atrous.errors import about
from atrous.evaluation.score import Predict
from atrous.metrics import Confusion, Scores
from atrous.metrics.interval import Interval, intervals
from atrous.progress import Progress, silent

__all__ = ["Certificate", "certify"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """The comparison of a bundle with its network in torch."""

    classes: tuple[str, ...]
    """K names."""
    num_images: int
    agreement: float
    """Fraction of all pixels, labelled or not, that both give the same label."""
    before: Scores
    """Scores of the reference, torch in float32."""
    after: Scores
    """Scores of the bundle."""
    budget: float
    """Points of IoU that each class, and their mean, may lose."""
    intervals: Mapping[str, Interval]
    """95 % intervals of the bundle's mean scores, by name."""

    @property
    def changes(self) -> dict[str, float]:
        """Change of IoU in points, worst first, of each class that both models have a score of."""
        points = 100 * (self.after.iou - self.before.iou)  # (K,)
        scored = ((c, float(p)) for c, p in zip(self.classes, points, strict=True) if p == p)
        return dict(sorted(scored, key=lambda item: item[1]))

    @property
    def passed(self) -> bool:
        """Whether no loss exceeds the budget; false if no class has a score."""
        mean = 100 * (self.after.miou - self.before.miou)
        return bool(self.changes) and min(mean, *self.changes.values()) >= -self.budget

    def to_dict(self) -> dict[str, Any]:
        """Return the scores in a bundle's metadata: those of the bundle and of the reference."""
        return {
            "images": self.num_images,
            **self.after.to_dict(self.classes),
            "intervals": {k: list(x) for k, x in self.intervals.items() if x.low == x.low},
            "torch_fp32": self.before.to_dict(self.classes),
            "agreement": self.agreement,
            "worst_change": min(self.changes.values(), default=None),
            "budget": self.budget,
        }


def certify(
    reference: Predict,
    bundle: Predict,
    samples: Sequence[Sample],
    classes: tuple[str, ...],
    budget: float,
    progress: Progress = silent,
) -> Certificate:
    """Label each image by both models, and score both against the truth.

    Args:
        reference: the network in torch, in float32.
        bundle: the bundle that was exported from it.
        samples: labelled images that neither training nor calibration has seen.
        classes: K names.
        budget: points of IoU that a class may lose, 0 or more.
        progress: called after each image.
    """
    before, after = Confusion(len(classes)), Confusion(len(classes))
    equal = total = 0
    for done, sample in enumerate(samples, start=1):
        expected, labels = reference(sample.image), bundle(sample.image)
        with about(sample.key):
            before.update(expected, sample.label)
            after.update(labels, sample.label)
        equal += int(np.count_nonzero(expected == labels))
        total += labels.size
        progress(done, len(samples))
    return Certificate(
        classes=classes,
        num_images=len(samples),
        agreement=equal / total if total else np.nan,
        before=before.scores(),
        after=after.scores(),
        budget=budget,
        intervals=intervals(after.counts()),
    )
