"""Rasters through a model, from disk to disk: labels, a reduced overlay, and areas.

The labels become a GeoTIFF with the input's coordinates: train ids, 255 where the input has no
data, with a palette that every viewer shows.
"""

import errno
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.draw import class_counts, fractions, overlay
from atrous.errors import InputError, about
from atrous.files import replacing, write_json
from atrous.images.bands import Bands
from atrous.images.photos import MAX_PIXELS, shown, without_warnings
from atrous.images.rasters import RasterRows, opened_raster, reduced_size
from atrous.infer.outputs import (
    STANDARD,
    Kind,
    check_kinds,
    confidence_bytes,
    write_geojson,
)
from atrous.infer.result import Result, write_picture
from atrous.infer.runtimes.base import Runtime
from atrous.infer.segmenter import Segmenter
from atrous.infer.tiling import TiledRuntime, label_rows
from atrous.infer.upsample import Labels
from atrous.progress import Progress, silent
from atrous.taxonomy import IGNORE_INDEX, Taxonomy

_ENDINGS: dict[Kind, str] = {
    "labels": ".labels.tif",
    "overlay": ".overlay.jpg",
    "json": ".json",
    "confidence": ".confidence.tif",
    "polygons": ".polygons.geojson",
}


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
    write: Sequence[Kind] = STANDARD,
    tolerance: float = 0,
    progress: Progress = silent,
) -> tuple[RasterSegmentation, list[Path]]:
    """Label `path` and write TARGET.labels.tif, TARGET.overlay.jpg (reduced) and TARGET.json.

    Args:
        segmenter: the model, without a CRF.
        path: any file that GDAL reads.
        target: path of the files without their endings.
        bands: result of `Segmenter.reading`, by default of this file.
        write: which files, also "confidence" (.confidence.tif) and "polygons"
            (.polygons.geojson, in the raster's coordinates if it has some, otherwise in pixels).
        tolerance: by which polygons are simplified, in pixels.
        progress: called with the number of tiles that are done.

    Returns:
        The numbers, and the files in the order of `write`.
    """
    with about(path):
        check_kinds(write, " of a raster", tuple(_ENDINGS))
    files = {kind: target.with_name(target.name + _ENDINGS[kind]) for kind in write}
    if segmenter.crf is not None:
        raise InputError(f"{path}: a raster, and a CRF takes photos as a whole; leave --crf out")
    start, taxonomy = time.perf_counter(), segmenter.metadata.taxonomy
    with opened_raster(path) as source:
        rows = RasterRows(source, path, bands or segmenter.reading([path])[0])
        with _whole(files.get("labels"), target) as labels_path:
            confidence = files.get("confidence")
            counts = _label(segmenter, path, source, rows, labels_path, confidence, progress)
            if "overlay" in files:
                size = reduced_size(source.shape)
                small_labels = _reduced_labels(labels_path, size)
                small_image = shown(rows.reduced(size))
                write_picture(files["overlay"], overlay(small_image, small_labels, taxonomy))
            if "polygons" in files:
                _write_polygons(files["polygons"], labels_path, taxonomy, tolerance)
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
    if "json" in files:
        write_json(files["json"], result.to_dict())
    return result, [*files.values()]


@contextmanager
def _whole(path: Path | None, target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is moved there; None: it is removed."""
    if path is not None:
        with replacing(path) as temporary:
            yield temporary
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=".") as folder:
        yield Path(folder) / "scratch.tif"


def _label(
    segmenter: Segmenter,
    path: Path,
    source: Any,
    rows: RasterRows,
    labels_path: Path,
    confidence_path: Path | None,
    progress: Progress,
) -> NDArray[np.int64]:
    """Write labels, and perhaps their probabilities; return the pixels of each class, (K,)."""
    taxonomy = segmenter.metadata.taxonomy
    runtime, tile = _untiled(segmenter, source.shape, path)
    with ExitStack() as stack:
        files = [stack.enter_context(_grey_file(labels_path, source, IGNORE_INDEX, taxonomy))]
        if confidence_path is not None:
            temporary = stack.enter_context(replacing(confidence_path))
            files.append(stack.enter_context(_grey_file(temporary, source, 0)))
        strips = label_rows(
            runtime,
            rows.read,
            source.shape,
            tile,
            segmenter.calls,
            progress,
            with_confidence=len(files) > 1,
        )
        return _write(files, strips, rows, taxonomy.num_classes)


def _untiled(segmenter: Segmenter, size: tuple[int, int], path: Path) -> tuple[Runtime, int]:
    """Return the runtime for a tile, and the side of a tile."""
    if isinstance(segmenter.runtime, TiledRuntime):
        return segmenter.runtime.runtime, segmenter.runtime.tile
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(f"{path}: {size[1]}x{size[0]} pixels at once; leave --tile 0 out")
    return segmenter.runtime, -(-max(size) // 128) * 128


def _write(
    files: Sequence[Any],
    strips: Iterator[tuple[Labels, NDArray[np.float32] | None]],
    rows: RasterRows,
    num_classes: int,
) -> NDArray[np.int64]:
    """Write labels, and perhaps their probabilities; return the pixels of each class, (K,)."""
    from rasterio.windows import Window

    counts, top = np.zeros(num_classes, np.int64), 0
    for labels, sure in strips:  # (n, W)
        labels[~rows.take_mask(len(labels))] = IGNORE_INDEX
        if len(labels):
            counts += class_counts(labels, num_classes)
            window = Window(0, top, labels.shape[1], len(labels))
            values = [labels] if sure is None else [labels, confidence_bytes(sure, labels)]
            for file, strip in zip(files, values, strict=True):
                file.write(strip, 1, window=window)
        top += len(labels)
    return counts


@contextmanager
def _grey_file(
    path: Path, source: Any, nodata: int, taxonomy: Taxonomy | None = None
) -> Iterator[Any]:
    """Yield a GeoTIFF of bytes to write to, with the coordinates of `source`, perhaps colours."""
    import rasterio

    points, points_crs = source.gcps  # images without a projection have some
    with without_warnings():  # a raster without coordinates causes one
        file = rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=source.height,
            width=source.width,
            count=1,
            dtype="uint8",
            nodata=nodata,
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
    with _writable(), file:
        if taxonomy is not None:
            colors = enumerate(taxonomy.palette().tolist())
            file.write_colormap(1, {i: tuple(color) for i, color in colors})
        yield file


def _write_polygons(path: Path, labels_path: Path, taxonomy: Taxonomy, tolerance: float) -> None:
    import rasterio

    with _writable():
        with without_warnings():
            file = rasterio.open(labels_path)
        with file:
            transform = None if file.transform.is_identity else file.transform
            crs = None if transform is None else file.crs
            labels = file.read(1)  # whole, a byte each pixel; its outlines may take more
    write_geojson(path, labels, taxonomy, tolerance, transform, crs)


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
