"""What a bundle changed: its labels and scores beside those of torch in float, on real images.

A bundle passes if neither the IoU of a class nor their mean falls by more than the budget, in
points (hundredths). As a rule the worst class decides; but a class that never occurs in the truth
has a say in the mean alone, from when it is first predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from atrous.errors import InputError
from atrous.evaluation.score import Predict
from atrous.metrics import Confusion, Scores
from atrous.progress import Progress
from atrous.text import amount, percent

if TYPE_CHECKING:
    from atrous.data.dataset import Sample


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """The comparison, and whether it stays within the budget."""

    classes: tuple[str, ...]
    num_images: int
    agreement: float
    """Fraction of all pixels, labelled or not, that both give the same label."""
    before: Scores
    """Of the reference, torch in float32."""
    after: Scores
    """Of the bundle."""
    budget: float
    """How far the IoU of a class may fall, in points."""

    @property
    def changes(self) -> dict[str, float]:
        """The change of each class's IoU in points, worst first; without those not scored twice."""
        points = 100 * (self.after.iou - self.before.iou)  # (K,)
        scored = ((c, float(p)) for c, p in zip(self.classes, points, strict=True) if p == p)
        return dict(sorted(scored, key=lambda item: item[1]))

    @property
    def passed(self) -> bool:
        """Whether nothing lost more than the budget; false where no class could be scored."""
        mean = 100 * (self.after.miou - self.before.miou)
        return bool(self.changes) and min(mean, *self.changes.values()) >= -self.budget

    def __str__(self) -> str:
        """A summary in one line, then a table per class, worst change first; 80 columns."""
        name, change = next(iter(self.changes.items()), ("no class", np.nan))
        images = amount(self.num_images, "image")
        width = min(max(len(name) for name in self.classes), 36)
        lines = [
            f"certificate on {images}, protocol {self.after.protocol}:",
            f"  labels equal to torch fp32 on {100 * self.agreement:.1f} %",
            f"  mIoU {100 * self.before.miou:.1f} -> {100 * self.after.miou:.1f}; worst class"
            f" {name} {change:+.1f} (budget {self.budget:g}): {'pass' if self.passed else 'FAIL'}",
            f"  {'':{width}}  {'torch':>5}  {'now':>5}  {'change':>6}",
        ]
        for name, change in self.changes.items():
            k = self.classes.index(name)
            before, after = percent(self.before.iou[k]), percent(self.after.iou[k])
            lines.append(f"  {name[:width]:{width}}  {before}  {after}  {change:+6.1f}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The bundle's scores, with the reference's beside them: what its metadata hold."""
        return {
            "images": self.num_images,
            **self.after.to_dict(self.classes),
            "torch_fp32": self.before.to_dict(self.classes),
            "agreement": self.agreement,
            "worst_change": min(self.changes.values(), default=None),
            "budget": self.budget,
        }


def compare(
    reference: Predict,
    bundle: Predict,
    samples: "Sequence[Sample]",
    classes: tuple[str, ...],
    budget: float,
    progress: Progress | None = None,
) -> Certificate:
    """Label each image by both, and score both against the truth.

    Args:
        reference: torch in float32.
        bundle: what was made of it.
        samples: labelled images that neither training nor calibration has seen.
        classes: K names.
        budget: how far the IoU of a class may fall, in points, 0 or more.
        progress: told of each image that is done.

    Raises:
        InputError: an image cannot be read, or a label does not fit; the line names the image.
    """
    before, after = Confusion(len(classes)), Confusion(len(classes))
    equal = total = 0
    for index in range(len(samples)):
        sample = samples[index]
        expected, labels = reference(sample.image), bundle(sample.image)
        try:
            before.update(expected, sample.label)
            after.update(labels, sample.label)
        except InputError as error:
            raise InputError(f"{sample.key}: {error}") from None
        equal += int(np.count_nonzero(expected == labels))
        total += labels.size
        if progress is not None:
            progress(index + 1, len(samples))
    return Certificate(
        classes=classes,
        num_images=len(samples),
        agreement=equal / total if total else np.nan,
        before=before.scores(),
        after=after.scores(),
        budget=budget,
    )
