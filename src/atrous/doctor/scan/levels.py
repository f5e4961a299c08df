"""The grey levels that stand for classes in masks whose edges are blurred.

Masks of 0 and 255, or of a few greys as far apart, that were saved as JPEG or resized hold many
values. JPEG leaves a cluster around each level and next to nothing between. Resizing fills all
between; then a level is a value that covers regions, and the far end of what thin lines reach.
Ids close together, such as 0 to 20, cannot be told from a blur: no level is found in them.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

GAP = 24
"""Levels are at least so far apart."""
_VALLEY = 16
"""How wide a valley is."""
_SPREAD = 50
"""Levels reach at least so far."""
_EMPTY = 0.05
"""Of the pixels of the smaller cluster beside it: what a valley between clusters holds at most."""
_REACH = 32
"""How far beyond the outermost region thin lines must reach to be a level of their own."""
_MIN_PIXELS = 8
"""Pixels that a level holds at least."""
_NOISE = 8
"""Values as close are one level to JPEG."""


def find_levels(counts: Counts, solid: Counts, soft: Counts) -> tuple[int, ...]:
    """Find the levels of blurred grey masks, sorted; empty for less than two, or close ones.

    Args:
        counts: (256,) pixels of each grey in all masks.
        solid: (256,) of them those whose four neighbours have the same value.
        soft: (256,) of them those that lie between two neighbours, once or twice.
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
