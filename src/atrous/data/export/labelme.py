"""LabelMe's JSON, beside each image: a polygon for each region."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from atrous.data.export.labelled import Labelled
from atrous.files import write_json
from atrous.images.outlines import cut_open, regions_of
from atrous.taxonomy import Taxonomy

_VERSION = "5.5.0"


def write_split(
    folder: Path, split: str, images: Iterable[Labelled], taxonomy: Taxonomy, tolerance: float
) -> None:
    """Write FOLDER/images/SPLIT/KEY.json of each image, for `labelme FOLDER/images/SPLIT`."""
    for image in images:
        height, width = image.size
        shapes = [
            {
                "label": taxonomy.classes[train_id],
                "points": cut_open(polygon).centres.tolist(),
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            for train_id, polygon in regions_of(image.labels, tolerance)
        ]
        table: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": PurePosixPath(image.name).name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        path = folder / "images" / split / f"{image.key}.json"
        write_json(path, table, indent=None, flush=False)
