"""Checks of files: unreadable, turned, of another size or place, copies, unpaired, not read."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from atrous.doctor.findings import Finding, finding
from atrous.doctor.labels.binary import num_classes_of
from atrous.doctor.layout.files import Pair, rank
from atrous.doctor.scan.pairs import PairStats
from atrous.doctor.scan.scan import Scan
from atrous.errors import InputError
from atrous.images.bands import COLORS
from atrous.images.rasters import has_rasterio, opened_raster
from atrous.text import amount, one_line, some

_EXIF_ORIENTATION = 0x0112
_MAX_SHIFT = 0.5
"""Pixels: a corner of the mask farther from the image's is elsewhere."""


def unreadable(scan: Scan) -> Iterator[Finding]:
    """Images and masks that cannot be read."""
    images = [(stats.pair, stats.image_error) for stats in scan.pairs if stats.image_error]
    masks = [(stats.pair, stats.mask_error) for stats in scan.pairs if stats.mask_error]
    for half, fix, bad in (
        ("image", "copy or download them again", images),
        ("mask", "repair or export them again", masks),
    ):
        if all("pip install" in error for _, error in bad):
            fix = "install what reads them"
        lines = [one_line(e).removeprefix(f"{scan.folder}/") for _, e in bad]
        yield finding(f"unreadable-{half}", lines, [pair for pair, _ in bad], fix=fix)


def exif(scan: Scan) -> Iterator[Finding]:
    """Images turned by EXIF; sizes tell whether the mask is, where width and height are swapped."""
    unsure = [
        stats
        for stats in scan.pairs
        if stats.image_size == stats.mask_size
        and not stats.pair.image.lower().endswith(".png")  # slow, and such PNGs are rare
        and (orientation := _orientation(scan, stats)) > 1
        and (orientation < 5 or stats.image_size[0] == stats.image_size[1])
    ]
    for kind, turned in (("exif-rotated", _swapped(scan)), ("exif-same-size", unsure)):
        pairs = [stats.pair for stats in turned]
        yield finding(kind, [f"{pair.image} (mask {pair.mask})" for pair in pairs], pairs)


def sizes(scan: Scan) -> Iterator[Finding]:
    """Masks that differ from their images in size, unless EXIF explains it."""
    swapped = _swapped(scan)
    other = [stats for stats in _of_other_size(scan) if stats not in swapped]
    lines = [
        f"{s.pair.mask} is {_size(s.mask_size)}, {s.pair.image} {_size(s.image_size)}"
        for s in other
    ]
    yield finding("size-mismatch", lines, [stats.pair for stats in other])


def duplicates(scan: Scan) -> Iterator[Finding]:
    """Images that occur twice; of two splits, the one that is held out further keeps the image."""
    groups: dict[bytes, list[Pair]] = defaultdict(list)
    for stats in scan.pairs:
        if stats.digest:
            groups[stats.digest].append(stats.pair)
    leaked, again = dict[Pair, str](), dict[Pair, str]()
    for pairs in groups.values():
        pairs.sort(key=lambda pair: rank(pair.split))
        stays = max((pair.split for pair in pairs), key=rank)
        places = " = ".join(dict.fromkeys(f"{pair.split} {pair.image}" for pair in pairs))
        leaked |= {pair: places for pair in pairs if pair.split != stays}
        for pair in [pair for pair in pairs if pair.split == stays][1:]:
            again[pair] = " = ".join(dict.fromkeys((pair.image, *(p.image for p in pairs))))
    for kind, found in (("leakage", leaked), ("duplicate-image", again)):
        yield finding(kind, found.values(), found)


def coordinates(scan: Scan) -> Iterator[Finding]:
    """Pairs of GeoTIFFs of equal size whose pixels lie at different coordinates."""
    tiff = (".tif", ".tiff")
    pairs = [
        stats.pair
        for stats in scan.pairs
        if stats.image_size == stats.mask_size
        and stats.pair.image.lower().endswith(tiff)
        and stats.pair.mask.lower().endswith(tiff)
    ]
    if pairs and has_rasterio():
        apart = [p for p in pairs if _are_apart(scan.folder / p.image, scan.folder / p.mask)]
        yield finding("other-coordinates", [f"{p.mask} ({p.image})" for p in apart], apart)


def bands(scan: Scan) -> Iterator[Finding]:
    """Assumptions about the bands of images, for a person to correct."""
    bands = next(iter(scan.layout.splits.values())).bands
    if scan.described or bands == COLORS:
        return
    parts = []
    if bands.numbers:
        parts.append(f"{amount(len(bands.numbers), 'band')}, and the network shall take all")
    if bands.value_range is not None:
        black, white = bands.value_range
        parts.append(
            f"values that are not 8 bits: black is {black:g} and white {white:g}, a guess by "
            "what nearly all values lie between"
        )
    if not bands.alpha:
        parts.append("a fourth band that is not transparency")
    yield finding("bands", count=len(scan.pairs), parts="; ".join(parts))


def _of_other_size(scan: Scan) -> list[PairStats]:
    return [
        stats
        for stats in scan.pairs
        if stats.mask and not stats.image_error and stats.image_size != stats.mask_size
    ]


def _swapped(scan: Scan) -> list[PairStats]:
    """Return the pairs whose mask has the image's size before its EXIF orientation turned it."""
    return [
        stats
        for stats in _of_other_size(scan)
        if stats.mask_size == stats.image_size[::-1] and _orientation(scan, stats) >= 5
    ]


def _orientation(scan: Scan, stats: PairStats) -> int:
    """Return EXIF's orientation: 1 is upright, 2 to 4 keep the size, 5 to 8 transpose it."""
    try:
        with Image.open(scan.folder / stats.pair.image) as image:
            return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged metadata: then it was not turned
        return 1


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _are_apart(image: Path, mask: Path) -> bool:
    """Return whether both have coordinates that differ; `unreadable` reports damaged files."""
    try:
        with opened_raster(image) as one, opened_raster(mask) as other:
            grids = one.transform, other.transform
            height, width = one.shape
    except InputError:
        return False
    if any(grid.is_identity or grid.is_degenerate for grid in grids):
        return False
    ours, theirs = (np.reshape(grid, (3, 3)) for grid in grids)
    corners = np.array([(0, 0, 1), (width, 0, 1), (0, height, 1), (width, height, 1)]).T
    away = np.linalg.inv(ours) @ theirs @ corners - corners  # in pixels of the image
    return bool(np.abs(away).max() > _MAX_SHIFT)


def unpaired(scan: Scan) -> Iterator[Finding]:
    """Images without masks, and masks without images."""
    layout = scan.layout
    yield finding("unpaired-image", layout.unpaired_images)
    yield finding("unpaired-mask", layout.unpaired_masks)


def elsewhere(scan: Scan) -> Iterator[Finding]:
    """Images in other folders."""
    paths, paired = scan.layout.elsewhere, scan.layout.pairs_elsewhere
    yield finding("pairs-elsewhere" if paired else "images-elsewhere", paths, paired=paired)


def lists(scan: Scan) -> Iterator[Finding]:
    """What is wrong with names and lists, and what was guessed of them."""
    layout = scan.layout
    yield finding("odd-name", layout.odd_names)
    yield finding("same-key", layout.same_key)
    yield finding("unread-image", layout.unread)
    yield finding("missing-image", layout.missing)
    yield finding("crossed-list", layout.crossed)
    yield finding("unused-list", layout.unused_lists)
    yield finding("other-list", layout.other_lists)
    yield finding("unlisted", layout.unlisted)
    yield from (finding("guessed-split", [guess]) for guess in layout.guesses)


def mask_folders(scan: Scan) -> Iterator[Finding]:
    """Masks that fit and are not read; and masks of the field of view."""
    views = sorted({files.valid for files in scan.layout.splits.values()} - {""})
    yield _of_patterns("unused-mask", scan.layout.unused)
    yield _of_patterns("passed-over", scan.layout.passed_over)
    yield _of_patterns("valid-mask", views)


def class_masks(scan: Scan) -> Iterator[Finding]:
    """Names of files that are taken as classes, and what becomes of masks that overlap."""
    if scan.labels.encoding != "binary-masks" or scan.described:
        return
    classes, background = scan.classes, scan.labels.background
    yield finding("class-masks", classes, rest=background or "ignored")
    overlaps = {
        pair: sum(count for code, count in mask.items() if num_classes_of(code) > 1)
        for pair, mask in scan.masks
    }
    overlaps = {pair: pixels for pair, pixels in overlaps.items() if pixels}
    yield finding(
        "overlap",
        [f"{pair.image}: {pixels:,} pixels" for pair, pixels in overlaps.items()],
        overlaps,
        pixels=amount(sum(overlaps.values()), "pixel"),
        order=", ".join(name for name in classes if name != background),
    )


def _of_patterns(kind: str, patterns: Sequence[str]) -> Finding:
    return finding(kind, patterns, patterns=some(p.replace("{key}", "*") for p in patterns))
