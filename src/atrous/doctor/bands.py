"""Which bands and values of images a data set should name, where they are not 8 bits of colours."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from atrous.doctor.layout.files import Layout
from atrous.errors import InputError
from atrous.images.bands import COLORS, Bands, has_value
from atrous.images.photos import largest_of_16_bits
from atrous.images.pixels import fourth_is_alpha, is_raster, may_be_tiff
from atrous.images.rasters import alpha_band, has_rasterio, opened_raster, read_small

_SAMPLED = 32
"""Images that are read to guess black and white."""
_PERCENTILES = 0.1, 99.9
"""Percentiles of a band's values that are taken for black and white."""
_SIXTEEN_BITS = 65535


class _Look(NamedTuple):
    """What one image holds."""

    bands: int
    """Number of bands, without transparency."""
    kinds: frozenset[str]
    """Types of their values."""
    has_palette: bool
    low: float
    """Lowest first percentile (`_PERCENTILES`) of any band; NaN where there are no data."""
    high: float
    """Highest second percentile of any band."""


def with_bands(layout: Layout) -> Layout:
    """Return the layout with the bands and the range that its TIFFs, or photos of 16 bits, need."""
    keyed = ((files, key) for files in layout.splits.values() for key in files.keys)
    images = [layout.folder / files.image(key) for files, key in keyed]
    tiffs = [path for path in images if may_be_tiff(path.name)]
    if not tiffs and any(map(largest_of_16_bits, _some(images))):
        tiffs = images  # or PNGs, perhaps of a camera of 12 bits
    bands = _proposed(tiffs)
    splits = {name: replace(files, bands=bands) for name, files in layout.splits.items()}
    return replace(layout, splits=splits)


def _proposed(paths: Sequence[Path]) -> Bands:
    if not paths or not has_rasterio():
        return COLORS
    alpha, _ = fourth_is_alpha(paths)
    looks = [look for path in _some(paths) if (look := _look(path, alpha))]
    if not looks or any(look.has_palette for look in looks):
        return Bands(alpha=alpha)
    counts = {look.bands for look in looks}
    numbers: tuple[int, ...] = ()
    if counts not in ({1}, {3}):
        numbers = tuple(range(1, min(counts) + 1))
    value_range = None
    if any(look.kinds != {"uint8"} for look in looks):
        value_range = _range(looks, are_photos=not any(map(is_raster, _some(paths))))
    return Bands(numbers, value_range, alpha)


def _some(paths: Sequence[Path]) -> Sequence[Path]:
    return paths[:: -(-len(paths) // _SAMPLED) or 1]


def _look(path: Path, alpha: bool) -> _Look | None:
    """Measure an image; None where it cannot be read, or has no colours and no values."""
    try:
        with opened_raster(path) as source:
            transparent = alpha_band(source) if alpha else 0
            bands = [i for i in range(1, source.count + 1) if i != transparent]
            kinds = frozenset(source.dtypes[i - 1] for i in bands)
            if any(kind.startswith("complex") for kind in kinds):
                return None
            has_palette = source.colorinterp[0].name == "palette"
            values = read_small(source, path, bands).reshape(len(bands), -1)  # (C, N)
    except InputError:
        return None
    finite = [v[has_value(v)] for v in map(np.ma.compressed, values)]
    ends = [np.percentile(v, _PERCENTILES) for v in finite if v.size]
    low, high = (min(e[0] for e in ends), max(e[1] for e in ends)) if ends else (np.nan, np.nan)
    return _Look(len(bands), kinds, has_palette, float(low), float(high))


def _range(looks: Sequence[_Look], *, are_photos: bool) -> tuple[float, float] | None:
    """Guess black and white: nearly all values lie between; none for photos that use 16 bits."""
    found = [look for look in looks if not np.isnan(look.low)]
    if not found:
        return None
    low, high = min(look.low for look in found), max(look.high for look in found)
    if are_photos and high > _SIXTEEN_BITS / 2:
        return None
    if 0 <= low < high / 10:
        low = 0.0
    if high <= low:
        return low, low + 1
    step = 10.0 ** np.floor(np.log10(high - low) - 1)  # two digits
    return _plain(np.floor(low / step) * step), _plain(np.ceil(high / step) * step)


def _plain(value: float) -> float:
    return float(f"{value:.6g}")
