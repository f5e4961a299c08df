"""Label Studio's tasks with predictions: a brush mask for each class of an image.

The masks are run lengths of bits, as the JavaScript package rle-pack packs them, of the four equal
channels of each pixel, row by row.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from atrous.data.export.labelled import Labelled
from atrous.files import replacing, write_json
from atrous.taxonomy import Taxonomy

_SIZES = (3, 4, 8, 16)
"""Bits of a run's length, of which each run names one."""


def write_split(
    folder: Path, split: str, images: Iterable[Labelled], taxonomy: Taxonomy, _: float
) -> None:
    """Write FOLDER/tasks_SPLIT.json: paths of images count from FOLDER as local storage."""
    tasks = [_task(image, split, taxonomy) for image in images]
    write_json(folder / f"tasks_{split}.json", tasks, indent=None)


def write_names(folder: Path, taxonomy: Taxonomy) -> None:
    """Write FOLDER/labels.xml, the labelling interface of the project."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    labels = ElementTree.SubElement(view, "BrushLabels", name="label", toName="image")
    for name, color in zip(taxonomy.classes, taxonomy.colors, strict=True):
        code = f"#{bytes(color).hex()}"
        ElementTree.SubElement(labels, "Label", value=name, background=code)
    with replacing(folder / "labels.xml") as path:
        ElementTree.indent(view)
        ElementTree.ElementTree(view).write(path, "utf-8")


def _task(image: Labelled, split: str, taxonomy: Taxonomy) -> dict[str, Any]:
    height, width = image.size
    present = np.flatnonzero(np.bincount(image.labels.ravel(), minlength=256))
    result = [
        {
            "id": str(train_id),
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": run_lengths(image.labels == train_id),
                "brushlabels": [taxonomy.classes[train_id]],
            },
        }
        for train_id in present[present < taxonomy.num_classes].tolist()
    ]
    address = f"/data/local-files/?d={quote(f'images/{split}/{image.name}')}"
    return {"data": {"image": address}, "predictions": [{"result": result}]}


def run_lengths(inside: NDArray[np.bool_]) -> list[int]:
    """Return a mask (H, W) as the bytes of Label Studio's `rle`."""
    values = inside.ravel()
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]) + 1, values.size)
    bits = [f"{4 * values.size:032b}{8 - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    start = 0
    for end in ends.tolist():
        value, left = ("11111111" if values[start] else "00000000"), 4 * (end - start)
        while left:
            length = min(left, 1 << _SIZES[-1])
            kind = next(i for i, size in enumerate(_SIZES) if length <= 1 << size)
            bits.append(f"1{kind:02b}{length - 1:0{_SIZES[kind]}b}{value}")
            left -= length
        start = end
    packed = np.packbits(np.frombuffer("".join(bits).encode("ascii"), np.uint8) - ord("0"))
    return [int(byte) for byte in packed]
