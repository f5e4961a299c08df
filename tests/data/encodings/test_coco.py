"""COCO's JSON, as pycocotools and a loop write it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from describing import (
    COCO_IDS,
    IGNORED,
    LABELS,
    NUM_CLASSES,
    describe,
    fault_of,
    few,
    photo,
    read,
    run_lengths,
    write_coco,
)
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from atrous.data.dataset import Dataset
from atrous.data.encodings import coco
from atrous.errors import InputError


@few
@given(LABELS, st.booleans(), st.sampled_from([None, "sky", "tree"]))
def test_coco_run_lengths(
    tmp_path: Path, label: np.ndarray, compressed: bool, background: str | None
) -> None:
    masks = [(COCO_IDS[i], run_lengths(label == i, compressed)) for i in range(NUM_CLASSES)]
    more = f'background = "{background}"' if background else ""
    write_coco(tmp_path, label.shape, masks, more)
    uncovered = {"sky": 0, "tree": 3, None: 255}[background]
    assert np.array_equal(read(tmp_path), np.where(label == IGNORED, uncovered, label))


@few
@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(1, 400))
def test_large_run_lengths_equal_pycocotools(
    tmp_path: Path, seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    outlines = rng.uniform(-5, 405, (int(rng.integers(1, 6)), int(rng.integers(3, 9)) * 2))
    rle = coco_mask.merge(coco_mask.frPyObjects(list(outlines), height, width))
    expected = np.where(coco_mask.decode(rle), 2, 255)
    compressed = {"size": [height, width], "counts": rle["counts"].decode()}
    assert np.array_equal(
        read(write_coco(tmp_path, (height, width), [(300, compressed)])), expected
    )
    if np.abs(outlines).max() < 2 * min(height, width):
        write_coco(tmp_path, (height, width), [(300, outlines.tolist())])
        assert np.array_equal(read(tmp_path), expected)


def rectangle(left: int, top: int, right: int, bottom: int) -> list[int]:
    return [left, top, right, top, right, bottom, left, bottom]


def test_small_coco_objects_stay_visible(tmp_path: Path) -> None:
    boxes = [(1, (3, 3, 5, 5)), (20, (0, 0, 9, 8)), (4, (2, 2, 6, 6)), (99, (8, 0, 9, 9))]
    masks = [(category, [rectangle(*box), [1.5, 1.5]]) for category, box in boxes]
    expected = np.full((9, 9), 2)
    for category, (left, top, right, bottom) in (boxes[1], boxes[2], boxes[3], boxes[0]):
        expected[top:bottom, left:right] = {1: 0, 20: 1, 4: 3, 99: 255}[category]
    write_coco(tmp_path, (9, 9), masks, 'background = "car"')
    assert np.array_equal(read(tmp_path), expected)


HUGE = 10**400
COCO_FAULTS = [
    (None, "without a mask"),
    ([], "a box alone does not do"),
    ([[1, 1, 3, 3]], "a box alone does not do"),
    ([[1, 1, 3, 3, 4]], "x, y, x, y"),
    ([[1, 1, 3, 3, 4, "5"]], "x, y, x, y"),
    ([["1", "1", "3", "3", "4", "5"]], "x, y, x, y"),
    ([[1, 1, 3, [3], 4, 5]], "x, y, x, y"),
    ([["x" * 10**6, *["y"] * 10**5]], "x, y, x, y"),  # not an array of a million letters each
    ([1, 1, 3, 3, 4, "5"], "x, y, x, y"),
    ([{"x": 1}], "x, y, x, y"),
    ([[1, 1, 3, 3, 4, float("nan")]], "far out"),
    ([[1, 1, 3, 3, 4, float("inf")]], "far out"),
    ([[1, 1, 3, 3, 4, 1e9]], "far out"),
    ([[1, 1, 3, 3, 4, HUGE]], "x, y, x, y"),
    ([[-9, -9, 18, 18] * 90000], "outlines so many or so long"),
    ({"size": [9, 9], "counts": [41, 41]}, "82 pixels, not 81"),
    ({"size": [9, 9], "counts": [-1, 82]}, "impossible"),
    ({"size": [9, 9], "counts": [HUGE]}, "without counts"),
    ({"size": [9, 9], "counts": [80.5, 0.5]}, "without counts"),
    ({"size": [9, 9], "counts": []}, "without counts|impossible"),
    ({"size": [9, 9], "counts": None}, "without counts"),
    ({"size": [9, 9]}, "without counts"),
    ({"size": [9, 8], "counts": [72]}, "of size"),
    ({"size": "9x9", "counts": [81]}, "of size"),
    ({"size": [9, 9], "counts": ""}, "cut short"),
    ({"size": [9, 9], "counts": "Q"}, "cut short"),
    ({"size": [9, 9], "counts": "1é0"}, "impossible"),
    ({"size": [9, 9], "counts": "oooooooooooooo0"}, "impossible"),
    ({"size": [9, 9], "counts": "1111"}, "pixels, not 81"),
    ({"size": [9, 9], "counts": "1100O0"}, "impossible"),
    ("text", "without a mask"),
    (7, "without a mask"),
]


@pytest.mark.parametrize(("mask", "message"), COCO_FAULTS)
def test_coco_masks_that_are_none(tmp_path: Path, mask: Any, message: str) -> None:
    write_coco(tmp_path, (9, 9), [(1, mask)])
    with pytest.raises(InputError, match=f"all.json: image 'a.png': .*({message})"):
        read(tmp_path)


def change_coco(table: dict[str, Any], fault: str) -> None:
    annotation, image = table["annotations"][0], table["images"][0]
    match fault:
        case "category":
            annotation["category_id"] = 6
        case "unmapped":
            annotation["category_id"] = 5
        case "image":
            annotation["image_id"] = 78
        case "twice":
            table["images"].append(image)
        case "name twice":
            table["images"].append({**image, "id": 78})
        case "size":
            image["width"] = 10**8
        case "no size":
            del image["width"]
        case "kind":
            image["height"] = "nine"
        case "list":
            table["annotations"] = 7
        case "name":
            image["file_name"] = ["a.png"]
        case "id":
            image["id"] = {}
        case "null":
            table["images"] = None
        case "true":
            annotation["category_id"] = True
        case "true category":
            table["categories"][0]["id"] = True
        case "objects":
            table["categories"] = [3]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("category", "category 6 is not among its categories"),
        ("unmapped", "id 5 is neither a class nor ignored"),
        ("image", "image 78 is not among its images"),
        ("twice", "two images have the id '77'"),
        ("name twice", "two images have the file_name 'a.png'"),
        ("size", "100000000x9"),
        ("no size", "images[0]: width is missing"),
        ("kind", "images[0].height: expected int, got str"),
        ("list", "annotations: expected array, got int"),
        ("name", "images[0].file_name: expected str, got array"),
        ("id", "images[0].id: expected int | str, got object"),
        ("null", "images: expected array, got null"),
        ("true", "annotations[0].category_id: expected int, got bool"),
        ("true category", "categories[0].id: expected int, got bool"),
        ("objects", "categories[0]: expected object, got int"),
    ],
)
def test_each_fault_of_a_coco_json_is_one_line(tmp_path: Path, fault: str, message: str) -> None:
    write_coco(tmp_path, (9, 9), [(1, {"size": [9, 9], "counts": [81]})])
    table = json.loads((tmp_path / "all.json").read_text())
    change_coco(table, fault)
    (tmp_path / "all.json").write_text(json.dumps(table))
    assert message in fault_of(tmp_path)


def test_many_objects_on_a_large_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "_MOST_PAINTED", coco._MOST_PAINTED / 100)
    corners = [[x, 490 + x, 20, 9] for x in range(0, 400, 4)]
    masks = [(1, [[x, y, x + w, y, x + w, y + h, x, y + h]]) for x, y, w, h in corners]
    write_coco(tmp_path, (900, 900), masks)  # in place of 9000 x 9000
    label = Dataset.open(tmp_path).split("train").label(0)
    assert np.count_nonzero(label == 0) == 100 * 20 * 9 - 99 * 16 * 5


@pytest.mark.parametrize(
    "mask", [[[1, 1, 3, 1, 3, 3]], {"size": [9, 9], "counts": [0, 1, 80]}], ids=["outline", "runs"]
)
def test_small_objects_that_would_take_minutes(
    tmp_path: Path, mask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco, "_MOST_OUTLINE", coco._MOST_OUTLINE / 1000)
    monkeypatch.setattr(coco, "_MOST_PAINTED", coco._MOST_PAINTED / 1000)
    write_coco(tmp_path, (9, 9), [(1, mask)] * 110)  # in place of 110,000
    assert "so many" in fault_of(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[" * 10**5, "[1]", "null", f'{{"a": {"9" * 5000}}}'])
def test_what_is_no_coco_json(tmp_path: Path, text: str) -> None:
    write_coco(tmp_path, (9, 9), [])
    (tmp_path / "all.json").write_text(text)
    assert fault_of(tmp_path).startswith(f"{tmp_path / 'all.json'}: ")


def test_coco_keys_from_its_file_names(tmp_path: Path) -> None:
    """Images without objects are read too, those that are not there are counted."""
    names = ["a.png", "images/b.png", "/far/images/c.png", "gone.png", "other/d.jpg"]
    describe(tmp_path, 'encoding = "coco-json"\nbackground = "sky"', 'annotations = "all.json"')
    images = [
        {"id": str(i), "file_name": name, "height": 2, "width": 3} for i, name in enumerate(names)
    ]
    table = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "all.json").write_text(json.dumps(table))
    for key in "abc":
        photo(tmp_path, (2, 3), key)
    split = Dataset.open(tmp_path).split("train")
    assert split.keys == ("a", "b", "c") and split.missing == 2
    assert all((sample.label == 0).all() for sample in split)
    (tmp_path / "few.txt").write_text("c\nb\n")
    with (tmp_path / "dataset.toml").open("a") as file:
        file.write('list = "few.txt"\n')
    assert Dataset.open(tmp_path).split("train").keys == ("c", "b")
    photo(tmp_path, (2, 3), "e")
    (tmp_path / "few.txt").write_text("e\n")
    assert "does not list the image of 'e'" in fault_of(tmp_path)
