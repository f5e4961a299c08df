"""The label file of a raster: written in rows, with the coordinates of its input."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.images.photos import without_warnings
from atrous.taxonomy import IGNORE_INDEX, Taxonomy


@contextmanager
def _writable() -> Iterator[None]:
    """Raise OSError where rasterio cannot write a file of ours, or read it again."""
    from rasterio.errors import RasterioIOError

    try:
        yield
    except RasterioIOError:
        raise OSError(errno.EIO, "cannot be written; the disk may be full") from None


@contextmanager
def labels_file(path: Path, source: Any, taxonomy: Taxonomy) -> Iterator[Any]:
    """Yield a GeoTIFF to write labels to, with the coordinates of `source`."""
    import rasterio

    points, points_crs = source.gcps  # of an image without a projection
    with without_warnings():  # of a raster without coordinates
        labels = rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=source.height,
            width=source.width,
            count=1,
            dtype="uint8",
            nodata=IGNORE_INDEX,
            crs=source.crs or points_crs,
            transform=source.transform,
            gcps=points or None,
            rpcs=source.rpcs,
            tiled=True,
            blockxsize=512,
            blockysize=512,
            compress="deflate",
            bigtiff="if_safer",
        )
    with _writable(), labels:
        colors = enumerate(taxonomy.palette().tolist())
        labels.write_colormap(1, {i: tuple(color) for i, color in colors})
        yield labels


def reduced_labels(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read the labels of a file reduced to `size` (H, W), the most frequent label in each pixel.

    All of the file is read, which proves that all of it was written.
    """
    import rasterio
    from rasterio.enums import Resampling

    with _writable():
        with without_warnings():
            file = rasterio.open(path)
        with file:
            return np.asarray(file.read(1, out_shape=size, resampling=Resampling.mode), np.uint8)


def pixel_area(source: Any) -> float | None:
    """Return square metres of a pixel; None in degrees and in Web Mercator, which distorts."""
    if source.crs is None or not source.crs.is_projected or source.crs.to_epsg() == 3857:
        return None
    metres: float = source.crs.linear_units_factor[1]
    return float(abs(source.transform.determinant)) * metres**2
