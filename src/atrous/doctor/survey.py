"""Every image and mask of a folder, decoded once and measured; what it means is judged elsewhere.

A mask is measured so that blurred edges can be told from real ones. Of three neighbours a, b, c in
a row or a column where a and c differ clearly, the middle one is *soft* where its value lies
strictly between theirs, and *hard* where it is one of them. Masks that were drawn are hard almost
everywhere; those that were resized with interpolation, or saved as JPEG, are not.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.images.bands import COLORS, Bands
from atrous.images.pixels import read_pixels
from atrous.progress import Progress

Ids = NDArray[np.integer[Any]]

BLURRED_SHARE = 0.12
"""Of soft triples among soft and hard ones. CamVid's masks stay under 0.04, also when resized to
the nearest pixel; with interpolation, or as JPEG, they are over 0.24."""

_FEW_TRIPLES = 24
"""A mask of fewer, soft and hard, does not say by itself whether it is blurred."""
_MOST_VALUES = 512
_MOST_THREADS = 4
_LARGE = 1 << 24
_ONE_AT_A_TIME = threading.Lock()
"""Held while a mask of more than `_LARGE` pixels is measured, which takes 30 bytes for each."""
_COLOR_TOLERANCE = 3.0
"""How far from the line between two colours a mixture of them may lie, by rounding."""


@dataclass(frozen=True, eq=False)
class Tally:
    """What a mask holds: of each value, how many pixels, and how they lie."""

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


@dataclass(frozen=True)
class Pair:
    """An image and its mask, as paths from the folder."""

    split: str
    key: str
    image: str
    mask: str
    bands: Bands = COLORS
    """How the image is read."""


Reader = Callable[[Pair], Ids]


@dataclass(frozen=True, eq=False)
class Reading:
    """What reading a pair gave; an error's line where a half cannot be read."""

    pair: Pair
    digest: bytes = b""
    """Of the image's pixels."""
    image_size: tuple[int, int] = (0, 0)
    """(height, width), upright."""
    mask_size: tuple[int, int] = (0, 0)
    tally: Tally | None = None
    image_error: str = ""
    mask_error: str = ""


def survey(
    folder: Path,
    pairs: Sequence[Pair],
    read_ids: Reader,
    progress: Progress,
    *,
    colors: bool,
) -> list[Reading]:
    """Read every pair once, several at a time.

    Args:
        folder: that the paths of `pairs` count from.
        pairs: what to read.
        read_ids: of a pair, (H, W) dataset ids, or 24-bit codes.
        progress: told how many pairs are done, and of how many.
        colors: whether the ids are 24-bit codes.
    """

    def read(pair: Pair) -> Reading:
        digest, image_size, image_error = b"", (0, 0), ""
        try:
            image, _ = read_pixels(folder / pair.image, pair.bands)
            image_size = image.shape[:2]
            digest = blake2b(image.tobytes() + repr(image_size).encode(), digest_size=16).digest()
        except InputError as error:
            image_error = str(error)
        try:
            ids = read_ids(pair)
        except InputError as error:
            return Reading(pair, digest, image_size, (0, 0), None, image_error, str(error))
        size = (ids.shape[0], ids.shape[1])
        return Reading(pair, digest, image_size, size, tally(ids, colors=colors), image_error)

    readings = []
    for reading in _in_threads(read, pairs):
        readings.append(reading)
        progress(len(readings), len(pairs))
    return readings


def find_blurred(readings: Sequence[Reading]) -> list[bool]:
    """Whether the edges of each mask are interpolated, or blurred by JPEG.

    Values between those of two regions, on the edge of these, are also what a thin object or a
    drawn outline looks like. But then they are of one class, in this mask and in all. So edges of
    many values count, and those of a single one where the other masks have hard edges.
    """
    tallies = [r.tally for r in readings if r.tally and r.tally.soft.sum() + r.tally.hard]
    usual = _usual_share(tallies)
    soft: Counter[int] = Counter()
    for tally in tallies:
        soft.update(dict(zip(tally.values.tolist(), tally.soft.tolist(), strict=True)))
    all_are = usual >= BLURRED_SHARE and _are_many([*soft.values()])

    def is_blurred(path: str, tally: Tally) -> bool:
        if path.lower().endswith((".jpg", ".jpeg")) and tally.soft.any():
            return True
        share, soft = _soft_share(tally), tally.soft
        # Of one value: that of an edge half as long as the mask, at least.
        long = soft.sum() >= max(20, 0.5 * np.sqrt(tally.counts.sum()))
        stands_out = share > 0.33 and usual < BLURRED_SHARE / 2 and long
        more_than_usual = share >= 1.5 * usual and _are_many(soft.tolist())
        if all_are:
            return bool(soft.sum() >= BLURRED_SHARE / 2 * max(1, soft.sum() + tally.hard))
        return share >= BLURRED_SHARE and bool(stands_out or more_than_usual)

    return [r.tally is not None and is_blurred(r.pair.mask, r.tally) for r in readings]


def _usual_share(tallies: Sequence[Tally]) -> float:
    """The soft share of a mask in the middle; of all together, where masks have short edges."""
    triples = [int(tally.soft.sum()) + tally.hard for tally in tallies]
    if not triples or np.median(triples) >= _FEW_TRIPLES:
        return float(np.median([_soft_share(tally) for tally in tallies] or [0.0]))
    return sum(int(tally.soft.sum()) for tally in tallies) / max(_FEW_TRIPLES, sum(triples))


def _soft_share(tally: Tally) -> float:
    """Soft triples among all; 0 for few, or where there are hardly any regions (noise)."""
    soft = int(tally.soft.sum())
    if soft < 8 or tally.solid.sum() < 0.2 * tally.counts.sum():
        return 0.0
    return soft / (soft + tally.hard)


def _are_many(soft: Sequence[int]) -> bool:
    """Whether soft triples, counted by value, are of more than one value in the main."""
    return max(soft, default=0) < 0.9 * sum(soft)


def _in_threads(read: Callable[[Pair], Reading], pairs: Sequence[Pair]) -> Iterator[Reading]:
    pool = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
    try:
        yield from pool.map(read, pairs)
    finally:  # after Ctrl-C nobody waits for a thousand files
        pool.shutdown(cancel_futures=True)


def tally(ids: Ids, *, colors: bool) -> Tally:
    """Measure one mask, (H, W) ids or, with `colors`, 24-bit codes."""
    if ids.size > _LARGE:
        with _ONE_AT_A_TIME:
            return _tally(ids, colors=colors)
    return _tally(ids, colors=colors)


def _tally(ids: Ids, *, colors: bool) -> Tally:
    values, places = _compact(ids)
    count = len(values)
    counts = np.bincount(places.ravel(), minlength=count)
    solid = np.bincount(places[1:-1, 1:-1][_solid(places)], minlength=count)
    soft, hard = np.zeros(count, np.int64), 0
    for lines in (places, np.ascontiguousarray(places.T)):
        soft_here, hard_here = _edges(lines, values, colors=colors)
        soft += soft_here
        hard += hard_here
    if count > _MOST_VALUES:
        kept = np.sort(np.argsort(-counts, kind="stable")[:_MOST_VALUES])
        values, counts, solid, soft = values[kept], counts[kept], solid[kept], soft[kept]
    return Tally(values, counts, solid, soft, hard)


def _compact(ids: Ids) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The values of a mask, sorted, and (H, W) the place of each pixel's value among them.

    Runs of equal pixels are looked up once: a mask has few of them.
    """
    flat = ids.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])[: flat.size])
    values, places = np.unique(flat[starts], return_inverse=True)
    lengths = np.diff(starts, append=flat.size)
    return values.astype(np.int64), np.repeat(places.astype(np.int32), lengths).reshape(ids.shape)


def _solid(places: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether a pixel off the border equals its four neighbours, (H - 2, W - 2)."""
    across, down = places[:, 1:] == places[:, :-1], places[1:] == places[:-1]
    beside, above = across[1:-1, 1:] & across[1:-1, :-1], down[1:, 1:-1] & down[:-1, 1:-1]
    return np.asarray(beside & above)


def _edges(
    places: NDArray[np.int32], values: NDArray[np.int64], *, colors: bool
) -> tuple[NDArray[np.int64], int]:
    """Soft triples by the value in their middle, (N,), and the number of hard ones, along rows."""
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
    """Whether an id can lie between a and c."""
    return np.asarray(abs(a - c) > 1)


def _is_between(
    a: NDArray[np.int64], b: NDArray[np.int64], c: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the id b lies between a and c."""
    return np.asarray((np.minimum(a, c) < b) & (b < np.maximum(a, c)))


def _differ_clearly(a: NDArray[np.int64], c: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the 24-bit codes a and c are more than a shade apart."""
    return np.asarray(((rgb(a) - rgb(c)) ** 2).sum(0) > 3)


def _is_mixture(
    a: NDArray[np.int64], b: NDArray[np.int64], c: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the 24-bit code b is a mixture of a and c, which differ clearly."""
    from_a, line = rgb(b) - rgb(a), rgb(c) - rgb(a)  # (3, N)
    squared = (line**2).sum(0)
    share = (from_a * line).sum(0) / np.maximum(squared, 1)
    off_line = abs(from_a - share * line).max(0)
    return np.asarray((squared > 3) & (off_line <= _COLOR_TOLERANCE) & (share > 0) & (share < 1))


def rgb(codes: Ids | int) -> NDArray[np.float32]:
    """24-bit codes (N,) -> (3, N); float32 holds these integers, and their squares, exactly."""
    return np.stack([codes & 255, codes >> 8 & 255, codes >> 16]).astype(np.float32)
