"""Masks that lie elsewhere than their images, by the coordinates of both."""

from pathlib import Path, PurePath

import numpy as np

from atrous.doctor.findings import Case, Finding, many
from atrous.errors import InputError
from atrous.images.rasters import has_rasterio, opened_raster

_APART = 0.5
"""Of a pixel: a corner of the mask so far from the image's is elsewhere."""


def place_findings(case: Case) -> list[Finding]:
    """Pairs of GeoTIFFs, equal in size, whose pixels are not of the same places."""
    if not has_rasterio():
        return []
    pairs = [reading.pair for reading in case.readings if reading.image_size == reading.mask_size]
    pairs = [pair for pair in pairs if _is_tiff(pair.image) and _is_tiff(pair.mask)]
    files = [(case.folder / pair.image, case.folder / pair.mask) for pair in pairs]
    apart = [pair for pair, both in zip(pairs, files, strict=True) if _are_apart(*both)]
    if not apart:
        return []
    return [
        Finding(
            code="other-coordinates",
            severity="problem",
            count=len(apart),
            message=f"{many(len(apart), 'mask')} of other coordinates than the image: shifted, "
            "turned, of another resolution or reference system",
            examples=tuple(f"{pair.mask} ({pair.image})" for pair in apart),
            mend="warp these masks onto the grid of their image; if they fit pixel by pixel, copy "
            "the image's coordinates to them",
            pairs=tuple(apart),
        )
    ]


def _is_tiff(name: str) -> bool:
    return PurePath(name).suffix.lower() in (".tif", ".tiff")


def _are_apart(image: Path, mask: Path) -> bool:
    """Whether both have coordinates, and these differ; what cannot be read is told elsewhere."""
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
    return bool(np.abs(away).max() > _APART)
