"""Scatter charts as plain numbers, which a template draws as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from atrous.report.tables import row_color

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 44, 408, 12, 240
"""Edges of the field, in units of the drawing; the margins hold labels."""

RADIUS = 9
"""Of the disc that holds the number of a point."""
_MARKS = 5


@dataclass(frozen=True)
class Point:
    """A point and its interval, in units of the drawing."""

    number: int
    color: str
    x: float
    y: float
    low: float
    high: float
    disc: float
    """Where across the number stands: beside the point if another number is in its place."""


@dataclass(frozen=True)
class Chart:
    """Axes and points, in units of the drawing."""

    title: str
    """Title of the horizontal axis."""
    columns: Sequence[tuple[float, str]]
    """Positions and texts of the marks of the horizontal axis."""
    rows: Sequence[tuple[float, str]]
    """Positions and texts of the marks of the vertical axis."""
    points: Sequence[Point]


def chart(title: str, x: Sequence[float], y: Sequence[tuple[float, float, float]]) -> Chart:
    """Place points, numbered from 1, between round marks; the horizontal axis begins at 0.

    Args:
        title: of the horizontal axis.
        x: 0 or more; NaN for no point.
        y: value and ends of its interval; NaN ends for no interval.
    """
    known = [i for i in range(len(x)) if not (math.isnan(x[i]) or math.isnan(y[i][0]))]
    ends = [[y[i][0] if math.isnan(value) else value for value in y[i]] for i in known]
    across = marks([0.0, *(x[i] for i in known)])
    up = marks([value for each in ends for value in each] or [0.0])

    def column(value: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * value / across[-1], 1)

    def row(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - up[0]) / (up[-1] - up[0]), 1)

    places = [(column(x[i]), row(values[0])) for i, values in zip(known, ends, strict=True)]
    points = [
        Point(i + 1, row_color(i + 1), *place, row(low), row(high), disc)
        for i, place, (_, low, high), disc in zip(known, places, ends, _beside(places), strict=True)
    ]
    return Chart(
        title,
        columns=[(column(mark), f"{mark:g}") for mark in across],
        rows=[(row(mark), f"{mark:g}") for mark in up],
        points=points,
    )


def _beside(points: Sequence[tuple[float, float]]) -> list[float]:
    """Return where across the number of each point stands, so that none covers another."""
    taken: list[tuple[float, float]] = []
    for x, y in points:
        steps = (side * 2 * RADIUS * n for n in range(2 * len(points)) for side in (1, -1))
        free = (
            x + step
            for step in steps
            if x + step <= WIDTH - RADIUS
            and all(math.dist((x + step, y), other) >= 2 * RADIUS for other in taken)
        )
        taken.append((round(next(free), 1), y))
    return [x for x, _ in taken]


def marks(values: Sequence[float]) -> list[float]:
    """Return about five round numbers that enclose `values`.

    >>> marks([0.0, 17.3])
    [0.0, 5.0, 10.0, 15.0, 20.0]
    """
    low, high = min(values), max(values)
    rough = max(high - low, 1e-3) / _MARKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [round(step * i, 9) for i in range(first, last + 1)]
