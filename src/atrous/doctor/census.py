"""The values of all masks together, and which of them are more than the blur of an edge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atrous.doctor.levels import are_spread, find_levels
from atrous.doctor.survey import Tally, rgb
from atrous.images.label_maps import TRANSPARENT
from atrous.taxonomy import IGNORE_INDEX

_RARE = 0.1
"""Of all masks: an id of fewer, or of one alone, may be a stray one."""
_LITTLE = 0.02
"""Of a mask: what is less, and in no other one, may be a stray."""
_FEW_MASKS = 4
"""Of fewer masks nothing is said to be rare."""
_UNITS = {"index": 1, "palette": 1, "mat": 1, "rgb": 0x010101}
"""The value of grey 1 in each encoding whose values may be greys."""
_NOISE = 8
"""How far JPEG of a high quality leads from black or white."""
_NEAR_GREY = 12
"""Channels that differ by less are a grey to JPEG."""


@dataclass(frozen=True, eq=False)
class Census:
    """The values of all masks together, sorted; each array is (N,)."""

    values: NDArray[np.int64]
    counts: NDArray[np.int64]
    masks: NDArray[np.int64]
    """In how many masks."""
    clean: NDArray[np.int64]
    """In how many whose edges are not blurred."""
    crests: NDArray[np.int64]
    """Pixels that do not lie between two others."""
    is_region: NDArray[np.bool_]
    """Whether it lies somewhere as more than the blur of an edge."""
    is_alone: NDArray[np.bool_]
    """Whether it is less than 2 % of one mask, and in no other; never where many are so."""
    is_mixed: NDArray[np.bool_]
    """Whether it lies on the edge between others only, and is one of several that do."""
    num_masks: int
    one_or_white: bool = False
    """Whether some masks hold 1, others 255, and none both."""
    beside_clear: frozenset[int] = frozenset()
    """The values of masks that hold transparent pixels."""
    levels: tuple[int, ...] = ()
    """The greys that stand for classes, all others being the blur of these; often empty."""

    def regions(self) -> list[int]:
        """The values that are regions, sorted; where there are levels, these."""
        return [*self.levels] or self.values[self.is_region].tolist()

    def is_rare(self, value: int) -> bool:
        """Whether so few masks hold a value that it may be there by mistake."""
        masks = self.masks[self.values == value].sum()
        return self.num_masks >= _FEW_MASKS and bool(masks <= max(1.0, _RARE * self.num_masks))


def take_census(tallies: Sequence[Tally], blurred: Sequence[bool], encoding: str) -> Census:
    """Sum up what masks hold.

    Args:
        tallies: of each mask.
        blurred: of each, whether its edges are interpolated.
        encoding: what the values are: 24-bit codes in "rgb", for example.
    """
    if not tallies:
        nothing = np.zeros(0, np.int64)
        never = nothing.astype(bool)
        return Census(nothing, nothing, nothing, nothing, nothing, never, never, never, 0)
    every = np.concatenate([tally.values for tally in tallies])
    values, places = np.unique(every, return_inverse=True)

    def total(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        return np.bincount(places, np.concatenate(parts), len(values)).astype(np.int64)

    counts = total([tally.counts for tally in tallies])
    solid = total([tally.solid for tally in tallies])
    masks = total([np.ones_like(tally.values) for tally in tallies])
    clean = total(
        [np.full_like(t.values, not blur) for t, blur in zip(tallies, blurred, strict=True)]
    )
    is_region = (clean > 0) | ((solid > 0.1 * counts) & (counts > 1e-3 * counts.sum()))
    alone = (masks == 1) & (counts * len(tallies) < _LITTLE * counts.sum())
    holders = sum(bool(np.isin(values[alone], tally.values).any()) for tally in tallies)
    if len(tallies) < _FEW_MASKS or holders > max(1, _RARE * len(tallies)):
        alone[:] = False  # many rare classes
    soft = total([tally.soft for tally in tallies])
    mixed = (solid == 0) & (2 * soft >= counts) & (counts < 1e-3 * counts.sum())
    mixed &= mixed.sum() > 2
    ones, whites = ({n for n, t in enumerate(tallies) if i in t.values} for i in (1, IGNORE_INDEX))
    clear = [t.values.tolist() for t in tallies if encoding == "rgb" and TRANSPARENT in t.values]
    unit = _UNITS.get(encoding, 0)
    greys = _greys(values, counts, unit)
    levels = () if greys is None else _levels(greys, counts, solid, soft, clean)
    return Census(
        values=values,
        counts=counts,
        masks=masks,
        clean=clean,
        crests=np.maximum(counts - soft, 0),
        is_region=is_region,
        is_alone=alone,
        is_mixed=mixed,
        num_masks=len(tallies),
        one_or_white=bool(ones and whites and not ones & whites),
        beside_clear=frozenset[int]().union(*clear),
        levels=tuple(grey * unit for grey in levels),
    )


def _greys(
    values: NDArray[np.int64], counts: NDArray[np.int64], unit: int
) -> NDArray[np.int64] | None:
    """The grey of each value, 0 to 255; None where they are no greys of 8 bits."""
    if unit <= 1:
        return values if unit and values.min() >= 0 and values.max() < 256 else None
    channels = rgb(values)  # (3, N)
    is_color = np.ptp(channels, axis=0) > _NEAR_GREY
    few = counts[is_color].sum() <= 1e-3 * counts.sum()
    return np.rint(channels.mean(0)).astype(np.int64) if few else None


def _levels(
    greys: NDArray[np.int64],
    counts: NDArray[np.int64],
    solid: NDArray[np.int64],
    soft: NDArray[np.int64],
    clean: NDArray[np.int64],
) -> tuple[int, ...]:
    """The levels of masks that are blurred, or some of them; none where all are drawn."""
    drawn = np.unique(greys[clean > 0])
    # JPEG of a high quality leaves hardly any edges soft, but greys that nobody draws.
    noisy = ((drawn > 0) & (drawn < _NOISE)).any() and (
        (drawn > 255 - _NOISE) & (drawn < 255)
    ).any()
    if len(drawn) > 1 and not noisy:
        return tuple(drawn.tolist()) if (clean == 0).any() and are_spread(drawn.tolist()) else ()
    return find_levels(*(np.bincount(greys, part, 256) for part in (counts, solid, soft)))
