"""Comparisons as tables of values, which the terminal shows as text and the page as HTML."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from atrous.evaluation.compare import TESTED, Comparison, ModelPair
from atrous.metrics.interval import BOUNDARY_MEANS, MEANS, SIGNIFICANT
from atrous.metrics.protocols import PROTOCOLS
from atrous.report.scores import SHOWN, conclusion
from atrous.report.tables import Cell, Table
from atrous.text import amount, percent, percent_range, points

Columns = dict[str, list[Cell]]
"""Heading -> a cell for each model."""

_BOUNDARY = ("b-IoU", "b-F")
_NAME = 19
"""Columns for the name of a model."""
_SENTENCES = 3
"""Most pairs that are written as sentences; more become tables."""
TESTED_NAMES = dict(zip(TESTED, ("mIoU", "boundary IoU", "boundary F"), strict=True))
"""Scores whose differences are tested -> their names in sentences and headings."""


def comparison_text(comparison: Comparison) -> str:
    """Return scores, costs, differences, classes and images, as text of 80 columns."""
    return "\n".join(_lines(comparison))


def score_columns(comparison: Comparison) -> Columns:
    """Return scores of each model in percent, with their intervals as notes."""
    columns: Columns = {heading: [] for heading in ("mIoU", "fwIoU", "mAcc", "pAcc", *_BOUNDARY)}
    for model in comparison.models:
        scores, boundary = model.scores, model.boundary
        values = [*(getattr(scores, name) for name in MEANS), boundary.miou, boundary.mf]
        ends = [model.evaluation.intervals[name] for name in (*MEANS, *BOUNDARY_MEANS)]
        for cells, value, interval in zip(columns.values(), values, ends, strict=True):
            cells.append(Cell(percent(value), percent_range(*interval)))
    return columns


def cost_columns(comparison: Comparison) -> Columns:
    """Return costs of each model, with the memory in each runtime as notes."""
    models = comparison.models
    columns = {
        "params": [Cell(f"{model.cost.parameters / 1e6:.2f} M") for model in models],
        "mult-adds": [Cell(f"{model.cost.multiply_adds / 1e9:.2f} G") for model in models],
    }
    for runtime in comparison.runtimes:
        speeds = [model.speeds.get(runtime) for model in models]
        columns[runtime] = [
            Cell(
                f"{1e3 * speed.seconds:.1f} ms" if speed else "-",
                f"{speed.memory / 1e6:.0f} MB" if speed and speed.memory else "",
            )
            for speed in speeds
        ]
    return columns


def difference_columns(comparison: Comparison, score: str = "miou") -> Columns:
    """Return the score of the row minus that of the column, in points; notes: adjusted p-values.

    Args:
        comparison: of two or more models.
        score: one of `TESTED`.
    """
    place = {model.name: i for i, model in enumerate(comparison.models)}
    cells = [[Cell("")] * len(place) for _ in place]  # by column
    for pair in comparison.pairs:
        first, second = place[pair.first], place[pair.second]
        tested = pair.differences[score]
        note = "" if np.isnan(tested.p_adjusted) else f"p {tested.p_adjusted:.2g}"
        difference = tested.test.difference
        for row, column, value in ((first, second, difference), (second, first, -difference)):
            kind = ("better" if value > 0 else "worse") if tested.significant else ""
            cells[column][row] = Cell(points(value), note, kind)
    return {str(i): column for i, column in enumerate(cells, start=1)}


def model_table(comparison: Comparison, columns: Mapping[str, Sequence[str | Cell]]) -> Table:
    """Return the numbered rows of the models, best first."""
    names = [model.name for model in comparison.models]
    return Table(names=names, columns=columns, numbered=True, name_width=_NAME)


def sentence(pair: ModelPair) -> str:
    """Say which model is better, and whether the differences are significant, in four lines."""
    difference = pair.test.difference
    if np.isnan(difference):
        return f"{pair.first} and {pair.second}: one of the two mIoU is undefined"
    better = f"{pair.first} {100 * difference:.1f} better than {pair.second}"
    if not difference:
        better = f"{pair.first} and {pair.second} have the same mIoU"
    if np.isnan(pair.p_adjusted):
        return f"{better}\n  too few images for a test of significance"
    lines = [better, f"  {conclusion(pair.test, pair.p_adjusted)}"]
    for score in BOUNDARY_MEANS:
        test, p_adjusted = pair.differences[score]
        if not np.isnan(p_adjusted):
            by = f"{TESTED_NAMES[score]} {points(test.difference)}"
            lines.append(f"  {by} {conclusion(test, p_adjusted)}")
    return "\n".join(lines)


def _lines(comparison: Comparison) -> Iterator[str]:
    count = len(comparison.keys)
    truth, missing = comparison.truth, comparison.truth.samples.missing
    yield (
        f"{truth.dataset.name}, split {truth.split}: {amount(len(comparison.models), 'model')}, "
        f"{amount(count, 'image')}, {amount(len(truth.classes), 'class', 'classes')}"
    )
    if missing:
        yield f"{count:,} of {count + missing:,} images of the list are here"
    yield f"protocol {comparison.protocol}: {PROTOCOLS[comparison.protocol]}"
    columns = score_columns(comparison)
    first, *boundary = (columns.pop(heading) for heading in ("mIoU", *_BOUNDARY))
    ends = {"mIoU": first, "95 %": [Cell(cell.note) for cell in first]}
    yield model_table(comparison, ends | columns).to_text()
    boundaries: Columns = {}
    for heading, cells in zip(_BOUNDARY, boundary, strict=True):
        boundaries |= {heading: cells, f"{heading} 95 %": [Cell(cell.note) for cell in cells]}
    yield model_table(comparison, boundaries).to_text()
    yield from _costs(comparison)
    if len(comparison.pairs) <= _SENTENCES:
        yield from map(sentence, comparison.pairs)
    else:
        yield from _differences(comparison)
    yield from _classes(comparison)
    yield "\nmost different images, and the range of their mIoU:"
    for i in comparison.most_different:
        low, high = np.min(comparison.mious[:, i]), np.max(comparison.mious[:, i])
        yield f"  {percent(low)} to {percent(high)}  {comparison.keys[i]}"


def _costs(comparison: Comparison) -> Iterator[str]:
    height, width = comparison.size
    columns = cost_columns(comparison)
    yield f"\none image of {width}x{height}" + "; time in each runtime" * bool(comparison.runtimes)
    yield model_table(comparison, columns).to_text()
    if comparison.runtimes:
        yield "peak memory of a process that labels it"
        memory = {
            runtime: [cell.note or "-" for cell in columns[runtime]]
            for runtime in comparison.runtimes
        }
        yield model_table(comparison, memory).to_text()
        threads = amount(comparison.machine["threads"], "thread")
        yield f"  {comparison.machine['processor']}, {threads}"
    for runtime, reason in comparison.unavailable.items():
        yield f"  {runtime}: {reason}"
    yield ""


def _differences(comparison: Comparison) -> Iterator[str]:
    pairs = amount(len(comparison.pairs), "pair")
    yield "the row less the column, in points; * significant"
    yield f"  (p < {SIGNIFICANT}, adjusted for {pairs} after Holm)"
    for score, name in TESTED_NAMES.items():
        columns = difference_columns(comparison, score)
        upper = {
            number: [
                cell.text + ("*" if cell.kind else " ") if row < int(number) else ""
                for row, cell in enumerate(column, start=1)
            ]
            for number, column in columns.items()
        }
        yield name
        yield model_table(comparison, upper).to_text()


def _classes(comparison: Comparison) -> Iterator[str]:
    names = comparison.truth.classes
    iou = np.stack([model.scores.iou for model in comparison.models])  # (models, K)
    order = np.argsort(-np.nan_to_num(iou[0], nan=-1.0), kind="stable")
    title = "IoU of each class"
    if len(names) > 4 * SHOWN:
        spread = np.nan_to_num(np.ptp(iou, axis=0))
        order = np.argsort(-spread, kind="stable")[: 2 * SHOWN]
        title = f"IoU of the {2 * SHOWN} classes in which they differ most; --json has all"
    yield f"\n{title}"
    columns = {str(i): [percent(row[k]) for k in order] for i, row in enumerate(iou, start=1)}
    yield Table(names=[names[k] for k in order], columns=columns, name_width=_NAME + 3).to_text()
