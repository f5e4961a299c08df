"""Rasters through a model, from disk to disk: labels, a reduced overlay, and areas.

The labels become a GeoTIFF with the input's coordinates: train ids, 255 where the input has no
data, in colours that every viewer shows.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.draw import overlay
from atrous.errors import InputError
from atrous.files import replacing
from atrous.images.bands import Bands
from atrous.images.photos import MAX_PIXELS, encoded, shown
from atrous.images.rasters import RasterRows, opened_raster, reduced_size
from atrous.infer.raster.files import labels_file, pixel_area, reduced_labels
from atrous.infer.runtimes.open import Runtime
from atrous.infer.segmenter import Segmenter
from atrous.infer.tiling import Tiled, label_rows
from atrous.progress import Progress
from atrous.taxonomy import IGNORE_INDEX, Taxonomy

LABELS_ENDING = ".labels.tif"


@dataclass(frozen=True, kw_only=True, eq=False)
class RasterSegmentation:
    """What the model saw in one raster, whose labels are on disk."""

    size: tuple[int, int]
    """(H, W)."""
    counts: NDArray[np.int64]
    """(K,) pixels of each class."""
    pixel_area: float | None
    """Square metres of a pixel, where the coordinates are metres or feet of a projection."""
    crs: str | None
    """The coordinate reference system: "EPSG:32632"."""
    taxonomy: Taxonomy
    seconds: float
    """From the first row read to the last one written."""
    model: str
    """Which model and runtime: "camvid (int8, onnxruntime, 2 threads)"."""
    source: Path

    def coverage(self) -> dict[str, float]:
        """Return each class's fraction of the pixels that have data, largest first."""
        order = np.argsort(-self.counts, kind="stable")
        total = self.counts.sum()
        names = self.taxonomy.classes
        return {names[i]: float(self.counts[i] / total) for i in order if self.counts[i]}

    def to_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds. Sizes are (height, width), shares are fractions."""
        names = self.taxonomy.classes
        pixels = {name: int(self.counts[names.index(name)]) for name in self.coverage()}
        document: dict[str, Any] = {
            "image": str(self.source),
            "size": list(self.size),
            "model": self.model,
            "seconds": round(self.seconds, 4),
            "classes": list(names),
            "coverage": {name: round(share, 6) for name, share in self.coverage().items()},
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
    progress: Progress | None = None,
) -> tuple[RasterSegmentation, list[Path]]:
    """Label `path` and write TARGET.labels.tif, TARGET.overlay.jpg (reduced) and TARGET.json.

    Args:
        segmenter: the model.
        path: whatever GDAL reads.
        target: path of the files without their endings.
        bands: from `Segmenter.reading`; left out, the file decides for itself.
        progress: told of the tiles that are done.

    Returns:
        The numbers, and the files in the order above.

    Raises:
        InputError: the file cannot be read, its bands or values are no colours, or the model is
            refined by a CRF.
        OSError: the disk is full or the folder cannot be written.
    """
    files = [
        target.with_name(target.name + end) for end in (LABELS_ENDING, ".overlay.jpg", ".json")
    ]
    if segmenter.crf is not None:
        raise InputError(f"{path}: a raster, and a CRF takes photos as a whole; leave --crf out")
    start = time.perf_counter()
    with opened_raster(path) as source:
        rows = RasterRows(source, path, bands or segmenter.reading([path])[0])
        runtime, tile = _untiled(segmenter, source.shape, path)
        with replacing(files[0]) as temporary:
            with labels_file(temporary, source, segmenter.metadata.taxonomy) as labels:
                strips = label_rows(
                    runtime, rows.read, source.shape, tile, segmenter.calls, progress
                )
                counts = _write(labels, strips, rows, segmenter.metadata.taxonomy.num_classes)
            size = reduced_size(source.shape)
            labels_seen, image_seen = reduced_labels(temporary, size), shown(rows.reduced(size))
            seen = overlay(image_seen, labels_seen, segmenter.metadata.taxonomy)
            with replacing(files[1]) as picture:
                picture.write_bytes(encoded(seen, picture))
    result = RasterSegmentation(
        size=source.shape,
        counts=counts,
        pixel_area=pixel_area(source),
        crs=None if source.crs is None else source.crs.to_string(),
        taxonomy=segmenter.metadata.taxonomy,
        seconds=time.perf_counter() - start,
        model=segmenter.description,
        source=path,
    )
    with replacing(files[2]) as temporary:
        temporary.write_text(json.dumps(result.to_dict(), indent=2) + "\n", encoding="utf-8")
    return result, files


def _untiled(segmenter: Segmenter, size: tuple[int, int], path: Path) -> tuple[Runtime, int]:
    """The runtime for a tile, and a tile's side.

    Raises:
        InputError: all of a large raster would be one tile.
    """
    if isinstance(segmenter.runtime, Tiled):
        return segmenter.runtime.runtime, segmenter.runtime.tile
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(f"{path}: {size[1]}x{size[0]} pixels at once; leave --tile 0 out")
    return segmenter.runtime, -(-max(size) // 128) * 128


def _write(
    file: Any, strips: Iterator[NDArray[Any]], rows: RasterRows, num_classes: int
) -> NDArray[np.int64]:
    """Write the labels, where there are data; return how many pixels of each class, (K,)."""
    from rasterio.windows import Window

    counts, top = np.zeros(num_classes, np.int64), 0
    for labels in strips:  # (n, W)
        labels[~rows.take_mask(len(labels))] = IGNORE_INDEX
        if len(labels):
            counts += Image.fromarray(labels).histogram()[:num_classes]
            file.write(labels, 1, window=Window(0, top, file.width, len(labels)))
        top += len(labels)
    return counts
