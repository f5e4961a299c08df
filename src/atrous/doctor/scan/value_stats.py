"""The values of all masks together, and which of them are more than the blur of an edge."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from atrous.doctor.scan.levels import are_spread, find_levels
from atrous.doctor.scan.mask_stats import MaskStats, rgb
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
class ValueStats:
    """The values of all masks together, sorted; each array is (N,)."""

    values: NDArray[np.int64]
    counts: NDArray[np.int64]
    masks: NDArray[np.int64]
    """Masks that hold it."""
    clean: NDArray[np.int64]
    """Masks that hold it and whose edges are not blurred."""
    not_between: NDArray[np.int64]
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
    beside_transparent: frozenset[int] = frozenset()
    """The values of masks that hold transparent pixels."""
    levels: tuple[int, ...] = ()
    """The greys that stand for classes, all others being the blur of these; often empty."""

    def regions(self) -> list[int]:
        """The values that are regions, sorted; where there are levels, these."""
        return [*self.levels] or self.values[self.is_region].tolist()

    def is_rare(self, value: int) -> bool:
        """Return whether so few masks hold a value that it may be a mistake."""
        masks = self.masks[self.values == value].sum()
        return self.num_masks >= _FEW_MASKS and bool(masks <= max(1.0, _RARE * self.num_masks))

    def share(self, values: Iterable[int]) -> float:
        """Return the part of all pixels that has one of `values`."""
        held = self.counts[np.isin(self.values, [*values])].sum()
        return float(held / max(int(self.counts.sum()), 1))


def sum_up(masks: Sequence[MaskStats], encoding: str) -> ValueStats:
    """Sum up what masks hold; `encoding` says what the values are ("rgb": 24-bit codes)."""
    every = np.concatenate([np.zeros(0, np.int64), *(mask.values for mask in masks)])
    values, places = np.unique(every, return_inverse=True)

    def total(part: Callable[[MaskStats], NDArray[np.int64]]) -> NDArray[np.int64]:
        weights = np.concatenate([np.zeros(0, np.int64), *map(part, masks)])
        return np.bincount(places, weights, len(values)).astype(np.int64)

    counts, solid, soft = (total(attrgetter(name)) for name in ("counts", "solid", "soft"))
    holders = total(lambda mask: np.ones_like(mask.values))
    clean = total(lambda mask: np.full_like(mask.values, not mask.is_blurred))
    is_region = (clean > 0) | ((solid > 0.1 * counts) & (counts > 1e-3 * counts.sum()))
    alone = (holders == 1) & (counts * len(masks) < _LITTLE * counts.sum())
    with_alone = sum(bool(np.isin(values[alone], mask.values).any()) for mask in masks)
    if len(masks) < _FEW_MASKS or with_alone > max(1, _RARE * len(masks)):
        alone[:] = False  # many rare classes
    mixed = (solid == 0) & (2 * soft >= counts) & (counts < 1e-3 * counts.sum())
    mixed &= mixed.sum() > 2
    ones, whites = ({n for n, m in enumerate(masks) if i in m.values} for i in (1, IGNORE_INDEX))
    clear = [m.values.tolist() for m in masks if encoding == "rgb" and TRANSPARENT in m.values]
    unit = _UNITS.get(encoding, 0)
    greys = _greys(values, counts, unit)
    levels = () if greys is None else _levels(greys, counts, solid, soft, clean)
    return ValueStats(
        values=values,
        counts=counts,
        masks=holders,
        clean=clean,
        not_between=np.maximum(counts - soft, 0),
        is_region=is_region,
        is_alone=alone,
        is_mixed=mixed,
        num_masks=len(masks),
        one_or_white=bool(ones and whites and not ones & whites),
        beside_transparent=frozenset[int]().union(*clear),
        levels=tuple(grey * unit for grey in levels),
    )


def _greys(
    values: NDArray[np.int64], counts: NDArray[np.int64], unit: int
) -> NDArray[np.int64] | None:
    """Return the grey of each value, 0 to 255; None where values are no greys of 8 bits."""
    if not unit or not values.size:
        return None
    if unit == 1:
        return values if values.min() >= 0 and values.max() < 256 else None
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
    """Return the levels where masks, or some of them, are blurred; empty where none is."""
    drawn = np.unique(greys[clean > 0])
    # JPEG of a high quality leaves hardly any edges soft, but greys that nobody draws.
    noisy = ((drawn > 0) & (drawn < _NOISE)).any() and (
        (drawn > 255 - _NOISE) & (drawn < 255)
    ).any()
    if len(drawn) > 1 and not noisy:
        return tuple(drawn.tolist()) if (clean == 0).any() and are_spread(drawn.tolist()) else ()
    return find_levels(*(np.bincount(greys, part, 256) for part in (counts, solid, soft)))
