"""Scores as text: tables that fit into 80 columns, and amounts in words."""

from collections.abc import Mapping, Sequence
from unicodedata import east_asian_width

import numpy as np
from numpy.typing import NDArray

from atrous.metrics.protocols import percent

SHOWN = 10
"""Of more than four times as many classes, so many of the best and of the worst are printed."""
WIDTH = 80
_LONGEST = 36


def class_table(names: Sequence[str], columns: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Rows of each class, best first by the first column, which a bar shows, too.

    Of many classes only the best and the worst are shown, of those that have a score.

    Args:
        names: K classes or groups.
        columns: heading of at most 5 letters -> (K,) fractions; four at most.
    """
    leading = next(iter(columns.values()))
    order = np.argsort(-np.nan_to_num(leading, nan=-1.0), kind="stable").tolist()  # NaN comes last
    width = min(max(map(_width, names)), _LONGEST)
    lines = ["  ".join([f"  {'':{width}}", *(f"{heading:>5}" for heading in columns)])]
    if len(order) > 4 * SHOWN:
        scored = order[: np.count_nonzero(~np.isnan(leading))]
        best, worst = scored[:SHOWN], scored[SHOWN:][-SHOWN:]
        lines += [_row(k, names, columns, width) for k in best]
        lines.append(f"  ... {len(order) - len(best + worst)} more; --json has all of them")
        return lines + [_row(k, names, columns, width) for k in worst]
    return lines + [_row(k, names, columns, width) for k in order]


def grid(names: Sequence[str], columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Rows of cells under their headings; columns that are too many for the width follow below.

    Args:
        names: of the N rows.
        columns: heading -> N cells.
    """
    width = max(map(_width, names))
    blocks: list[list[str]] = []
    room = 0
    for heading, cells in columns.items():
        breadth = 2 + max(len(heading), *map(len, cells))
        if breadth > room:
            blocks.append([" " * (2 + width), *(f"  {fit(name, width)}" for name in names)])
            room = WIDTH - 2 - width
        room -= breadth
        texts = (heading, *cells)
        blocks[-1] = [x + text.rjust(breadth) for x, text in zip(blocks[-1], texts, strict=True)]
    return [line.rstrip() for block in blocks for line in block]


def fit(name: str, width: int) -> str:
    """Pad or cut a name to `width` columns of a terminal; of a long one, its end is shown.

    >>> fit("cat", 5), fit("indoor/rug", 5), fit("猫と犬と", 5)
    ('cat  ', 'r/rug', '犬と ')
    """
    name = name[-width:]
    while _width(name) > width:
        name = name[1:]
    return name + " " * (width - _width(name))


def between(low: float, high: float) -> str:
    """The ends of an interval in percent; nothing where they are not known.

    >>> between(0.6841, 0.7), between(float("nan"), float("nan"))
    ('68.4 to 70.0', '')
    """
    return "" if np.isnan(low) else f"{percent(low).strip()} to {percent(high).strip()}"


def signed(difference: float) -> str:
    """A difference of two fractions, in points; a dash where it is undefined.

    >>> signed(0.0123), signed(-0.0), signed(float("nan"))
    ('+1.2', '+0.0', '-')
    """
    return "-" if np.isnan(difference) else f"{100 * difference + 0.0:+.1f}"


def _width(text: str) -> int:
    """How many columns a terminal needs: Chinese, Japanese and Korean letters take two."""
    return len(text) + sum(east_asian_width(letter) in "WF" for letter in text)


def _row(
    k: int, names: Sequence[str], columns: Mapping[str, NDArray[np.float64]], width: int
) -> str:
    """Class `k`: its name, its scores, and a bar as long as the first of them."""
    first = float(np.nan_to_num(next(iter(columns.values()))[k]))
    bar = "█" * round((72 - width - 7 * len(columns)) * first)
    cells = [f"  {fit(names[k], width)}", *(percent(c[k]) for c in columns.values())]
    return "  ".join([*cells, bar]).rstrip()
