"""COCO JSONs as various tools write them, through doctor and data set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doctor_folders import photo, save
from strangers_labels import (
    CAR,
    IGNORED,
    ROAD,
    SIZE,
    Table,
    check,
    coco_table,
    codes,
    described,
    truth,
    write_coco,
)

from atrous.data.dataset import Dataset
from atrous.data.file_names import match_files
from atrous.doctor import examine
from atrous.errors import InputError

TRUTH = {str(n): truth(n) for n in range(4)}


@pytest.mark.parametrize(
    "name",
    [
        "{}.jpg",
        "./{}.jpg",
        "images/{}.jpg",
        "images\\{}.jpg",
        ".\\images\\{}.jpg",
        "C:\\Users\\me\\set\\images\\{}.jpg",
        "C:/set/{}.jpg",
        "\\\\server\\share\\{}.jpg",
        "/data/upload/1/{}.jpg",
        "data/upload/1/a1b2c3d4-{}.jpg",
        "images/0f1e2d3c-{}.jpg",
        "images\\0f1e2d3c-{}.jpg",
        "/data/local-files/?d=some%20folder/{}.jpg",
        "https://host.example/x/{}.jpg?token=a/b.jpg&w=3",
        "https://host.example/x/{}.jpg",
        "file:///home/me/{}.jpg",
        "s3://bucket/{}.jpg",
        "gs://bucket/images/{}.jpg#part",
        "other/folder/{}.jpg",
    ],
)
def test_file_names_from_other_machines(tmp_path: Path, name: str) -> None:
    write_coco(tmp_path, coco_table(name=name))
    diagnosis = described(tmp_path)
    assert diagnosis.classes == (CAR, ROAD, "background") and codes(diagnosis) == set()
    check(tmp_path, TRUTH)


@pytest.mark.parametrize("name", ["my%20photo%20{}.jpg", "https://h.example/a/my%20photo%20{}.jpg"])
def test_percent_codes_are_read_where_no_file_has_them(tmp_path: Path, name: str) -> None:
    write_coco(tmp_path, coco_table(name=name), "images/my photo {}.jpg")
    described(tmp_path)
    check(tmp_path, {f"my photo {n}": label for n, label in TRUTH.items()})


@pytest.mark.parametrize(
    "name", ["100%25 {}.jpg", "a1b2c3d4-{}.jpg", "what?d=x&{}.jpg", "a#b {}.jpg"]
)
def test_a_name_as_it_is_comes_first(tmp_path: Path, name: str) -> None:
    write_coco(tmp_path, coco_table(name=name), f"images/{name}")
    described(tmp_path)
    check(tmp_path, {name.format(n).removesuffix(".jpg"): label for n, label in TRUTH.items()})


def test_names_that_two_files_have_are_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_table())
    for number in range(4):
        save(tmp_path / f"small/{number}.jpg", photo(number, SIZE))
    with pytest.raises(InputError, match="could be those of images/ or of small/"):
        examine(tmp_path)


def test_two_names_of_one_file_are_neither() -> None:
    names = ["/up/1/x.jpg", "/up/2/x.jpg", "/up/1/y.jpg"]
    assert match_files(names, ["images/x.jpg", "images/y.jpg"]) == {
        "/up/1/y.jpg": [("images/", "y.jpg")]
    }
    assert match_files(["val/1.jpg"], ["train/1.jpg"]) == {}
    assert match_files(["val/1.jpg", "train/2.jpg"], ["train/1.jpg", "train/2.jpg"]) == {
        "train/2.jpg": [("", "train/2.jpg")]
    }
    assert match_files(["x.jpg"], ["0a1b2c3d-x.jpg"]) == {}


@pytest.mark.parametrize("place", ["{split}.json", "{split}/_annotations.coco.json"])
def test_each_split_has_its_own_images_of_the_same_names(tmp_path: Path, place: str) -> None:
    """Names count from 0 in every split: what lies in train/ belongs to train's JSON."""
    for split, shift in (("train", 0), ("valid", 3)):
        table = coco_table()
        for annotation in table["annotations"]:
            outline = annotation["segmentation"][0]
            annotation["segmentation"] = [[v + shift * (i % 2) for i, v in enumerate(outline)]]
        for number in range(4):
            save(tmp_path / f"{split}/{number}.jpg", photo(number + 10 * shift, SIZE))
        path = tmp_path / place.format(split=split)
        path.write_text(json.dumps(table))
    assert codes(described(tmp_path)) == set()
    dataset = Dataset.open(tmp_path)
    for split, shift in (("train", 0), ("val", 3)):
        assert dataset.splits[split].images.startswith(f"{split}"[:3])
        for key, sample in zip(dataset.split(split).keys, dataset.split(split), strict=True):
            expected = np.roll(truth(int(key)), shift, 0)
            assert np.array_equal(sample.label == 0, expected == CAR)


def test_images_of_several_suffixes(tmp_path: Path) -> None:
    table = coco_table()
    table["images"][2]["file_name"] = "2.png"
    write_coco(tmp_path, table)
    (tmp_path / "images/2.jpg").unlink()
    save(tmp_path / "images/2.png", photo(2, SIZE))
    assert codes(described(tmp_path)) == set()
    check(tmp_path, TRUTH)


def test_images_that_are_not_here_are_counted(tmp_path: Path) -> None:
    table = coco_table()
    table["images"].append({"id": 88, "file_name": "gone.jpg", "height": 40, "width": 56})
    write_coco(tmp_path, table)
    diagnosis = described(tmp_path)
    [said] = [f for f in diagnosis.findings if f.code == "missing-image"]
    assert said.message == "1 image of the JSON not found: gone.jpg"
    check(tmp_path, TRUTH)


def test_a_json_without_its_images_is_one_line(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_table(name="scan_{}.jpg"))
    with pytest.raises(InputError, match=r"COCO JSON of 4 images, but none .*scan_0.jpg, scan_1"):
        examine(tmp_path)


def every(change: Callable[[Table], Any], *fields: str) -> Callable[[Table], None]:
    def apply(table: Table) -> None:
        for field in fields:
            for entry in table[field]:
                change(entry)

    return apply


def cast(kind: Callable[[Any], Any], **fields: str) -> Callable[[Table], None]:
    """Write fields in another way: `cast(str, images="id")`."""

    def apply(table: Table) -> None:
        for where, field in fields.items():
            for entry in table[where]:
                entry[field] = kind(entry[field])

    return apply


def run_lengths(entry: Table) -> None:
    from pycocotools import mask

    [rle] = mask.frPyObjects(entry["segmentation"], *SIZE)
    entry["segmentation"] = {"size": list(SIZE), "counts": str(rle["counts"])}


def pairs(entry: Table) -> list[list[int]]:
    [outline] = entry["segmentation"]
    return [outline[i : i + 2] for i in range(0, len(outline), 2)]


@pytest.mark.parametrize(
    "change",
    [
        cast(str, categories="id", annotations="category_id"),
        cast(str, annotations="category_id"),
        cast(float, categories="id"),
        cast(float, categories="id", annotations="category_id"),
        cast(str, images="id", annotations="image_id"),
        cast(str, images="id"),
        cast(float, annotations="image_id"),
        cast("id_{}".format, images="id", annotations="image_id"),
        cast("{:03}".format, images="id", annotations="image_id"),
        cast(float, images="height"),
        cast(str, images="width"),
        every(lambda a: a.update(area=float("nan")), "annotations"),
        every(run_lengths, "annotations"),
        every(lambda a: a.update(segmentation=[pairs(a)]), "annotations"),
        every(lambda a: a.update(segmentation=pairs(a)), "annotations"),
        every(lambda a: a.update(segmentation=a["segmentation"][0]), "annotations"),
        every(
            lambda a: a.update(segmentation=[[float(v) for v in a["segmentation"][0]]]),
            "annotations",
        ),
        every(lambda a: a.update(name=f" {a['name']} "), "categories"),
        lambda table: table["categories"].append({"id": 0, "name": "void"}),
        lambda table: table["categories"].append({"id": 3, "name": "Car"}),
    ],
)
def test_ids_and_outlines_written_otherwise(
    tmp_path: Path, change: Callable[[Table], None]
) -> None:
    table = coco_table()
    change(table)
    write_coco(tmp_path, table)
    diagnosis = described(tmp_path)
    assert diagnosis.classes == (CAR, ROAD, "background") and codes(diagnosis) == set()
    check(tmp_path, TRUTH)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    write_coco(tmp_path, coco_table())
    (tmp_path / "all.json").write_text(json.dumps(coco_table()), encoding)
    described(tmp_path)
    check(tmp_path, TRUTH)


def test_two_categories_of_one_name_are_one_class_and_said(tmp_path: Path) -> None:
    table = coco_table()
    table["categories"].append({"id": 7, "name": "car "})
    table["annotations"][1]["category_id"] = 7
    write_coco(tmp_path, table)
    [said] = [f for f in described(tmp_path).findings if f.code == "same-name"]
    assert said.message.endswith("read as one: car (1) = car (7)")
    check(tmp_path, TRUTH)


def test_a_void_category_is_ignored(tmp_path: Path) -> None:
    table = coco_table()
    table["categories"][1]["name"] = "Unlabeled"
    write_coco(tmp_path, table)
    assert "ignored-name" in codes(described(tmp_path), "note")
    expected = {key: np.where(label == ROAD, IGNORED, label) for key, label in TRUTH.items()}
    check(tmp_path, expected)


def test_categories_without_objects_are_said(tmp_path: Path) -> None:
    """Roboflow's category 0 stands for the project."""
    table = coco_table()
    table["categories"].insert(0, {"id": 0, "name": "vehicles", "supercategory": "none"})
    write_coco(tmp_path, table, "train/{}.jpg", "train/_annotations.coco.json")
    diagnosis = described(tmp_path)
    assert any("vehicles" in f.message for f in diagnosis.findings if f.code == "missing-class")
    check(tmp_path, TRUTH)


@pytest.mark.parametrize("mask", [[], None, [[3, 3, 9, 9]], "missing"])
def test_an_object_without_a_mask_is_named(tmp_path: Path, mask: Any) -> None:
    table = coco_table()
    table["annotations"][0]["segmentation"] = mask
    if mask == "missing":
        del table["annotations"][0]["segmentation"]
    write_coco(tmp_path, table)
    diagnosis = described(tmp_path)
    [fault] = [f for f in diagnosis.findings if f.severity == "problem"]
    assert fault.code == "unreadable-mask" and "'0.jpg': an object without a mask" in str(fault)
    check(tmp_path, {key: label for key, label in TRUTH.items() if key != "0"})


def test_boxes_alone_are_refused(tmp_path: Path) -> None:
    table = coco_table()
    every(lambda a: a.update(segmentation=[]), "annotations")(table)
    write_coco(tmp_path, table)
    with pytest.raises(InputError, match=r"none of 4 labels can be read: .*a box alone"):
        examine(tmp_path)


@pytest.mark.parametrize("outline", [[2, 30, 2.2, 30, 2.2, 30.2], [57, 3, 60, 3, 60, 9]])
def test_objects_that_cover_nothing_are_named(tmp_path: Path, outline: list[float]) -> None:
    table = coco_table()
    table["annotations"].append({"image_id": 2, "category_id": 1, "segmentation": [outline]})
    write_coco(tmp_path, table)
    diagnosis = described(tmp_path)
    [fault] = [f for f in diagnosis.findings if f.severity == "problem"]
    assert (fault.code, fault.examples) == ("empty-object", ("1.jpg: car",))
    check(tmp_path, TRUTH)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cast("c{}".format, categories="id"), "category 'car' has the id 'c1'; number"),
        (cast("0{}".format, categories="id"), "category 'car' has the id '01'; number"),
        (cast(lambda i: 10**6 + i, categories="id"), "has the id 1000001; number"),
        (lambda t: t.update(categories=[], annotations=[]), "no categories"),
        (
            lambda t: t["images"].append({**t["images"][0], "id": 9}),
            "two images have the file_name '0.jpg'",
        ),
        (lambda t: t["categories"].append({"id": 1, "name": "bus"}), "category 1 is 'bus', but"),
        (lambda t: t["annotations"][0].update(image_id=99), "image 99 is not among"),
        (lambda t: t["annotations"][0].update(category_id=99), "category 99 is not among"),
        (
            lambda t: t["annotations"][0].update(category_id=1.5),
            "category_id: expected int, got float",
        ),
    ],
)
def test_what_cannot_be_read_for_certain_is_one_line(
    tmp_path: Path, change: Callable[[Table], Any], message: str
) -> None:
    table = coco_table()
    change(table)
    write_coco(tmp_path, table)
    with pytest.raises(InputError, match=message) as error:
        examine(tmp_path)
    assert "\n" not in str(error.value)


def test_an_id_that_means_two_classes_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_table(), "train/{}.jpg", "train.json")
    table = coco_table()
    table["categories"][0]["name"], table["categories"][1]["name"] = ROAD, CAR
    write_coco(tmp_path, table, "val/{}.jpg", "val.json")
    with pytest.raises(InputError, match="category 1 is 'road', but elsewhere 'car'"):
        examine(tmp_path)


def test_sizes_that_are_swapped_are_named(tmp_path: Path) -> None:
    table = coco_table()
    table["images"][0].update(height=56, width=40)
    write_coco(tmp_path, table)
    diagnosis = described(tmp_path)
    assert "size-mismatch" in codes(diagnosis)
    check(tmp_path, {key: label for key, label in TRUTH.items() if key != "0"})


def test_a_second_json_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    table = coco_table()
    write_coco(tmp_path, table)
    for number in (7, 8):
        save(tmp_path / f"images/{number}.jpg", photo(number, SIZE))
    (tmp_path / "old.json").write_text(json.dumps(coco_table(3)))
    notes = {f.code: f.message for f in described(tmp_path).findings if f.severity == "note"}
    assert notes["unused-annotations"].startswith("1 COCO JSON not read, because each split")
    assert notes["unused-image"] == "2 images that no JSON lists: images/7.jpg, images/8.jpg"
    check(tmp_path, TRUTH)
    table["images"] = [{"id": 1, "file_name": "7.jpg", "height": 40, "width": 56}]
    (tmp_path / "old.json").write_text(json.dumps({**table, "annotations": []}))
    (tmp_path / "dataset.toml").unlink()
    [fault] = [f for f in examine(tmp_path).findings if f.severity == "problem"]
    assert fault.message.endswith("(all.json); 1 image of theirs left out")


def test_a_finding_names_the_image_and_not_the_json_alone(tmp_path: Path) -> None:
    table = coco_table()
    table["annotations"] = [a for a in table["annotations"] if a["image_id"] != 2]
    write_coco(tmp_path, table)
    [empty] = [f for f in described(tmp_path).findings if f.code == "empty-mask"]
    assert empty.examples == ("all.json, images/1.jpg",)


def test_images_of_one_json_in_several_folders(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_table(), "a/{}.jpg")
    (tmp_path / "b").mkdir()
    for number in (2, 3):
        (tmp_path / f"a/{number}.jpg").rename(tmp_path / f"b/{number}.jpg")
    assert codes(described(tmp_path)) == set()
    check(tmp_path, TRUTH)


@pytest.mark.parametrize("count", [5, 40])
def test_a_coco_json_for_each_image_is_not_passed_over(tmp_path: Path, count: int) -> None:
    for number in range(count):
        save(tmp_path / f"{number}.jpg", photo(number, SIZE))
        table = coco_table(1, name=f"{number}.jpg")
        (tmp_path / f"{number}.json").write_text(json.dumps(table))
    if count > 32:
        with pytest.raises(InputError, match="one of many COCO JSONs"):
            examine(tmp_path)
    else:
        [fault] = [f for f in examine(tmp_path).findings if f.severity == "problem"]
        assert fault.message.startswith("4 COCO JSONs not read")


def write_panoptic(folder: Path, image: str, png: str) -> None:
    names = {1: CAR, 2: ROAD}
    for number in range(4):
        save(folder / f"images/{number}.jpg", photo(number, SIZE))
        label, colors = truth(number), np.zeros((*SIZE, 3), np.uint8)
        for category, name in names.items():
            colors[label == name, 0] = category + 4
        save(folder / f"panoptic/{number}.png", colors)
    table = {
        "images": [{"id": n, "file_name": image.format(n)} for n in range(4)],
        "annotations": [
            {
                "image_id": n,
                "file_name": png.format(n),
                "segments_info": [{"id": i + 4, "category_id": i} for i in names],
            }
            for n in range(4)
        ],
        "categories": [{"id": i, "name": name, "isthing": 1} for i, name in names.items()],
    }
    (folder / "panoptic.json").write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("image", "png"),
    [
        ("{}.jpg", "{}.png"),
        ("images\\{}.jpg", "panoptic\\{}.png"),
        ("images/{}.jpg", "panoptic/{}.png"),
        ("/data/upload/{}.jpg", "{}.png"),
    ],
)
def test_panoptic_file_names(tmp_path: Path, image: str, png: str) -> None:
    write_panoptic(tmp_path, image, png)
    assert codes(described(tmp_path)) == set()
    expected = {key: np.where(v == "background", IGNORED, v) for key, v in TRUTH.items()}
    check(tmp_path, expected)


@pytest.mark.parametrize(("ninth", "said"), [("boat", True), ("ship", False)])
def test_cocos_own_categories_are_recognised(tmp_path: Path, ninth: str, said: bool) -> None:
    dataset = Dataset.open("coco-panoptic", tmp_path)
    gaps = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
    ids = [i for i in range(1, 91) if i not in gaps]
    things = [dataset.taxonomy.classes[i] for i in sorted(dataset.taxonomy.things)]
    things[8] = ninth
    table = coco_table()
    table["categories"] = [{"id": i, "name": name} for i, name in zip(ids, things, strict=True)]
    write_coco(tmp_path, table)
    notes = [f.message for f in examine(tmp_path).findings if f.code == "known-set"]
    assert notes == ["the 80 categories of COCO, by its ids and names"] * said
