"""Findings: what the doctor says, and the words that all of them share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import color_name
from atrous.doctor.census import Census
from atrous.doctor.scheme import Scheme
from atrous.doctor.splits import Layout
from atrous.doctor.survey import Pair, Reading

Severity = Literal["problem", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of fault, or a remark, and where it was found."""

    code: str
    severity: Severity
    count: int
    """Of what the message begins with: masks, images, classes."""
    message: str
    examples: tuple[str, ...]
    """All of them, each on one line."""
    mend: str
    pairs: tuple[Pair, ...] = ()
    """Those it speaks of, for pictures."""
    leaves_out: bool = False
    """Whether `--write` leaves these pairs out."""

    def to_dict(self) -> dict[str, Any]:
        """The form that docs/doctor.md describes."""
        return {
            "code": self.code,
            "severity": self.severity,
            "count": self.count,
            "message": self.message,
            "examples": list(self.examples),
            "mend": self.mend,
        }


@dataclass(frozen=True, eq=False)
class Case:
    """All that was seen of a folder."""

    folder: Path
    layout: Layout
    scheme: Scheme
    places: Mapping[int, int]
    """The class of each value in the tallies that is known."""
    readings: Sequence[Reading]
    blurred: Sequence[bool]
    """Of each reading."""
    counts: Mapping[Pair, NDArray[np.int64]]
    """(K + 1,) pixels of each class, and last of none."""
    census: Census
    described: bool
    """Whether the folder has a dataset.toml."""
    no_data: frozenset[int] = frozenset()
    """Ids that GeoTIFFs declare as no data."""


def class_counts(
    reading: Reading, places: Mapping[int, int], num_classes: int
) -> NDArray[np.int64]:
    """Pixels of each class, and last of none, (K + 1,)."""
    counts = np.zeros(num_classes + 1, np.int64)
    if reading.tally:
        entries = zip(reading.tally.values.tolist(), reading.tally.counts.tolist(), strict=True)
        for value, count in entries:
            counts[places.get(value, num_classes)] += count
    return counts


def value_name(scheme: Scheme, value: int) -> str:
    """Write a value of a mask: an id, or a colour."""
    return color_name(value) if scheme.encoding == "rgb" else str(value)


def many(count: int, noun: str) -> str:
    """Write a count.

    >>> many(1, "mask"), many(1200, "class")
    ('1 mask', '1,200 classes')
    """
    plural = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{plural}"


def some(names: Iterable[str], most: int = 4) -> str:
    """Name the first few, and say how many there are besides.

    >>> some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
