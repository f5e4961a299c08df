"""The colours of thin classes in masks whose edges are blurred: no mixtures of others.

A line of a few pixels that was saved as JPEG or resized covers no region, and none of its pixels
may have the colour that was drawn. But they lie far from all mixtures of the colours of regions.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import channels_of

_FAR = 48.0
"""How far from the mixtures of others a colour must lie; nearer is noise of JPEG."""
_LITTLE = 0.08
"""Of the pixels that are far from the regions: what is less is the bleeding of JPEG's colours."""
_MIN_PIXELS = 8.0
"""Pixels that a class holds at least."""
_MAX_COLORS = 32
"""Thin colours that are looked for."""
_MAX_COMPARED = 512
"""Codes that are compared with each other."""


def find_far_colors(
    codes: NDArray[np.int64], weights: NDArray[np.int64], known: Sequence[int]
) -> list[int]:
    """Return 24-bit codes that stand for classes besides the `known` ones.

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
        least = max(least, _LITTLE * sums[-1])
        # Of the pixels that are farthest: the one that most others are near.
        last = int(np.searchsorted(sums, max(_MIN_PIXELS, 0.2 * sums[-1])))
        ends = order[: last + 1][:_MAX_COMPARED]
        channels = channels_of(codes[ends])
        near = (abs(channels[:, None] - channels).max(2) < _FAR / 2) @ weights[ends]
        found.append(int(codes[ends[near.argmax()]]))
    return found


def count_far(codes: NDArray[np.int64], weights: NDArray[np.int64], known: Sequence[int]) -> int:
    """Count pixels that are no mixture of known colours; arguments as for `find_far_colors`."""
    return int(weights[_far_from_mixtures(codes, known)].sum())


def _far_from_mixtures(codes: NDArray[np.int64], known: Sequence[int]) -> NDArray[np.intp]:
    """Return the places of codes (N,) far from all mixtures of two colours, the farthest first."""
    colors, ends = channels_of(codes), channels_of(np.array(known))
    distance = np.full(len(colors), np.inf, np.float32)
    for a, b in combinations_with_replacement(ends, 2):
        line, from_a = b - a, colors - a
        share = np.clip(from_a @ line / max(float(line @ line), 1.0), 0, 1)
        distance = np.minimum(distance, np.linalg.norm(from_a - share[:, None] * line, axis=1))
    order = np.argsort(-distance, kind="stable")
    return order[distance[order] > _FAR]
