"""A small panoptic data set, and a result for it, in COCO's format."""

from pathlib import Path

import numpy as np

from atrous.data.dataset import Dataset
from atrous.data.encodings.panoptic import write_panoptic
from atrous.images.photos import write_image
from atrous.metrics import Panoptic

CATEGORIES = [{"id": 7, "name": "cat", "isthing": 1}, {"id": 200, "name": "sky", "isthing": 0}]

_BLOCK = np.ones((4, 4), np.int64)

PANOPTIC = """\
[labels]
encoding = "coco-panoptic"
map = { 7 = 0, 200 = 1 }
ignore = [9]
classes = [{ name = "cat", thing = true }, "sky"]
[splits.val]
images = "images/{key}.png"
labels = "truth/{key}.png"
annotations = "truth.json"
"""


def make_panoptic(random: np.random.Generator, crowd: int) -> Panoptic:
    """Blocks of 4x4 pixels: void, two cats, one of them maybe a crowd, or sky."""
    return _segments(np.kron(random.choice([0, 5, 70_000, 300], (4, 5)), _BLOCK), crowd)


def changed(panoptic: Panoptic) -> Panoptic:
    """The same with the first row of blocks forgotten."""
    ids = panoptic.ids.copy()
    ids[:4] = 0
    return _segments(ids, 0)


def write_panoptic_data(folder: Path) -> Dataset:
    """Two images with truth and a result, and a third one whose photo is not there."""
    random = np.random.default_rng(0)
    truth = [(f"{i:012}", i, make_panoptic(random, i % 2)) for i in range(3)]
    result = [(key, i, changed(panoptic)) for key, i, panoptic in truth]
    write_panoptic(folder / "truth", folder / "truth.json", truth, CATEGORIES)
    write_panoptic(folder / "result", folder / "result.json", result, CATEGORIES)
    for i in range(2):
        write_image(folder / f"images/{i:012}.png", np.zeros((16, 20, 3), np.uint8))
    (folder / "dataset.toml").write_text(PANOPTIC)
    return Dataset.open(folder)


def _segments(ids: np.ndarray, crowd: int) -> Panoptic:
    """The segments that are in `ids` (H, W); the first cat may be a crowd."""
    kinds = {5: 7, 70_000: 7, 300: 200}
    present = [i for i in kinds if (ids == i).any()]
    return Panoptic(
        ids, [{"id": i, "category_id": kinds[i], "iscrowd": crowd * (i == 5)} for i in present]
    )
