"""CVAT's XML for images, version 1.1: a mask for each class of an image.

A mask is run lengths, outside, inside, ..., row by row in the box around it.
"""

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from atrous.data.export.labelled import Labelled
from atrous.files import replacing, write_json
from atrous.taxonomy import Taxonomy


def write_split(
    folder: Path, split: str, images: Iterable[Labelled], taxonomy: Taxonomy, _: float
) -> None:
    """Write FOLDER/annotations_SPLIT.xml, for a task with the images of FOLDER/images/SPLIT."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    labels = ElementTree.SubElement(task, "labels")
    for name in taxonomy.classes:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    for number, image in enumerate(images):
        height, width = image.size
        element = ElementTree.SubElement(
            root, "image", id=str(number), name=image.name, width=str(width), height=str(height)
        )
        for train_id in np.unique(image.labels).tolist():
            if train_id < taxonomy.num_classes:
                _add_mask(element, taxonomy.classes[train_id], image.labels == train_id)
    with replacing(folder / f"annotations_{split}.xml") as path:
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(path, "utf-8", xml_declaration=True)


def write_names(folder: Path, taxonomy: Taxonomy) -> None:
    """Write FOLDER/labels.json, which a new task or project takes as its labels ("Raw")."""
    both = zip(taxonomy.classes, taxonomy.colors, strict=True)
    labels = [
        {"name": name, "color": f"#{bytes(color).hex()}", "attributes": []} for name, color in both
    ]
    write_json(folder / "labels.json", labels)


def _add_mask(image: ElementTree.Element, name: str, inside: NDArray[np.bool_]) -> None:
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    top, left = int(rows[0]), int(columns[0])
    box = inside[top : rows[-1] + 1, left : columns[-1] + 1]
    values = np.concatenate([[False], box.ravel(), [not box[-1, -1]]])
    runs = np.diff(np.flatnonzero(values[1:] != values[:-1]), prepend=0)
    ElementTree.SubElement(
        image,
        "mask",
        label=name,
        source="auto",
        occluded="0",
        rle=", ".join(map(str, runs.tolist())),
        left=str(left),
        top=str(top),
        width=str(box.shape[1]),
        height=str(box.shape[0]),
        z_order="0",
    )
