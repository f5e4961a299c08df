"""Small data sets of one sample, "a", in every encoding, and how tests read them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask

from atrous.data.dataset import Dataset
from atrous.errors import InputError

IGNORED = 255
NUM_CLASSES = 4
CLASSES = """[
  { name = "sky", color = "#0a141e" },
  { name = "road", color = [200, 0, 0], thing = true },
  { name = "car", color = [0, 0, 255], thing = true },
  { name = "tree", color = [255, 255, 255] },
]"""
COLORS = np.array([[10, 20, 30], [200, 0, 0], [0, 0, 255], [255, 255, 255]], np.uint8)

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
LABELS = SIZES.flatmap(
    lambda size: arrays(np.uint8, size, elements=st.sampled_from([*range(NUM_CLASSES), IGNORED]))
)
few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
COCO_MAP = "ignore = [99]\nmap = { 1 = 0, 20 = 1, 300 = 2, 4 = 3 }"
COCO_IDS = [1, 20, 300, 4]


def describe(folder: Path, labels: str, split: str = 'labels = "masks/{key}.png"') -> None:
    (folder / "dataset.toml").write_text(
        f"[labels]\n{labels}\nclasses = {CLASSES}\n"
        f'[splits.train]\nimages = "images/{{key}}.png"\n{split}\n'
    )


def save(path: Path, picture: Image.Image | np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    picture.save(path)


def photo(folder: Path, size: tuple[int, int], key: str = "a") -> None:
    save(folder / f"images/{key}.png", np.zeros((*size, 3), np.uint8))


def read(folder: Path, index: int = 0) -> np.ndarray:
    """The label of a sample, which must be the same with and without its image."""
    split = Dataset.open(folder).split("train")
    label = split.label(index)
    assert np.array_equal(label, split[index].label) and label.dtype == np.uint8
    return label


def fault_of(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        read(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def write_coco(
    folder: Path, size: tuple[int, int], masks: list[tuple[int, Any]], more: str = ""
) -> Path:
    """An instances JSON of the image "a"; each mask with its category."""
    describe(folder, f'encoding = "coco-json"\n{COCO_MAP}\n{more}', 'annotations = "all.json"')
    photo(folder, size)
    image = {"id": 77, "file_name": "a.png", "height": size[0], "width": size[1]}
    annotations = [
        {"id": i, "image_id": 77, "category_id": category, "segmentation": mask, "area": 1}
        for i, (category, mask) in enumerate(masks)
    ]
    categories = [{"id": i, "name": str(i)} for i in (*COCO_IDS, 99, 5)]
    table = {"images": [image], "annotations": annotations, "categories": categories}
    (folder / "all.json").write_text(json.dumps(table))
    return folder


def run_lengths(mask: np.ndarray, compressed: bool) -> dict[str, Any]:
    """A run-length mask, by pycocotools or by counting one pixel after the other."""
    if compressed:
        rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        return {"size": rle["size"], "counts": rle["counts"].decode()}
    counts, inside = [0], False
    for pixel in mask.T.ravel().tolist():
        if bool(pixel) != inside:
            counts, inside = [*counts, 0], not inside
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def write_panoptic(folder: Path, ids: np.ndarray, segments: list[dict[str, Any]]) -> None:
    describe(
        folder,
        f'encoding = "coco-panoptic"\n{COCO_MAP}',
        'labels = "segments/{key}.png"\nannotations = "panoptic.json"',
    )
    photo(folder, ids.shape)
    colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    save(folder / "segments/a.png", colors)
    categories = [{"id": i, "name": str(i), "isthing": 1} for i in (*COCO_IDS, 99)]
    annotation = {"image_id": 5, "file_name": "a.png", "segments_info": segments}
    table = {"images": [], "annotations": [annotation], "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(table))


def write_labelme(folder: Path, size: tuple[int, int], shapes: list[Any], more: str = "") -> Path:
    describe(folder, f'encoding = "polygons"\n{more}', 'labels = "shapes/{key}.json"')
    photo(folder, size)
    (folder / "shapes").mkdir(exist_ok=True)
    table = {"shapes": shapes, "imageHeight": size[0], "imageWidth": size[1], "imageData": None}
    (folder / "shapes/a.json").write_text(json.dumps(table))
    return folder


def write_yolo(folder: Path, size: tuple[int, int], text: str, more: str = "") -> Path:
    describe(folder, f'encoding = "polygons"\n{more}', 'labels = "shapes/{key}.txt"')
    photo(folder, size)
    (folder / "shapes").mkdir(exist_ok=True)
    (folder / "shapes/a.txt").write_text(text)
    return folder
