"""Files of a labelled photo: a function for each kind that `--write` names beside the first three.

NAME.confidence.png, NAME.polygons.geojson and NAME.rle.json; NAME.masks/CLASS.png and
NAME.cutouts/CLASS.png of each class that the photo shows.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.export import coco
from atrous.errors import InputError
from atrous.files import replacing, write_json
from atrous.images.outlines import regions_of
from atrous.images.photos import encoded
from atrous.taxonomy import IGNORE_INDEX, Taxonomy

Kind = Literal["labels", "overlay", "json", "confidence", "polygons", "rle", "cutouts", "masks"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STANDARD: tuple[Kind, ...] = ("labels", "overlay", "json")
"""What is written by default."""

_WGS_84 = 4326
"""EPSG's number of what a GeoJSON without `crs` is in."""
_LONGEST_NAME = 100


def check_kinds(write: Sequence[str], of_what: str = "", known: Sequence[str] = KINDS) -> None:
    """Refuse kinds of files that are not `known`; `of_what` may add " of a raster"."""
    for kind in write:
        if kind not in known:
            raise InputError(f"write {kind}: no file{of_what}; take {', '.join(known)}")


def confidence_bytes(
    confidence: NDArray[np.float32], labels: NDArray[np.integer[Any]]
) -> NDArray[np.uint8]:
    """Return probabilities (H, W) as 8 bits, 255: certain; 0 where `labels` are ignored."""
    values = np.rint(255 * np.clip(confidence, 0, 1)).astype(np.uint8)
    values[labels == IGNORE_INDEX] = 0
    return values


def geojson(
    labels: NDArray[np.integer[Any]],
    taxonomy: Taxonomy,
    tolerance: float = 0,
    transform: Any = None,
    crs: Any = None,
) -> dict[str, Any]:
    """Return the regions of a label map as a GeoJSON FeatureCollection, RFC 7946.

    Args:
        labels: (H, W) train ids.
        taxonomy: the classes.
        tolerance: as of `regions_of`.
        transform: from pixels to coordinates, an `affine.Affine`; None: x and y in pixels, y down.
        crs: rasterio's CRS of the coordinates. GDAL and QGIS read it from the member `crs` of the
            format's version of 2008; RFC 7946 has WGS 84 alone, which needs none.
    """
    import shapely

    regions = regions_of(labels, tolerance)
    polygons = np.array([region.polygon for region in regions], object)
    pixels = shapely.area(polygons).tolist()
    if transform is not None:
        matrix = np.array([[transform.a, transform.b], [transform.d, transform.e]])
        move = np.array([transform.c, transform.f])
        polygons = shapely.transform(polygons, lambda points: points @ matrix.T + move)
        polygons = shapely.orient_polygons(polygons)
    features = [
        {
            "type": "Feature",
            "properties": {
                "class": taxonomy.classes[train_id],
                "train_id": train_id,
                "pixels": round(area, 2),
                "color": "#" + bytes(taxonomy.colors[train_id]).hex(),
            },
            "geometry": shapely.geometry.mapping(polygon),
        }
        for (train_id, _), polygon, area in zip(regions, polygons, pixels, strict=True)
    ]
    named: dict[str, Any] = {}
    if crs is not None and crs.to_epsg() != _WGS_84:
        number = crs.to_epsg()
        name = f"urn:ogc:def:crs:EPSG::{number}" if number else crs.to_wkt()
        named = {"crs": {"type": "name", "properties": {"name": name}}}
    return {"type": "FeatureCollection", **named, "features": features}


def write_geojson(
    path: Path, labels: NDArray[np.integer[Any]], *details: Any, flush: bool = True
) -> None:
    """Write what `geojson` returns."""
    write_json(path, geojson(labels, *details), indent=None, flush=flush)


def write_rle(path: Path, labels: NDArray[np.integer[Any]], taxonomy: Taxonomy, image: str) -> None:
    """Write the classes of one image as a COCO JSON of run-length masks."""
    size = (labels.shape[0], labels.shape[1])
    annotations = coco.run_lengths(labels, taxonomy.num_classes)
    document = coco.document(taxonomy, [(image, size, annotations)])
    write_json(path, document, indent=None, flush=False)


def write_masks(folder: Path, labels: NDArray[np.integer[Any]], taxonomy: Taxonomy) -> list[Path]:
    """Write FOLDER/CLASS.png of each class in a label map: 255 where it is, else 0."""
    return _by_class(folder, labels, taxonomy, lambda inside: Image.fromarray(inside).convert("1"))


def write_cutouts(
    folder: Path,
    labels: NDArray[np.integer[Any]],
    taxonomy: Taxonomy,
    image: NDArray[np.uint8],  # (H, W, 3)
) -> list[Path]:
    """Write FOLDER/CLASS.png of each class: the photo where it is, else transparent black."""

    def cut_out(inside: NDArray[np.bool_]) -> Image.Image:
        return Image.fromarray(np.dstack([image, np.full_like(labels, 255)]) * inside[..., None])

    return _by_class(folder, labels, taxonomy, cut_out)


def _by_class(
    folder: Path,
    labels: NDArray[np.integer[Any]],
    taxonomy: Taxonomy,
    draw: Callable[[NDArray[np.bool_]], Image.Image],
) -> list[Path]:
    """Write a picture of each class that is there; remove those of earlier calls that is not."""
    written = []
    there = set(np.unique(labels).tolist())
    for train_id, name in enumerate(file_names(taxonomy.classes)):
        path = folder / f"{name}.png"
        if train_id not in there:
            path.unlink(missing_ok=True)
            continue
        with replacing(path, flush=False) as temporary:
            temporary.write_bytes(encoded(draw(labels == train_id), temporary))
        written.append(path)
    return written


def file_names(classes: Sequence[str]) -> Iterator[str]:
    """Yield a name of a file for each class, on any system, without ending.

    >>> [*file_names(["road", "Road", "car/van"])]
    ['road', 'Road_', 'car_van']
    """
    taken: set[str] = set()
    for name in classes:
        safe = re.sub(r'[<>:"/\\|?*]', "_", name)[:_LONGEST_NAME].strip(" .") or "_"
        while safe.casefold() in taken:
            safe += "_"
        taken.add(safe.casefold())
        yield safe
