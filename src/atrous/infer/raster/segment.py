"""Rasters through a model, from disk to disk: labels, a reduced overlay, and areas.

The labels become a GeoTIFF with the input's coordinates: train ids, 255 where the input has no
data, with a palette that every viewer shows.
"""

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.draw import class_counts, fractions, overlay
from atrous.errors import InputError
from atrous.files import replacing, write_json
from atrous.images.bands import Bands
from atrous.images.photos import MAX_PIXELS, shown, without_warnings
from atrous.images.rasters import RasterRows, opened_raster, reduced_size
from atrous.infer.result import Result, write_picture
from atrous.infer.runtimes.base import Runtime
from atrous.infer.segmenter import Segmenter
from atrous.infer.tiling import TiledRuntime, label_rows
from atrous.progress import Progress, silent
from atrous.taxonomy import IGNORE_INDEX, Taxonomy


@dataclass(frozen=True, kw_only=True, eq=False)
class RasterSegmentation(Result):
    """The labels of one raster, which are on disk; `seconds` include reading and writing."""

    size: tuple[int, int]
    """(H, W)."""
    counts: NDArray[np.int64]
    """(K,) pixels of each class."""
    pixel_area: float | None
    """Square metres of a pixel, where the coordinates are metres or feet of a projection."""
    crs: str | None
    """The coordinate reference system: "EPSG:32632"."""
    source: Path

    @property
    def shares(self) -> NDArray[np.float64]:
        """(K,) fraction of each class, of pixels with data."""
        return fractions(self.counts)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file. Sizes are (height, width), shares are fractions."""
        names = self.taxonomy.classes
        pixels = {name: int(self.counts[names.index(name)]) for name in self.coverage()}
        document = {
            "image": str(self.source),
            "size": list(self.size),
            **super().to_dict(),
            "pixels": pixels,
            "pixels_without_data": self.size[0] * self.size[1] - int(self.counts.sum()),
            "crs": self.crs,
        }
        if self.pixel_area is not None:
            areas = {name: round(count * self.pixel_area, 2) for name, count in pixels.items()}
            document["square_metres"] = areas
        return document


def segment_raster(
    segmenter: Segmenter,
    path: Path,
    target: Path,
    *,
    bands: Bands | None = None,
    progress: Progress = silent,
) -> tuple[RasterSegmentation, list[Path]]:
    """Label `path` and write TARGET.labels.tif, TARGET.overlay.jpg (reduced) and TARGET.json.

    Args:
        segmenter: the model, without a CRF.
        path: any file that GDAL reads.
        target: path of the files without their endings.
        bands: result of `Segmenter.reading`, by default of this file.
        progress: called with the number of tiles that are done.

    Returns:
        The numbers, and the files in the order above.
    """
    endings = (".labels.tif", ".overlay.jpg", ".json")
    files = [target.with_name(target.name + ending) for ending in endings]
    if segmenter.crf is not None:
        raise InputError(f"{path}: a raster, and a CRF takes photos as a whole; leave --crf out")
    start, taxonomy = time.perf_counter(), segmenter.metadata.taxonomy
    with opened_raster(path) as source:
        rows = RasterRows(source, path, bands or segmenter.reading([path])[0])
        runtime, tile = _untiled(segmenter, source.shape, path)
        with replacing(files[0]) as temporary:
            with _labels_file(temporary, source, taxonomy) as labels:
                strips = label_rows(
                    runtime, rows.read, source.shape, tile, segmenter.calls, progress
                )
                counts = _write(labels, strips, rows, taxonomy.num_classes)
            size = reduced_size(source.shape)
            small_labels, small_image = _reduced_labels(temporary, size), shown(rows.reduced(size))
            write_picture(files[1], overlay(small_image, small_labels, taxonomy))
    result = RasterSegmentation(
        size=source.shape,
        counts=counts,
        pixel_area=_pixel_area(source),
        crs=None if source.crs is None else source.crs.to_string(),
        taxonomy=taxonomy,
        seconds=time.perf_counter() - start,
        model=segmenter.description,
        source=path,
    )
    write_json(files[2], result.to_dict())
    return result, files


def _untiled(segmenter: Segmenter, size: tuple[int, int], path: Path) -> tuple[Runtime, int]:
    """Return the runtime for a tile, and the side of a tile."""
    if isinstance(segmenter.runtime, TiledRuntime):
        return segmenter.runtime.runtime, segmenter.runtime.tile
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(f"{path}: {size[1]}x{size[0]} pixels at once; leave --tile 0 out")
    return segmenter.runtime, -(-max(size) // 128) * 128


def _write(
    file: Any, strips: Iterator[NDArray[Any]], rows: RasterRows, num_classes: int
) -> NDArray[np.int64]:
    """Write the labels, where there are data; return the pixels of each class, (K,)."""
    from rasterio.windows import Window

    counts, top = np.zeros(num_classes, np.int64), 0
    for labels in strips:  # (n, W)
        labels[~rows.take_mask(len(labels))] = IGNORE_INDEX
        if len(labels):
            counts += class_counts(labels, num_classes)
            file.write(labels, 1, window=Window(0, top, file.width, len(labels)))
        top += len(labels)
    return counts


@contextmanager
def _labels_file(path: Path, source: Any, taxonomy: Taxonomy) -> Iterator[Any]:
    """Yield a GeoTIFF to write labels to, with the coordinates of `source`."""
    import rasterio

    points, points_crs = source.gcps  # images without a projection have some
    with without_warnings():  # a raster without coordinates causes one
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


def _reduced_labels(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read a label file reduced to `size` (H, W): each pixel has its most frequent label.

    This reads the whole file, which proves that it was written completely.
    """
    import rasterio
    from rasterio.enums import Resampling

    with _writable():
        with without_warnings():
            file = rasterio.open(path)
        with file:
            return np.asarray(file.read(1, out_shape=size, resampling=Resampling.mode), np.uint8)


def _pixel_area(source: Any) -> float | None:
    """Return the square metres of a pixel; None for degrees and Web Mercator, which distorts."""
    if source.crs is None or not source.crs.is_projected or source.crs.to_epsg() == 3857:
        return None
    metres: float = source.crs.linear_units_factor[1]
    return float(abs(source.transform.determinant)) * metres**2


@contextmanager
def _writable() -> Iterator[None]:
    """Raise OSError if rasterio cannot write our file, or cannot read it again."""
    from rasterio.errors import RasterioIOError

    try:
        yield
    except RasterioIOError:
        raise OSError(errno.EIO, "cannot be written; the disk may be full") from None
