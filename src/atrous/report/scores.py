"""Evaluations as text of 80 columns."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from atrous.evaluation.evaluate import Evaluation, Reference, Truth
from atrous.metrics.interval import BOUNDARY_MEANS, SIGNIFICANT, PairedTest
from atrous.metrics.panoptic_quality import PanopticScores
from atrous.metrics.protocols import PROTOCOLS
from atrous.report.tables import WIDTH, Table, fit
from atrous.text import amount, percent, percent_range, points

SHOWN = 10
"""Number of best and of worst classes shown, if there are more than four times this number."""


def evaluation_text(evaluation: Evaluation) -> str:
    """Return the means, the classes and the requested scores."""
    classes, scores, boundary = evaluation.truth.classes, evaluation.scores, evaluation.boundary
    lines = [*title(evaluation.name, evaluation.truth), *_means(evaluation)]
    columns = {"IoU": scores.iou, "acc": scores.acc}
    if boundary is not None:
        columns |= {"b-IoU": boundary.iou, "b-F": boundary.f}
    lines.append(score_table(classes, columns))
    for names, level in evaluation.levels[:-1]:
        lines.append(f"{len(names)} groups of classes: mIoU {percent(level.miou).strip()}")
        lines.append(score_table(names, {"IoU": level.iou, "acc": level.acc}))
    if evaluation.pairs:
        lines.append("most frequent confusions, with their share of the true class:")
    for pair in evaluation.pairs or ():
        true, predicted = (fit(classes[k], 28).rstrip() for k in pair[:2])
        lines.append(f"  {percent(pair.share)} %  {true} taken for {predicted}")
    if evaluation.reference is not None:
        lines += _difference(evaluation.reference, amount(evaluation.num_images, "image"))
    return "\n".join(lines)


def panoptic_text(scores: PanopticScores, num_images: int) -> str:
    """Return the means, then each category, best PQ first."""
    categories = scores.per_class.values()
    lines = [
        f"{amount(num_images, 'image')}, {amount(len(categories), 'category', 'categories')}, "
        "panoptic quality as in panopticapi"
    ]
    for part, mean in (("all", scores), ("things", scores.things), ("stuff", scores.stuff)):
        lines.append(
            f"  {part:6}  PQ {percent(mean.pq)}   SQ {percent(mean.sq)}   RQ {percent(mean.rq)}"
            f"   of {mean.num_categories} that occur"
        )
    columns = {
        name.upper(): np.array([getattr(score, name) for score in categories])
        for name in ("pq", "sq", "rq")
    }
    return "\n".join([*lines, score_table([score.name for score in categories], columns)])


def score_table(names: Sequence[str], columns: Mapping[str, NDArray[np.float64]]) -> str:
    """Return a row for each class, best first by the first column, which is drawn as a bar, too.

    If there are many classes, only the best and the worst with a score are shown.

    Args:
        names: K classes or groups.
        columns: heading of at most 5 letters -> (K,) fractions; four at most.
    """
    leading = next(iter(columns.values()))
    order = np.argsort(-np.nan_to_num(leading, nan=-1.0), kind="stable").tolist()  # NaN comes last
    hidden = 0
    if len(order) > 4 * SHOWN:
        scored = order[: np.count_nonzero(~np.isnan(leading))]
        shown = scored[:SHOWN] + scored[SHOWN:][-SHOWN:]
        hidden, order = len(order) - len(shown), shown
    cells = {heading: [percent(column[k]) for k in order] for heading, column in columns.items()}
    table = Table(names=[names[k] for k in order], columns=cells)
    longest = WIDTH - 6 - len(table.to_text().splitlines()[0])
    bars = ["█" * round(longest * float(np.nan_to_num(leading[k]))) for k in order]
    lines = Table(names=table.names, columns=cells | {"": bars}, left=[""]).to_text().splitlines()
    if hidden:
        lines.insert(1 + SHOWN, f"  ... {hidden} more; --json has all of them")
    return "\n".join(lines)


def conclusion(test: PairedTest, p_value: float) -> str:
    """Say whether a difference is significant, with its interval."""
    significant = "significant" if p_value < SIGNIFICANT else "not significant"
    return f"(95 %: {points(test.low)} to {points(test.high)}, p = {p_value:.2g}): {significant}"


def title(name: str, truth: Truth) -> list[str]:
    """Name the model and the data, and the number of images if some are missing here."""
    lines = [f"{name} on {truth.dataset.name}, split {truth.split}"]
    here, missing = len(truth.samples), truth.samples.missing
    if missing:
        lines.append(f"{here:,} of {here + missing:,} images of the list are here")
    return lines


def _means(evaluation: Evaluation) -> list[str]:
    scores = evaluation.scores
    images = amount(evaluation.num_images, "image")
    classes = amount(len(evaluation.truth.classes), "class", "classes")
    header = f"{images}, {classes}, protocol {scores.protocol}:"
    meaning = PROTOCOLS[scores.protocol]
    fits = len(header) + 1 + len(meaning) <= WIDTH
    lines = [
        f"{header} {meaning}" if fits else f"{header}\n  {meaning}",
        f"  mIoU {percent(scores.miou)}   fwIoU {percent(scores.fwiou)}"
        f"   mAcc {percent(scores.macc)}   pAcc {percent(scores.pacc)}",
    ]
    if ends := percent_range(*evaluation.intervals["miou"]):
        lines.append(f"  95 % interval of mIoU: {ends}")
    if (boundary := evaluation.boundary) is not None:
        lines.append(f"  boundary IoU {percent(boundary.miou)}   boundary F {percent(boundary.mf)}")
        both = [percent_range(*evaluation.intervals[name]) for name in BOUNDARY_MEANS]
        if all(both):
            lines.append(f"  95 % intervals: {', '.join(both)}")
    if evaluation.calibration is not None:
        lines.append(f"  expected calibration error {percent(evaluation.calibration.ece())}")
    return lines


def _difference(reference: Reference, images: str) -> list[str]:
    test = reference.test
    lines = [f"against {reference.name}: mIoU {percent(reference.miou).strip()}"]
    if np.isnan(test.difference):
        return [*lines, "  one of the two mIoU is undefined, and so is their difference"]
    if np.isnan(test.p_value):
        return [*lines, f"  {images}: too few for a test of significance"]
    better = "worse" if test.difference < 0 else "better"
    said = conclusion(test, test.p_value)
    return [*lines, f"  {100 * abs(test.difference):.1f} {better} {said} on {images}"]
