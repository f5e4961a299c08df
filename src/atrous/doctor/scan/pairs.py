"""Each image and mask of a folder, decoded once and measured."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from atrous.doctor.scan.mask_stats import Ids, MaskStats, measure
from atrous.errors import InputError
from atrous.images.bands import COLORS, Bands
from atrous.images.pixels import read_pixels
from atrous.progress import Progress

_MAX_THREADS = 4


@dataclass(frozen=True)
class Pair:
    """An image and its mask, as paths from the folder."""

    split: str
    key: str
    image: str
    mask: str
    bands: Bands = COLORS
    """How the image is read."""


ReadMask = Callable[[Pair], Ids]
"""Reads the mask of a pair: (H, W) dataset ids or 24-bit codes; or raises InputError."""


@dataclass(frozen=True, eq=False)
class PairStats:
    """What reading a pair gave; where a half cannot be read, the error's line."""

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
    folder: Path,
    pairs: Sequence[Pair],
    read_mask: ReadMask,
    progress: Progress,
    *,
    colors: bool = False,
) -> list[PairStats]:
    """Read every pair once, several at a time.

    Args:
        folder: that the paths of `pairs` count from.
        pairs: what to read.
        read_mask: reads one mask.
        progress: is called with the number of pairs that are done, and of all.
        colors: whether masks are 24-bit codes.
    """

    def read(pair: Pair) -> PairStats:
        digest, image_size, mask_size, mask, errors = b"", (0, 0), (0, 0), None, ["", ""]
        try:
            image, _ = read_pixels(folder / pair.image, pair.bands)
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

    stats = []
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    try:
        for one in pool.map(read, pairs):
            stats.append(one)
            progress(len(stats), len(pairs))
    finally:  # Ctrl-C does not wait for the files that are left
        pool.shutdown(cancel_futures=True)
    return stats
