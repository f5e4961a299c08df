"""The values of one mask, how many pixels each has, and how these lie.

Of three neighbours a, b, c in a row or a column where a and c differ clearly, the middle one is
*soft* where its value lies strictly between theirs, and *hard* where it is one of them. Masks that
were drawn are hard almost everywhere; masks that were resized with interpolation, or saved as JPEG,
are not.
"""

import threading
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer[Any]]

_MAX_VALUES = 512
_LARGE = 1 << 24
_ONE_AT_A_TIME = threading.Lock()
"""Held while a mask of more than `_LARGE` pixels is measured, which takes 30 bytes for each."""
_COLOR_TOLERANCE = 3.0
"""How far from the line between two colours a mixture of them may lie, by rounding."""


@dataclass(frozen=True, eq=False)
class MaskStats:
    """The values of a mask: how many pixels each has, and how these lie."""

    values: NDArray[np.int64]
    """(N,) ids or 24-bit codes, sorted; of a mask with very many the most frequent 512."""
    counts: NDArray[np.int64]
    """(N,) pixels."""
    solid: NDArray[np.int64]
    """(N,) of them those whose four neighbours have the same value."""
    soft: NDArray[np.int64]
    """(N,) of them those that are the middle of a soft triple; counted twice if of two."""
    hard: int
    """Hard triples in all."""
    is_blurred: bool = False
    """Whether its edges are interpolated, or blurred by JPEG (`mark_blurred`)."""

    def items(self) -> Iterable[tuple[int, int]]:
        """Each value and its pixels."""
        return zip(self.values.tolist(), self.counts.tolist(), strict=True)

    def pixels_of(self, value: int) -> int:
        """The pixels of one value."""
        return int(self.counts[self.values == value].sum())


def measure(ids: Ids, *, colors: bool) -> MaskStats:
    """Measure one mask, (H, W) ids or, with `colors`, 24-bit codes."""
    with _ONE_AT_A_TIME if ids.size > _LARGE else nullcontext():
        values, places = _compact(ids)
        counts = np.bincount(places.ravel(), minlength=len(values))
        solid = np.bincount(places[1:-1, 1:-1][_solid(places)], minlength=len(values))
        across, hard_across = _edges(places, values, colors=colors)
        down, hard_down = _edges(np.ascontiguousarray(places.T), values, colors=colors)
    kept = np.sort(np.argsort(-counts, kind="stable")[:_MAX_VALUES])
    soft = (across + down)[kept]
    return MaskStats(values[kept], counts[kept], solid[kept], soft, hard_across + hard_down)


def _compact(ids: Ids) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the values of a mask, sorted, and the index of each pixel's value, (H, W).

    Runs of equal pixels are looked up once: a mask has few of them.
    """
    flat = ids.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])[: flat.size])
    values, places = np.unique(flat[starts], return_inverse=True)
    lengths = np.diff(starts, append=flat.size)
    return values.astype(np.int64), np.repeat(places.astype(np.int32), lengths).reshape(ids.shape)


def _solid(places: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return whether a pixel equals its four neighbours, (H - 2, W - 2) without the border."""
    across, down = places[:, 1:] == places[:, :-1], places[1:] == places[:-1]
    beside, above = across[1:-1, 1:] & across[1:-1, :-1], down[1:, 1:-1] & down[:-1, 1:-1]
    return np.asarray(beside & above)


def _edges(
    places: NDArray[np.int32], values: NDArray[np.int64], *, colors: bool
) -> tuple[NDArray[np.int64], int]:
    """Count soft triples along rows by the value in their middle, (N,), and hard ones in all."""
    differ = np.flatnonzero(places[:, :-2] != places[:, 2:])
    rows, columns = np.divmod(differ, max(places.shape[1] - 2, 1))
    left, middle, right = (places[rows, columns + step] for step in range(3))
    is_end = (middle == left) | (middle == right)
    is_clear = _differ_clearly if colors else _leave_room
    hard = int(is_clear(values[left[is_end]], values[right[is_end]]).sum())
    left, middle, right = left[~is_end], middle[~is_end], right[~is_end]
    is_between = _is_mixture if colors else _is_between
    is_soft = is_between(values[left], values[middle], values[right])
    return np.bincount(middle[is_soft], minlength=len(values)), hard


def _leave_room(a: NDArray[np.int64], c: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether an id fits between a and c."""
    return np.asarray(abs(a - c) > 1)


def _is_between(
    a: NDArray[np.int64], b: NDArray[np.int64], c: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether the id b lies between a and c."""
    return np.asarray((np.minimum(a, c) < b) & (b < np.maximum(a, c)))


def _differ_clearly(a: NDArray[np.int64], c: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether the 24-bit codes a and c differ by more than rounding."""
    return np.asarray(((rgb(a) - rgb(c)) ** 2).sum(0) > 3)


def _is_mixture(
    a: NDArray[np.int64], b: NDArray[np.int64], c: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether the 24-bit code b is a mixture of a and c, which differ clearly."""
    from_a, line = rgb(b) - rgb(a), rgb(c) - rgb(a)  # (3, N)
    squared = (line**2).sum(0)
    share = (from_a * line).sum(0) / np.maximum(squared, 1)
    off_line = abs(from_a - share * line).max(0)
    return np.asarray((squared > 3) & (off_line <= _COLOR_TOLERANCE) & (share > 0) & (share < 1))


def rgb(codes: Ids | int) -> NDArray[np.float32]:
    """24-bit codes (N,) -> (3, N); float32 holds these integers, and their squares, exactly."""
    return np.stack([codes & 255, codes >> 8 & 255, codes >> 16]).astype(np.float32)
