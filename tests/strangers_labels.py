"""Folders whose labels are shapes, as annotation tools export them, with their truth."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from doctor_folders import photo, save

from atrous.data.dataset import Dataset
from atrous.doctor import Diagnosis, examine
from atrous.taxonomy import IGNORE_INDEX

SIZE = (40, 56)
CAR, ROAD, IGNORED = "car", "road", "<ignored>"
Table = dict[str, Any]


def boxes(number: int) -> dict[str, tuple[int, int, int, int]]:
    """Of each class left, top, width and height; the two lie apart."""
    return {ROAD: (2 + number, 3, 18, 15), CAR: (30, 12 + number, 12, 10)}


def truth(number: int, more: int = 0, names: tuple[str, str] = (CAR, ROAD)) -> np.ndarray:
    """Names of classes, (H, W); `more` pixels wider and higher, as where outlines are included."""
    label = np.full(SIZE, "background", object)
    for name, (x, y, w, h) in boxes(number).items():
        label[y : y + h + more, x : x + w + more] = names[name == ROAD]
    return label


def corners(x: int, y: int, w: int, h: int) -> list[list[int]]:
    return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]


def write_labelme(
    folder: Path, change: Callable[[Table, int], Any] = lambda table, number: None, count: int = 4
) -> None:
    """Photos with a LabelMe JSON beside each."""
    for number in range(count):
        save(folder / f"p{number}.jpg", photo(number, SIZE))
        shapes = [
            {"label": name, "points": corners(*box), "shape_type": "polygon"}
            for name, box in boxes(number).items()
        ]
        table = {"version": "5.5.0", "shapes": shapes, "imageHeight": 40, "imageWidth": 56}
        content = change(table, number)
        if not isinstance(content, bytes):
            content = json.dumps(table).encode()
        (folder / f"p{number}.json").write_bytes(content)


def coco_table(count: int = 4, name: str = "{}.jpg") -> Table:
    """A COCO JSON of instances: category 1 is the car, 2 the road."""
    images, annotations = [], []
    for number in range(count):
        images.append(
            {"id": number + 1, "file_name": name.format(number), "height": 40, "width": 56}
        )
        for class_name, box in boxes(number).items():
            outline = [v for point in corners(*box) for v in point]
            category = 1 + (class_name == ROAD)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number + 1,
                    "category_id": category,
                    "segmentation": [outline],
                    "bbox": list(box),
                }
            )
    categories = [{"id": 1, "name": CAR}, {"id": 2, "name": ROAD}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(
    folder: Path, table: Table, images: str = "images/{}.jpg", json_name: str = "all.json"
) -> None:
    for number in range(4):
        save(folder / images.format(number), photo(number, SIZE))
    (folder / json_name).parent.mkdir(parents=True, exist_ok=True)
    (folder / json_name).write_text(json.dumps(table))


def labels_of(folder: Path) -> dict[str, np.ndarray]:
    """Every label of a folder that is described, in names of classes, by the stem of its image."""
    dataset = Dataset.open(folder)
    names = np.full(256, IGNORED, object)
    names[: dataset.taxonomy.num_classes] = dataset.taxonomy.classes
    assert names[IGNORE_INDEX] == IGNORED
    labels = {}
    for split in map(dataset.split, dataset.splits):
        for key, sample in zip(split.keys, split, strict=True):
            labels[Path(split.image_path(key)).stem] = names[sample.label]
    return labels


def described(folder: Path) -> Diagnosis:
    """Examine a folder, write its description, and return the diagnosis."""
    diagnosis = examine(folder)
    diagnosis.write()
    return diagnosis


def check(folder: Path, expected: Mapping[str, np.ndarray]) -> None:
    """What is read equals the truth, in every pixel of every image."""
    found = labels_of(folder)
    assert found.keys() == expected.keys()
    for key, label in expected.items():
        assert np.array_equal(found[key], label), key


def codes(diagnosis: Diagnosis, severity: str = "problem") -> set[str]:
    return {f.code for f in diagnosis.findings if f.severity == severity}
