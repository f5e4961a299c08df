"""Each image and mask of a folder, decoded once and measured; and which masks are blurred.

Edges that are interpolated, or blurred by JPEG, are told by their soft triples (`mask_stats`).
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from atrous.doctor.layout.files import Layout, Pair
from atrous.doctor.scan.mask_stats import Ids, MaskStats, measure
from atrous.errors import InputError
from atrous.images.pixels import read_pixels
from atrous.progress import Progress

_MAX_THREADS = 4
_BLURRED_SHARE = 0.12
"""Of soft triples among soft and hard ones. CamVid's masks stay under 0.04, also when resized to
the nearest pixel; with interpolation, or as JPEG, they are over 0.24."""

_FEW_TRIPLES = 24
"""A mask of fewer, soft and hard, does not say by itself whether it is blurred."""


ReadMask = Callable[[Pair], Ids]
"""Reads the mask of a pair: (H, W) dataset ids or 24-bit codes; or raises InputError."""


@dataclass(frozen=True, eq=False)
class PairStats:
    """What reading a pair gave; an error's line where image or mask cannot be read."""

    pair: Pair
    digest: bytes = b""
    """Of the image's pixels."""
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
    """Tell which masks have edges that are interpolated, or blurred by JPEG.

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
