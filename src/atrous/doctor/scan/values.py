"""The values of all masks together, and which of them stand for classes where edges are blurred.

Masks of 0 and 255, or of a few greys as far apart, that were saved as JPEG or resized hold many
values. JPEG leaves a cluster around each level and next to nothing between. Resizing fills all
between; then a level is a value that covers regions, and the far end of what thin lines reach.
Ids close together, such as 0 to 20, cannot be told from a blur: no level is found in them.

A line of a few pixels in colour, saved as JPEG or resized, covers no region, and none of its pixels
may have the colour that was drawn. But they lie far from all mixtures of the colours of regions.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import channels_of
from atrous.doctor.scan.pairs import MaskStats, PairStats
from atrous.images.label_maps import TRANSPARENT
from atrous.taxonomy import IGNORE_INDEX

Counts = NDArray[np.int64]

_RARE = 0.1
"""Share of all masks: an id in fewer, or in a single one, may be a stray."""
_LITTLE = 0.02
"""Share of a mask: a value that has less, and is in no other mask, may be a stray."""
_FEW_MASKS = 4
"""In a set of fewer masks no value is called rare."""
_MIN_PIXELS = 8
"""Fewest pixels of a class."""
_UNITS = {"index": 1, "palette": 1, "mat": 1, "rgb": 0x010101}
"""The value of grey 1 in each encoding whose values may be greys."""
_NOISE = 8
"""JPEG of a high quality changes a grey by at most this."""
_NEAR_GREY = 12
"""A colour whose channels differ by at most this may be a grey that JPEG has changed."""

GAP = 24
"""Smallest distance between two levels."""
_SPREAD = 50
"""The highest level is at least this."""
_VALLEY = 16
"""Width of the valley between two clusters of greys."""
_EMPTY = 0.05
"""Most pixels in a valley, as a share of the smaller cluster beside it."""
_REACH = 32
"""Thin lines that reach this far beyond the outermost region are another level."""

_FAR = 48.0
"""Least distance of a colour from all mixtures of others; nearer is noise of JPEG."""
_BLEEDING = 0.08
"""Share of the pixels far from all regions: less is JPEG's bleeding of colours."""
_MAX_COLORS = 32
"""Most thin colours that are looked for."""
_MAX_COMPARED = 512
"""Most codes that are compared with each other."""


@dataclass(frozen=True, eq=False)
class ValueStats:
    """The values of all masks together, sorted; each array is (N,)."""

    values: Counts
    counts: Counts
    masks: Counts
    """Masks that hold the value."""
    clean: Counts
    """Masks without blurred edges that hold the value."""
    not_between: Counts
    """Pixels whose value is not between those of two neighbours."""
    is_region: NDArray[np.bool_]
    """Whether the value covers more than the blur of an edge somewhere."""
    is_alone: NDArray[np.bool_]
    """Whether the value is less than 2 % of a single mask; never where many values are."""
    is_mixed: NDArray[np.bool_]
    """Whether the value lies only on edges between others, and is one of several that do."""
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


def sum_up(pairs: Iterable[PairStats], encoding: str) -> ValueStats:
    """Sum up what masks hold; `encoding` says what the values are ("rgb": 24-bit codes)."""
    masks = [stats.mask for stats in pairs if stats.mask]
    every = np.concatenate([np.zeros(0, np.int64), *(mask.values for mask in masks)])
    values, places = np.unique(every, return_inverse=True)

    def total(part: Callable[[MaskStats], Counts]) -> Counts:
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


def _greys(values: Counts, counts: Counts, unit: int) -> Counts | None:
    """Return the grey of each value, 0 to 255; None where values are no greys of 8 bits."""
    if not unit or not values.size:
        return None
    if unit == 1:
        return values if values.min() >= 0 and values.max() < 256 else None
    channels = channels_of(values)  # (N, 3)
    is_color = np.ptp(channels, axis=1) > _NEAR_GREY
    few = counts[is_color].sum() <= 1e-3 * counts.sum()
    return np.rint(channels.mean(1)).astype(np.int64) if few else None


def _levels(
    greys: Counts, counts: Counts, solid: Counts, soft: Counts, clean: Counts
) -> tuple[int, ...]:
    """Return the levels where masks, or some of them, are blurred; empty where none is."""
    drawn = np.unique(greys[clean > 0])
    # JPEG of a high quality leaves hardly any edges soft, but greys that nobody draws.
    ends = range(1, _NOISE), range(256 - _NOISE, 255)
    noisy = all(np.isin(drawn, end).any() for end in ends)
    if len(drawn) > 1 and not noisy:
        return tuple(drawn.tolist()) if (clean == 0).any() and are_spread(drawn.tolist()) else ()
    return find_levels(*(np.bincount(greys, part, 256) for part in (counts, solid, soft)))


def find_levels(counts: Counts, solid: Counts, soft: Counts) -> tuple[int, ...]:
    """Find the levels of blurred grey masks, sorted; empty for less than two, or close ones.

    Args:
        counts: (256,) pixels of each grey in all masks.
        solid: (256,) pixels whose four neighbours have the same value.
        soft: (256,) pixels that lie between two neighbours, once or twice.
    """
    if _are_ids(counts, solid):
        return ()
    regions = _regions(counts, solid)
    levels: list[int | None] = [*_clusters(counts, soft)]
    if len(levels) < max(2, len(regions)):
        not_between = np.maximum(counts - soft, 0)
        levels = [_far_end(not_between, regions, -1), *regions, _far_end(not_between, regions, 1)]
    snapped = tuple(_snap(level) for level in levels if level is not None)
    return snapped if are_spread(snapped) else ()


def are_spread(greys: Sequence[int]) -> bool:
    """Return whether sorted greys are so far apart that blur cannot lead from one to another."""
    apart = all(b - a >= GAP for a, b in pairwise(greys))
    return len(greys) > 1 and apart and greys[-1] >= _SPREAD


def _are_ids(counts: Counts, solid: Counts) -> bool:
    """Return whether regions have different greys close to black: then the greys are ids."""
    dark, flat = counts[:GAP], solid[:GAP]
    is_region = (flat > 0.15 * dark) & (dark > 5e-4 * counts.sum())
    is_region[dark.argmax()] = False
    return bool(is_region.any())


def _clusters(counts: Counts, soft: Counts) -> list[int]:
    """Return the median of each cluster that JPEG left; empty where the clusters are not noise."""
    fewest = max(_MIN_PIXELS, 1e-3 * (counts.sum() - counts.max()))
    parts = _split_at_valleys(counts, fewest)
    levels = [int(np.searchsorted(np.cumsum(part), part.sum() / 2)) for part in parts]
    greys, noise, far = np.arange(256), 0, 0
    for level, part in zip(levels, parts, strict=True):
        if (soft * (part > 0)).sum() > 0.9 * part.sum():
            return []  # an edge
        noise += part.sum() - part.max()
        far += part[abs(greys - level) > GAP].sum()
    return levels if noise > 0 and far < 0.1 * noise else []


def _split_at_valleys(counts: Counts, fewest: float) -> list[Counts]:
    """Split the greys at valleys that are nearly empty."""
    sums = np.concatenate([[0], np.cumsum(counts)])
    inside = sums[_VALLEY:] - sums[:-_VALLEY]  # of the valley that begins at each grey
    smaller = np.minimum(sums[:-_VALLEY], sums[-1] - sums[_VALLEY:])
    share = np.where(smaller < fewest, np.inf, inside / np.maximum(smaller, 1))
    start = int(share.argmin())
    if share[start] > _EMPTY:
        return [counts]
    lower, upper = counts.copy(), counts.copy()
    lower[start:], upper[:start] = 0, 0
    return [*_split_at_valleys(lower, fewest), *_split_at_valleys(upper, fewest)]


def _regions(counts: Counts, solid: Counts) -> list[int]:
    """Return the greys that cover regions, sorted, without JPEG's variants of a grey."""
    is_region = (solid > 0.1 * counts) & (counts > 1e-3 * counts.sum())
    kept: list[int] = []
    for grey in sorted(np.flatnonzero(is_region).tolist(), key=lambda grey: -counts[grey]):
        if all(abs(grey - other) > _NOISE for other in kept):
            kept.append(grey)
    return sorted(kept)


def _far_end(not_between: Counts, regions: list[int], side: int) -> int | None:
    """Return the grey that thin lines reach beyond the outermost region; None if hardly any do."""
    if not regions:
        return None
    outermost = max(regions) if side > 0 else min(regions)
    # JPEG and bicubic resizing overshoot by a part of a step between regions.
    start = outermost + side * max(_REACH, (max(regions) - min(regions)) // 2)
    beyond = not_between[start:] if side > 0 else not_between[: max(start + 1, 0)][::-1]
    if beyond.sum() < _MIN_PIXELS:
        return None
    return start + side * int(np.searchsorted(np.cumsum(beyond), 0.99 * beyond.sum()))


def _snap(level: int) -> int:
    """Round a level to black or white if it is close."""
    return 0 if level < _REACH else 255 if level > 255 - _REACH else level


def find_far_colors(codes: Counts, weights: Counts, known: Sequence[int]) -> list[int]:
    """Return 24-bit codes of classes, other than the `known` ones.

    Args:
        codes: (N,) that the masks hold.
        weights: (N,) pixels of each that do not lie between two others.
        known: the colours of regions.
    """
    found: list[int] = []
    least = max(_MIN_PIXELS, 1e-5 * weights.sum())
    while len(found) < _MAX_COLORS:
        order = _far_from_mixtures(codes, [*known, *found])
        sums = np.cumsum(weights[order])
        if not len(order) or sums[-1] < least:
            break
        least = max(least, _BLEEDING * sums[-1])
        # Of the pixels that are farthest: the one that most others are near.
        last = int(np.searchsorted(sums, max(_MIN_PIXELS, 0.2 * sums[-1])))
        ends = order[: last + 1][:_MAX_COMPARED]
        channels = channels_of(codes[ends])
        near = (abs(channels[:, None] - channels).max(2) < _FAR / 2) @ weights[ends]
        found.append(int(codes[ends[near.argmax()]]))
    return found


def count_far(codes: Counts, weights: Counts, known: Sequence[int]) -> int:
    """Count pixels that are no mixture of known colours; arguments as for `find_far_colors`."""
    return int(weights[_far_from_mixtures(codes, known)].sum())


def _far_from_mixtures(codes: Counts, known: Sequence[int]) -> NDArray[np.intp]:
    """Return the places of codes (N,) far from all mixtures of two colours, the farthest first."""
    colors, ends = channels_of(codes), channels_of(np.array(known))
    distance = np.full(len(colors), np.inf, np.float32)
    for a, b in combinations_with_replacement(ends, 2):
        line, from_a = b - a, colors - a
        share = np.clip(from_a @ line / max(float(line @ line), 1.0), 0, 1)
        distance = np.minimum(distance, np.linalg.norm(from_a - share[:, None] * line, axis=1))
    order = np.argsort(-distance, kind="stable")
    return order[distance[order] > _FAR]
