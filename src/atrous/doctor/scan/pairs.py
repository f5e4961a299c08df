"""Every image and mask of a folder, decoded once and measured; and which masks are blurred.

Of three neighbours a, b, c in a row or a column where a and c differ clearly, the middle one is
*soft* where its value lies strictly between theirs, and *hard* where it is one of them. Masks that
were drawn are hard almost everywhere; masks that were resized with interpolation, or saved as JPEG,
are not.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import channels_of
from atrous.doctor.layout.files import Layout, Pair
from atrous.errors import InputError
from atrous.images.pixels import read_pixels
from atrous.progress import Progress

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
    """(N,) pixels whose four neighbours have the same value."""
    soft: NDArray[np.int64]
    """(N,) pixels in the middle of a soft triple; twice if in the middle of two."""
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


_MAX_THREADS = 4
_BLURRED_SHARE = 0.12
"""Smallest share of soft triples, among soft and hard ones, in a blurred mask. CamVid's masks have
less than 0.04, also when resized to the nearest pixel; interpolated, or as JPEG, over 0.24."""

_FEW_TRIPLES = 24
"""A mask of fewer, soft and hard, does not say by itself whether it is blurred."""


ReadMask = Callable[[Pair], Ids]
"""Reads the mask of a pair: (H, W) dataset ids or 24-bit codes; or raises InputError."""


@dataclass(frozen=True, eq=False)
class PairStats:
    """A pair's measurements; an error where the image or the mask cannot be read."""

    pair: Pair
    digest: bytes = b""
    """Hash of the image's pixels."""
    image_size: tuple[int, int] = (0, 0)
    """(height, width), upright."""
    mask_size: tuple[int, int] = (0, 0)
    mask: MaskStats | None = None
    """None where the mask cannot be read."""
    image_error: str = ""
    mask_error: str = ""


def scan_pairs(
    layout: Layout, read_mask: ReadMask, progress: Progress, *, colors: bool = False
) -> list[PairStats]:
    """Read every pair of a layout once, several at a time.

    Args:
        layout: the pairs.
        read_mask: reads one mask.
        progress: is called with the number of pairs that are done, and of all.
        colors: whether masks are 24-bit codes.
    """

    def read(pair: Pair) -> PairStats:
        digest, image_size, mask_size, mask, errors = b"", (0, 0), (0, 0), None, ["", ""]
        try:
            image, _ = read_pixels(layout.folder / pair.image, pair.bands)
            image_size = image.shape[:2]
            digest = blake2b(image.tobytes() + repr(image_size).encode(), digest_size=16).digest()
        except InputError as error:
            errors[0] = str(error)
        try:
            ids = read_mask(pair)
            mask_size = (ids.shape[0], ids.shape[1])
            mask = measure(ids, colors=colors)
        except InputError as error:
            errors[1] = str(error)
        return PairStats(pair, digest, image_size, mask_size, mask, *errors)

    pairs, stats = layout.pairs(), []
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    try:
        for one in pool.map(read, pairs):
            stats.append(one)
            progress(len(stats), len(pairs))
    finally:  # Ctrl-C does not wait for the files that are left
        pool.shutdown(cancel_futures=True)
    return stats


def mark_blurred(pairs: Sequence[PairStats]) -> list[PairStats]:
    """Find the masks that have edges that are interpolated, or blurred by JPEG.

    Values between those of two regions, on the edge of these, are also what a thin object or a
    drawn outline looks like. But then they are of one class, in this mask and in all. So edges of
    many values count, and those of a single one where the other masks have hard edges.
    """
    masks = [stats.mask for stats in pairs if stats.mask]
    measured = [mask for mask in masks if mask.soft.sum() + mask.hard]
    usual = _usual_share(measured)
    soft_of: Counter[int] = Counter()
    for mask in measured:
        soft_of.update(dict(zip(mask.values.tolist(), mask.soft.tolist(), strict=True)))
    all_are = usual >= _BLURRED_SHARE and _are_many([*soft_of.values()])

    def is_blurred(path: str, mask: MaskStats) -> bool:
        soft = mask.soft.sum()
        if path.lower().endswith((".jpg", ".jpeg")) and soft:
            return True
        if all_are:
            return bool(soft >= _BLURRED_SHARE / 2 * max(1, soft + mask.hard))
        share = _soft_share(mask)
        # Of one value: that of an edge half as long as the mask, at least.
        is_long = soft >= max(20, 0.5 * np.sqrt(mask.counts.sum()))
        stands_out = share > 0.33 and usual < _BLURRED_SHARE / 2 and is_long
        more_than_usual = share >= 1.5 * usual and _are_many(mask.soft.tolist())
        return share >= _BLURRED_SHARE and bool(stands_out or more_than_usual)

    def marked(stats: PairStats) -> PairStats:
        if stats.mask is None:
            return stats
        blurred = is_blurred(stats.pair.mask, stats.mask)
        return replace(stats, mask=replace(stats.mask, is_blurred=blurred))

    return [marked(stats) for stats in pairs]


def _usual_share(masks: Sequence[MaskStats]) -> float:
    """Return the median soft share of masks; where edges are short, the share over all masks."""
    triples = [int(mask.soft.sum()) + mask.hard for mask in masks]
    if not triples or np.median(triples) >= _FEW_TRIPLES:
        return float(np.median([_soft_share(mask) for mask in masks] or [0.0]))
    return sum(int(mask.soft.sum()) for mask in masks) / max(_FEW_TRIPLES, sum(triples))


def _soft_share(mask: MaskStats) -> float:
    """Return the share of soft triples; 0 for few, or where hardly any regions exist (noise)."""
    soft = int(mask.soft.sum())
    if soft < 8 or mask.solid.sum() < 0.2 * mask.counts.sum():
        return 0.0
    return soft / (soft + mask.hard)


def _are_many(soft: Sequence[int]) -> bool:
    """Return whether less than 90 % of soft triples are of one value."""
    return max(soft, default=0) < 0.9 * sum(soft)


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
    one, other = values[left[is_end]], values[right[is_end]]
    apart = channels_of(one) - channels_of(other) if colors else one - other
    is_clear = (apart**2).sum(1) > 3 if colors else abs(apart) > 1  # more than rounding
    left, middle, right = left[~is_end], middle[~is_end], right[~is_end]
    is_between = _is_mixture if colors else _is_between
    is_soft = is_between(values[left], values[middle], values[right])
    return np.bincount(middle[is_soft], minlength=len(values)), int(is_clear.sum())


def _is_between(
    a: NDArray[np.int64], b: NDArray[np.int64], c: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether the id b lies between a and c."""
    return np.asarray((np.minimum(a, c) < b) & (b < np.maximum(a, c)))


def _is_mixture(
    a: NDArray[np.int64], b: NDArray[np.int64], c: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether the 24-bit code b is a mixture of a and c, which differ clearly."""
    start = channels_of(a)  # (N, 3)
    from_a, line = channels_of(b) - start, channels_of(c) - start
    squared = (line**2).sum(1)
    share = (from_a * line).sum(1) / np.maximum(squared, 1)
    off_line = abs(from_a - share[:, None] * line).max(1)
    return np.asarray((squared > 3) & (off_line <= _COLOR_TOLERANCE) & (share > 0) & (share < 1))
