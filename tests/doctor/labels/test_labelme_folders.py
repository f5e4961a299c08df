"""LabelMe's and Supervisely's files as people have them, through doctor and data set."""

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doctor_folders import photo, save
from PIL import Image
from strangers_labels import (
    CAR,
    IGNORED,
    ROAD,
    SIZE,
    Table,
    boxes,
    check,
    codes,
    described,
    truth,
    write_labelme,
)

from atrous.data.encodings import polygons
from atrous.doctor import examine
from atrous.errors import InputError


def relabel(change: Callable[[str, int], str]) -> Callable[[Table, int], None]:
    def apply(table: Table, number: int) -> None:
        for shape in table["shapes"]:
            shape["label"] = change(shape["label"], number)

    return apply


@pytest.mark.parametrize(
    "change",
    [
        lambda name, number: name,
        lambda name, number: f"{name} " if number % 2 else name,
        lambda name, number: f" {name}" if number else name,
        lambda name, number: f"{name}\t" if number else f"{name}\n",
        lambda name, number: f"{name}\u200b" if number else name,
        lambda name, number: f"{name}\xa0" if number else f"\ufeff{name}",
        lambda name, number: f"  {name}  ",
    ],
    ids=["plain", "trailing", "leading", "tab", "zero_width", "no_break", "both"],
)
def test_stray_spaces_are_no_part_of_a_name(
    tmp_path: Path, change: Callable[[str, int], str]
) -> None:
    write_labelme(tmp_path, relabel(change))
    diagnosis = described(tmp_path)
    assert diagnosis.classes == (CAR, ROAD, "background")
    assert codes(diagnosis) == set() and "uncovered" in codes(diagnosis, "note")
    check(tmp_path, {f"p{n}": truth(n, 1) for n in range(4)})


def test_spaces_within_a_name_are_single_ones(tmp_path: Path) -> None:
    change = {CAR: ("parked  car", "parked car"), ROAD: ("caf\u00e9", "cafe\u0301")}
    write_labelme(tmp_path, relabel(lambda name, number: change[name][number % 2]))
    described(tmp_path)
    names = ("parked car", "caf\u00e9")
    check(tmp_path, {f"p{n}": truth(n, 1, names) for n in range(4)})


@pytest.mark.parametrize("spelt", [str.capitalize, str.upper, lambda name: name[:-1] + "R"])
def test_names_that_differ_in_letter_case_are_one_class_and_said(
    tmp_path: Path, spelt: Callable[[str], str]
) -> None:
    write_labelme(
        tmp_path, relabel(lambda name, n: spelt(name) if n == 1 and name == CAR else name)
    )
    diagnosis = described(tmp_path)
    [said] = [f for f in diagnosis.findings if f.code == "same-name"]
    assert said.message.endswith(f"{CAR} = {spelt(CAR)}")
    check(tmp_path, {f"p{n}": truth(n, 1) for n in range(4)})
    assert codes(examine(tmp_path)) == set()


@pytest.mark.parametrize(
    "name",
    ["__ignore__", "void", "Void ", "Don't care", "dont_care", "unlabeled", "IGNORE", "no label"],
)
def test_shapes_that_are_to_be_ignored_are(tmp_path: Path, name: str) -> None:
    def add(table: Table, number: int) -> None:
        shape = {"label": name, "points": [[0, 0], [4, 1]], "shape_type": "rectangle"}
        table["shapes"].append(shape)

    write_labelme(tmp_path, add)
    diagnosis = described(tmp_path)
    assert diagnosis.classes == (CAR, ROAD, "background")
    assert "ignored-name" in codes(diagnosis, "note")
    expected = {f"p{n}": truth(n, 1) for n in range(4)}
    for label in expected.values():
        label[0:2, 0:5] = IGNORED
    check(tmp_path, expected)


@pytest.mark.parametrize("name", ["_background_", "background", "Background"])
def test_the_background_may_be_drawn(tmp_path: Path, name: str) -> None:
    def add(table: Table, number: int) -> None:
        table["shapes"].insert(
            0, {"label": name, "points": [[0, 0], [55, 9]], "shape_type": "rectangle"}
        )

    write_labelme(tmp_path, add)
    assert described(tmp_path).classes.count(name) == 1
    expected = {f"p{n}": truth(n, 1) for n in range(4)}
    for label in expected.values():
        label[label == "background"] = name
    check(tmp_path, expected)


def test_names_that_are_numbers_stay_apart_from_ids(tmp_path: Path) -> None:
    change = {CAR: "1", ROAD: "0"}
    write_labelme(tmp_path, relabel(lambda name, number: change[name]))
    described(tmp_path)
    check(tmp_path, {f"p{n}": truth(n, 1, ("1", "0")) for n in range(4)})


def test_labels_txt_gives_the_order_of_the_classes(tmp_path: Path) -> None:
    write_labelme(tmp_path)
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nroad\ncar\nbus\n")
    diagnosis = described(tmp_path)
    assert diagnosis.classes == ("_background_", "road", "car", "bus")
    assert diagnosis.names_file == "labels.txt"
    (tmp_path / "labels.txt").write_text("road\nbus\n")
    (tmp_path / "dataset.toml").unlink()
    [lacks] = [f for f in examine(tmp_path).findings if f.code == "names-do-not-fit"]
    assert lacks.message == "labels.txt lacks 1 class: car"


def encoded(encoding: str) -> Callable[[Table, int], bytes]:
    def write(table: Table, number: int) -> bytes:
        for shape in table["shapes"]:
            shape["label"] = {CAR: "\u00fcber", ROAD: "stra\u00dfe"}[shape["label"]]
        return json.dumps(table, ensure_ascii=False).encode(encoding)

    return write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_of_unicode_is_read(tmp_path: Path, encoding: str) -> None:
    write_labelme(tmp_path, encoded(encoding))
    described(tmp_path)
    names = ("\u00fcber", "stra\u00dfe")
    check(tmp_path, {f"p{n}": truth(n, 1, names) for n in range(4)})


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "iso8859-15", "mac-roman"])
def test_json_of_another_encoding_says_so(tmp_path: Path, encoding: str) -> None:
    write_labelme(tmp_path, encoded(encoding))
    with pytest.raises(
        InputError, match=r"p0.json: not UTF-8 text \(byte 0x..*\); save it as"
    ) as e:
        examine(tmp_path)
    assert "\n" not in str(e.value)


def test_one_file_of_another_encoding_is_a_finding(tmp_path: Path) -> None:
    write_labelme(tmp_path, lambda table, n: encoded("latin-1")(table, n) if n == 2 else None)
    diagnosis = examine(tmp_path)
    assert codes(diagnosis) == {"unreadable-mask"} and diagnosis.left_out == 1
    assert diagnosis.classes == (CAR, ROAD, "background")


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ({"points": [[5, 5], [20, 30]], "shape_type": "line"}, "'line'"),
        ({"points": [[5, 5]], "shape_type": "point"}, "'point'"),
        ({"points": [[5, 5], [20, 30], [40, 2]], "shape_type": "linestrip"}, "'linestrip'"),
        ({"points": [[5, 5], [6, 6]], "shape_type": "polygon"}, "a polygon of 2 points"),
        ({"points": [[60, 5], [90, 5], [90, 9]], "shape_type": "polygon"}, "outside of the image"),
    ],
)
def test_shapes_that_draw_nothing_are_named(tmp_path: Path, shape: Table, kind: str) -> None:
    write_labelme(
        tmp_path,
        lambda table, n: table["shapes"].append({"label": CAR, **shape}) if not n else None,
    )
    diagnosis = examine(tmp_path)
    [fault] = [f for f in diagnosis.findings if f.severity == "problem"]
    assert fault.code == "unreadable-mask" and kind in fault.examples[0]


def test_old_versions_and_boxes_of_four_corners(tmp_path: Path) -> None:
    def old(table: Table, number: int) -> None:
        del table["imageHeight"], table["imageWidth"]
        table["lineColor"] = [0, 255, 0, 128]
        for shape in table["shapes"]:
            del shape["shape_type"]
        if number:  # as X-AnyLabeling writes boxes
            table["shapes"][0]["shape_type"] = "rectangle"
            table["shapes"][1]["shape_type"] = "rotation"

    write_labelme(tmp_path, old)
    assert codes(described(tmp_path)) == set()
    check(tmp_path, {f"p{n}": truth(n, 1) for n in range(4)})


def png(mask: np.ndarray, mode: str = "1") -> bytes:
    """A PNG of a mask: "1", "L", "RGBA", or "P" with a transparent 0, as Supervisely writes."""
    file = io.BytesIO()
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    if mode == "P":
        picture = Image.fromarray(mask.astype(np.uint8))
        picture.putpalette([0, 0, 0, 255, 255, 255])
        picture.save(file, "PNG", transparency=0)
    elif mode == "RGBA":
        alpha = picture
        picture = Image.new("RGBA", picture.size, (255, 255, 255, 0))
        picture.putalpha(alpha)
        picture.save(file, "PNG")
    else:
        picture.convert(mode).save(file, "PNG")
    return file.getvalue()


def disc() -> np.ndarray:
    y, x = np.mgrid[:9, :11]
    return np.hypot(x - 5, y - 4) < 4.2


def test_brushed_masks_of_labelme(tmp_path: Path) -> None:
    def brush(table: Table, number: int) -> None:
        table["shapes"].append(
            {
                "label": CAR,
                "points": [[4, 25], [14, 33]],
                "shape_type": "mask",
                "mask": base64.b64encode(png(disc())).decode(),
            }
        )

    write_labelme(tmp_path, brush)
    assert codes(described(tmp_path)) == set()
    expected = {f"p{n}": truth(n, 1) for n in range(4)}
    for label in expected.values():
        label[25:34, 4:15][disc()] = CAR
    check(tmp_path, expected)


def bitmap(mask: np.ndarray, x: int, y: int, name: str, mode: str = "P") -> Table:
    data = base64.b64encode(zlib.compress(png(mask, mode))).decode()
    return {
        "classTitle": name,
        "geometryType": "bitmap",
        "bitmap": {"data": data, "origin": [x, y]},
        "points": {"exterior": [], "interior": []},
    }


def outline(points: Any, name: str, interior: Any = (), kind: str = "polygon") -> Table:
    points = {"exterior": points, "interior": list(interior)}
    return {"classTitle": name, "geometryType": kind, "points": points}


def write_supervisely(
    folder: Path, objects: Callable[[int], list[Table]], height: int = 40, named: bool = True
) -> None:
    (folder / "ds0/ann").mkdir(parents=True)
    for number in range(4):
        save(folder / f"ds0/img/p{number}.jpg", photo(number, SIZE))
        table = {"size": {"height": height, "width": 56}, "objects": objects(number)}
        (folder / f"ds0/ann/p{number}.jpg.json").write_text(json.dumps(table))
    if named:
        classes = [{"title": ROAD, "color": "#0000FF"}, {"title": CAR, "color": "#FF0000"}]
        (folder / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))


@pytest.mark.parametrize("mode", ["P", "1", "L", "RGBA"])
def test_bitmaps_of_supervisely(tmp_path: Path, mode: str) -> None:
    def objects(number: int) -> list[Table]:
        return [
            bitmap(np.ones((h, w), bool), x, y, name, mode)
            for name, (x, y, w, h) in boxes(number).items()
        ] + [bitmap(disc(), 4, 25, CAR, mode)]

    write_supervisely(tmp_path, objects)
    diagnosis = described(tmp_path)
    assert diagnosis.classes == (ROAD, CAR, "background") and codes(diagnosis) == set()
    assert [entry.color for entry in diagnosis.scan.labels.entries()][:2] == [
        (0, 0, 255),
        (255, 0, 0),
    ]
    expected = {f"p{n}": truth(n) for n in range(4)}
    for label in expected.values():
        label[25:34, 4:15][disc()] = CAR
    check(tmp_path, expected)


def test_outlines_of_supervisely_have_holes(tmp_path: Path) -> None:
    def objects(number: int) -> list[Table]:
        ring = outline(
            [[10, 10], [30, 10], [30, 30], [10, 30]],
            CAR,
            [[[15, 15], [20, 15], [20, 20], [15, 20]]],
        )
        return [outline([[0, 0], [18, 18]], ROAD, kind="rectangle"), ring]

    write_supervisely(tmp_path, objects, named=False)
    assert codes(described(tmp_path)) == set()
    label = np.full(SIZE, "background", object)
    label[0:19, 0:19] = ROAD
    below = label.copy()
    label[10:31, 10:31] = CAR
    label[15:21, 15:21] = below[15:21, 15:21]
    check(tmp_path, {f"p{n}": label for n in range(4)})


SQUARE = np.ones((3, 3), bool)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (bitmap(SQUARE, 54, 3, CAR), "does not lie in its image"),
        (bitmap(SQUARE, -1, 3, CAR), "does not lie in its image"),
        (bitmap(np.zeros((3, 3), bool), 3, 3, CAR), "covers nothing"),
        (bitmap(np.ones((41, 3), bool), 3, 0, CAR), "no PNG of its shape"),
        (outline([[1, 2]], CAR, kind="point"), "'point', where only bitmap"),
        (outline([[1, 2], [3, 4]], CAR, kind="line"), "'line', where only bitmap"),
        (outline([[1, 2], [3, 4]], CAR), "a polygon of 2 points"),
        (outline([[1, 2], [3, 4], [5, 5]], CAR, [[[1, 2]]]), "a polygon of"),
        (outline(3, CAR), "points: exterior: expected array, got int"),
        ({"geometryType": "bitmap", "bitmap": {}}, r"objects\[1\].*: \w+ is missing"),
        ({**bitmap(SQUARE, 3, 3, CAR), "bitmap": 7}, "bitmap: expected object, got int"),
        ({**bitmap(SQUARE, 3, 3, CAR), "bitmap": {"data": "x", "origin": [1, 1]}}, "base64"),
        ({**bitmap(SQUARE, 3, 3, CAR), "bitmap": {"data": "eHl6eHl6", "origin": [1, 1]}}, "zlib"),
    ],
)
def test_each_fault_of_a_supervisely_file_is_one_line(
    tmp_path: Path, entry: Table, message: str
) -> None:
    write_supervisely(tmp_path, lambda number: [bitmap(SQUARE, 3, 3, CAR), entry])
    with pytest.raises(InputError, match=message) as error:
        examine(tmp_path)
    assert "\n" not in str(error.value)


def test_bitmaps_that_unfold_to_more_than_their_image_are_refused(tmp_path: Path) -> None:
    bomb = base64.b64encode(zlib.compress(png(SQUARE) + bytes(1 << 24))).decode()
    entry = {**bitmap(SQUARE, 3, 3, CAR), "bitmap": {"data": bomb, "origin": [3, 3]}}
    write_supervisely(tmp_path, lambda number: [entry])
    with pytest.raises(InputError, match="more data than their image could need"):
        examine(tmp_path)
    wide = png(np.ones((2, 20000), bool))
    with pytest.raises(ValueError, match="larger than 56x40"):
        polygons._bitmap(wide, 56, 40)


def test_supervisely_files_of_another_size_are_refused(tmp_path: Path) -> None:
    write_supervisely(tmp_path, lambda number: [bitmap(SQUARE, 3, 3, CAR)], height=80)
    with pytest.raises(InputError, match=r"drawn on 56x80, but its image is 56x40"):
        examine(tmp_path)
