"""What `atrous compare` says: tables of 80 columns."""

from collections.abc import Iterator, Sequence

import numpy as np

from atrous.evaluation.compare import Weighing
from atrous.metrics.interval import SIGNIFICANT
from atrous.metrics.protocols import PROTOCOLS, percent
from atrous.metrics.table import SHOWN, between, fit, grid, signed
from atrous.text import amount

_NAME = 19
"""Columns for the name of a model or a class."""
_SENTENCES = 3
"""So many pairs are told in words; more become a table."""


def tables(weighing: Weighing) -> Iterator[str]:
    """Yield the lines: scores, costs, differences, classes, images."""
    count, classes = len(weighing.keys), amount(weighing.taxonomy.num_classes, "class", "classes")
    yield (
        f"{weighing.data}, split {weighing.split}: {amount(len(weighing.models), 'model')}, "
        f"{amount(count, 'image')}, {classes}"
    )
    if weighing.missing:
        yield f"{count:,} of {count + weighing.missing:,} images of the list are here"
    yield f"protocol {weighing.protocol}: {PROTOCOLS[weighing.protocol]}"
    names = [f"{i:2} {fit(model.name, _NAME)}" for i, model in enumerate(weighing.models, start=1)]
    yield from _scores(weighing, names)
    yield from _costs(weighing, names)
    if len(weighing.differences) <= _SENTENCES:
        yield from map(str, weighing.differences)
    else:
        yield from _differences(weighing, names)
    yield from _classes(weighing)
    yield "\nmost different images, and the range of their mIoU:"
    for i in weighing.most_different():
        low, high = np.min(weighing.mious[:, i]), np.max(weighing.mious[:, i])
        yield f"  {percent(low)} to {percent(high)}  {weighing.keys[i]}"


def _scores(weighing: Weighing, names: Sequence[str]) -> list[str]:
    models = weighing.models
    return grid(
        names,
        {
            "mIoU": [percent(m.scores.miou) for m in models],
            "95 %": [between(*m.intervals["miou"]) for m in models],
            "fwIoU": [percent(m.scores.fwiou) for m in models],
            "mAcc": [percent(m.scores.macc) for m in models],
            "pAcc": [percent(m.scores.pacc) for m in models],
            "b-IoU": [percent(m.boundary.miou) for m in models],
            "b-F": [percent(m.boundary.mf) for m in models],
        },
    )


def _costs(weighing: Weighing, names: Sequence[str]) -> Iterator[str]:
    height, width = weighing.size
    models = weighing.models
    runtimes = list(dict.fromkeys(runtime for m in models for runtime in m.speeds))
    milliseconds, megabytes = {}, {}
    for runtime in runtimes:
        speeds = [m.speeds.get(runtime) for m in models]
        milliseconds[runtime] = [f"{1e3 * s.seconds:.1f}" if s else "-" for s in speeds]
        megabytes[runtime] = [f"{s.memory / 1e6:.0f}" if s and s.memory else "-" for s in speeds]
    yield f"\none image of {width}x{height}" + "; milliseconds in each runtime" * bool(runtimes)
    counted = {
        "params M": [f"{m.cost.parameters / 1e6:.2f}" for m in models],
        "mult-adds G": [f"{m.cost.multiply_adds / 1e9:.2f}" for m in models],
    }
    yield from grid(names, counted | milliseconds)
    if runtimes:
        yield "most memory of a process that labels it, MB"
        yield from grid(names, megabytes)
        threads = amount(weighing.machine["threads"], "thread")
        yield f"  {weighing.machine['processor']}, {threads}"
    for runtime, reason in weighing.lacking.items():
        yield f"  {runtime}: {reason}"
    yield ""


def _differences(weighing: Weighing, names: Sequence[str]) -> Iterator[str]:
    pairs = weighing.differences
    yield "mIoU of the row less that of the column, in points; * told apart"
    yield f"  (p < {SIGNIFICANT}, adjusted for {amount(len(pairs), 'pair')} after Holm)"
    place = {model.name: i for i, model in enumerate(weighing.models)}
    cells = [[""] * len(place) for _ in place]
    for pair in pairs:
        mark = "*" if pair.real else " "
        row, column = place[pair.first], place[pair.second]
        cells[column][row] = signed(pair.comparison.difference) + mark
    yield from grid(names, {str(i): column for i, column in enumerate(cells, start=1)})


def _classes(weighing: Weighing) -> Iterator[str]:
    names = weighing.taxonomy.classes
    iou = np.stack([model.scores.iou for model in weighing.models])  # (models, K)
    order = np.argsort(-np.nan_to_num(iou[0], nan=-1.0), kind="stable")
    title = "IoU of each class"
    if len(names) > 4 * SHOWN:
        spread = np.nan_to_num(np.ptp(iou, axis=0))
        order = np.argsort(-spread, kind="stable")[: 2 * SHOWN]
        title = f"IoU of the {2 * SHOWN} classes in which they differ most; --json has all"
    yield f"\n{title}"
    yield from grid(
        [fit(names[k], _NAME + 3) for k in order],
        {str(i): [percent(each[k]) for k in order] for i, each in enumerate(iou, start=1)},
    )
