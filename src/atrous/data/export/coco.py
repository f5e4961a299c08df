"""COCO's JSON of objects: regions as outlines, classes as run-length masks.

Ids of categories are train ids + 1: some programs take 0 for no class.

An outline of a region with holes leads to each hole and back. pycocotools, and `draw` of
`atrous.data.encodings.coco`, fill it with the very pixels of the region.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.export.labelled import Labelled
from atrous.files import write_json
from atrous.images.outlines import Region, cut_open, regions_of
from atrous.taxonomy import Taxonomy

Json = dict[str, Any]


def document(
    taxonomy: Taxonomy, samples: Iterable[tuple[str, tuple[int, int], Iterable[Json]]]
) -> Json:
    """Return a COCO JSON.

    Args:
        taxonomy: the classes.
        samples: file name, (height, width) and annotations of each image, which `outlines` or
            `run_lengths` made.
    """
    images: list[Json] = []
    annotations: list[Json] = []
    for number, (name, (height, width), found) in enumerate(samples, start=1):
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for annotation in found:
            ids = {"id": len(annotations) + 1, "image_id": number}
            annotations.append(ids | annotation | {"iscrowd": 0})
    categories = [entry | {"id": entry["id"] + 1} for entry in taxonomy.categories()]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_split(
    folder: Path, split: str, images: Iterable[Labelled], taxonomy: Taxonomy, tolerance: float
) -> None:
    """Write FOLDER/annotations/instances_SPLIT.json: an object for each region."""
    samples = (
        (image.name, image.size, outlines(regions_of(image.labels, tolerance))) for image in images
    )
    path = folder / "annotations" / f"instances_{split}.json"
    write_json(path, document(taxonomy, samples), indent=None)


def outlines(regions: Iterable[Region]) -> Iterator[Json]:
    """Yield an annotation of each region: one ring along the edges of its pixels."""
    for train_id, polygon in regions:
        left, top, right, bottom = polygon.bounds
        yield {
            "category_id": train_id + 1,
            "segmentation": [_numbers(cut_open(polygon).edges)],
            "area": _number(polygon.area),
            "bbox": [*map(_number, (left, top, right - left, bottom - top))],
        }


def run_lengths(labels: NDArray[np.integer[Any]], num_classes: int) -> Iterator[Json]:
    """Yield an annotation of each class in a label map (H, W): a mask of compressed run lengths."""
    from pycocotools import mask

    for train_id in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[:num_classes]):
        encoded = mask.encode(np.asfortranarray(labels == train_id, np.uint8))
        yield {
            "category_id": int(train_id) + 1,
            "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
            "area": int(mask.area(encoded)),
            "bbox": [int(side) for side in mask.toBbox(encoded)],
        }


def _numbers(points: NDArray[np.float64]) -> list[float]:
    return [_number(value) for value in points.ravel().tolist()]


def _number(value: float) -> float:
    """Return a coordinate in hundredths of a pixel, whole ones as integers, which are shorter."""
    return int(value) if value == int(value) else round(value, 2)
