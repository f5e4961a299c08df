"""LabelMe's and YOLO's polygons against boxes drawn with numpy."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from describing import (
    NUM_CLASSES,
    describe,
    fault_of,
    few,
    photo,
    read,
    save,
    write_labelme,
    write_yolo,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atrous.data.dataset import Dataset
from atrous.data.encodings import polygons
from atrous.errors import InputError

BOXES = st.lists(
    st.tuples(
        st.integers(0, NUM_CLASSES - 1),
        st.tuples(st.integers(0, 11), st.integers(0, 11)),
        st.tuples(st.integers(0, 11), st.integers(0, 11)),
    ),
    max_size=5,
)


def painted(boxes: list[Any], size: tuple[int, int], background: int) -> np.ndarray:
    """Boxes from corner to corner, both included, one over the other."""
    label = np.full(size, background, np.uint8)
    for class_id, (x, y), (u, v) in boxes:
        label[min(y, v) : max(y, v) + 1, min(x, u) : max(x, u) + 1] = class_id
    return label


@few
@given(BOXES, st.booleans())
def test_labelme(tmp_path: Path, boxes: list[Any], as_polygon: bool) -> None:
    names = ["sky", "road", "auto", "tree"]
    shapes = [
        {"label": names[i], "points": [[x, y], [u, y], [u, v], [x, v]], "mask": None}
        if as_polygon
        else {"label": names[i], "points": [[x, y], [u, v]], "shape_type": "rectangle"}
        for i, (x, y), (u, v) in boxes
    ]
    write_labelme(tmp_path, (12, 13), shapes, 'background = "tree"\nmap = { auto = 2 }')
    assert np.array_equal(read(tmp_path), painted(boxes, (12, 13), 3))


def test_labelme_circle(tmp_path: Path) -> None:
    shape = {"label": "car", "points": [[20, 30], [20, 40]], "shape_type": "circle"}
    label = read(write_labelme(tmp_path, (50, 40), [shape]))
    y, x = np.mgrid[:50, :40]
    distance = np.hypot(x - 20, y - 30)
    assert (label[distance < 9.5] == 2).all() and (label[distance > 10.8] == 255).all()


def test_labelme_names_that_are_ignored_or_unknown(tmp_path: Path) -> None:
    corners = [[0, 0], [1, 1]]
    shapes = [
        {"label": "road", "points": corners, "shape_type": "rectangle"},
        {"label": "blur", "points": [[0, 0], [0, 0]], "shape_type": "rectangle"},
    ]
    write_labelme(tmp_path, (2, 2), shapes)
    assert "a.json: id 'blur' is neither a class nor ignored" in fault_of(tmp_path)
    for more in ('ignore = ["blur"]', 'unknown = "ignore"'):
        assert read(write_labelme(tmp_path, (2, 2), shapes, more)).tolist() == [[255, 1], [1, 1]]


HUGE = 10**400
SQUARE = [[0, 0], [1, 0], [1, 1]]
LABELME_FAULTS = [
    ({"label": "road", "points": SQUARE, "shape_type": "linestrip"}, "'linestrip', where only"),
    ({"label": "road", "points": SQUARE[:2]}, "a polygon of 2 points"),
    ({"label": "road", "points": SQUARE, "shape_type": "circle"}, "a circle of 3 points"),
    ({"label": "road", "points": [*SQUARE, [float("nan"), 0]]}, "far out"),
    ({"label": "road", "points": [*SQUARE, [float("inf"), 0]]}, "far out"),
    ({"label": "road", "points": [*SQUARE, [1e12, 0]]}, "far out"),
    ({"label": "road", "points": [*SQUARE, [HUGE, 0]]}, r"points\[3\]\[0\]: number out of range"),
    (
        {"label": "road", "points": [*SQUARE, [0]]},
        r"points\[3\]: expected array of len",
    ),
    (
        {"label": "road", "points": [*SQUARE, [0, True]]},
        r"\[3\]\[1\]: expected float, got bool",
    ),
    ({"label": "road", "points": [*SQUARE, 7]}, r"points\[3\]: expected array, got int"),
    ({"label": "road", "points": [["0", "1"]] * 3}, r"points\[0\]\[0\]: expected float, got str"),
    ({"label": "road", "points": 3}, "points: expected array, got int"),
    ({"label": 3, "points": SQUARE}, "label: expected str, got int"),
    ({"label": "road"}, r"shapes\[0\]: points is missing"),
    ("road", r"shapes\[0\]: expected object, got str"),
    (
        {"label": "road", "points": SQUARE, "shape_type": ["polygon"]},
        "polygon.*, where only polygon, rectangle, circle and mask",
    ),
]


@pytest.mark.parametrize(("shape", "message"), LABELME_FAULTS)
def test_labelme_shapes_that_are_none(tmp_path: Path, shape: Any, message: str) -> None:
    write_labelme(tmp_path, (4, 4), [shape])
    with pytest.raises(InputError, match=f"a.json: .*{message}") as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected object, got array"),
        ('{"shapes": null}', "shapes: expected array, got null"),
        ("{}", "shapes is missing"),
    ],
)
def test_what_is_no_labelme_file(tmp_path: Path, text: str, message: str) -> None:
    write_labelme(tmp_path, (4, 4), [])
    (tmp_path / "shapes/a.json").write_text(text)
    assert message in fault_of(tmp_path)


def test_labelme_of_another_image(tmp_path: Path) -> None:
    write_labelme(tmp_path, (4, 4), [])
    photo(tmp_path, (4, 5))
    assert "drawn on 4x4, but its image is 5x4" in fault_of(tmp_path)


@few
@given(BOXES)
def test_yolo(tmp_path: Path, boxes: list[Any]) -> None:
    lines = ""
    for i, (x, y), (u, v) in boxes:
        corners = ((x, y), (u, y), (u, v), (x, v))
        lines += f"{i} " + " ".join(f"{x / 13:.6f} {y / 12:.6f}" for x, y in corners) + "\n\n"
    write_yolo(tmp_path, (12, 13), lines, 'background = "sky"')
    assert np.array_equal(read(tmp_path), painted(boxes, (12, 13), 0))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2 0.2", "a box, where polygons were expected"),
        ("0 0.5 0.5 0.2 0.2 0.3", "5 numbers after its class"),
        ("0 0.5", "1 numbers after its class"),
        ("0 0 0 1 0 12 14", "between 0 and 1"),
        ("0 0 0 1 0 nan 1", "between 0 and 1"),
        ("0 0 0 1 0 x 1", "where a class and numbers"),
        ("car 0 0 1 0 1 1", "where a class and numbers"),
        ("4 0 0 1 0 1 1", "id 4 is neither a class nor ignored"),
        ("-1 0 0 1 0 1 1", "id -1 is neither"),
        ("\xff\x00", "."),
    ],
)
def test_yolo_lines_that_are_none(tmp_path: Path, line: str, message: str) -> None:
    write_yolo(tmp_path, (4, 4), f"0 0 0 1 0 1 1\n{line}\n")
    with pytest.raises(InputError, match=f"a.txt: .*{message}") as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


def noise(corners: int) -> str:
    return "0 " + " ".join(f"{x:.3f}" for x in np.random.default_rng(0).random(2 * corners))


def spikes(corners: int) -> str:
    angle, radius = np.linspace(0, 6.28, corners), 0.45 + np.arange(corners) % 2 / 500
    points = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] + 0.5
    return "0 " + " ".join(f"{x:.4f}" for x in points.ravel())


@pytest.mark.parametrize(
    "lines",
    [
        "0 0 0 1 0 1 1 0 1\n" * 60,
        noise(2000),
        spikes(60_000),
    ],
    ids=["large", "crossing", "spikes"],
)
def test_shapes_that_would_take_minutes(tmp_path: Path, lines: str) -> None:
    save(tmp_path / "images/a.png", Image.new("1", (9000, 9000)))
    describe(tmp_path, 'encoding = "polygons"', 'labels = "shapes/{key}.txt"')
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/a.txt").write_text(lines)
    with pytest.raises(InputError, match="minutes"):
        Dataset.open(tmp_path).split("train").label(0)


def test_small_shapes_that_would_take_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polygons, "_MOST_WORK", polygons._MOST_WORK // 1000)
    write_yolo(tmp_path, (9, 9), "0 0 0 0.1 0 0.1 0.1\n" * 100)  # in place of 100,000
    assert "so many" in fault_of(tmp_path)


def test_labelme_is_read_whatever_else_the_file_holds(tmp_path: Path) -> None:
    """Other programs write fields of theirs, which decide nothing."""
    square = {"label": "road", "points": [[1, 1], [4, 1], [4, 4], [1, 4]], "mask": "***"}
    folder = write_labelme(tmp_path, (8, 8), [square])
    path = folder / "shapes/a.json"
    plain = read(folder)
    theirs = {"objects": [{"a": 1}], "size": {"width": 3, "height": 3}, "imageWidth": ""}
    path.write_text(json.dumps(json.loads(path.read_text()) | theirs))
    assert np.array_equal(read(folder), plain) and (plain == 1).sum() == 16


def test_base64_may_be_broken_into_lines(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("1", (3, 2), 1).save(png, "PNG")
    lines = base64.encodebytes(png.getvalue()).decode()
    shape = {"label": "road", "points": [[1, 2], [3, 3]], "shape_type": "mask", "mask": lines}
    label = read(write_labelme(tmp_path, (8, 8), [shape]))
    assert (label[2:4, 1:4] == 1).all() and (label == 1).sum() == 6
    (tmp_path / "other").mkdir()
    missing = write_labelme(tmp_path / "other", (8, 8), [shape | {"mask": None}])
    assert fault_of(missing).endswith("a mask that is no base64; export the polygons again")
