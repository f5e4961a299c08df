"""Files that name classes, as tools and people write them, and whether they fit the masks."""

import json
from pathlib import Path

import numpy as np
import pytest
from doctor_folders import PALETTE, mask, photo, save, write_images, write_index, write_rgb
from strangers_labels import codes, described, labels_of

from atrous.doctor import examine
from atrous.doctor.labels.class_names import is_void
from atrous.errors import InputError

NAMES = ["sky", "wide road", "tree", "car", "man"]
COLORED = [*zip(NAMES, PALETTE.tolist(), strict=True)]
BY_ID = {str(i): name for i, name in enumerate(NAMES)}
WITH_IDS = [{"id": i, "name": name, "supercategory": "x"} for i, name in enumerate(NAMES)]
YOLO = "path: ../datasets/x\ntrain: images/train\nval: images/val\nnc: 5\nnames:"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("_classes.csv", "Pixel Value, Class\n" + "".join(f"{i}, {n}\n" for i, n in BY_ID.items())),
        ("classes.csv", "name;id\n" + "".join(f"{n};{i}\n" for i, n in BY_ID.items())),
        ("labels.csv", "class_id,class_name\n" + "".join(f"{i},{n}\n" for i, n in BY_ID.items())),
        ("data.yaml", f"{YOLO} {json.dumps(NAMES)}"),
        ("coco128-seg.yaml", YOLO + "".join(f"\n  {i}: {n}" for i, n in BY_ID.items())),
        ("custom.YML", YOLO + "".join(f"\n  - {n}" for n in NAMES)),
        ("dataset.yaml", f"names: {json.dumps(NAMES)}"),
        ("id2label.json", json.dumps(BY_ID)),
        ("label2id.json", json.dumps({name: i for i, name in enumerate(NAMES)})),
        ("config.json", json.dumps({"num_labels": 5, "id2label": BY_ID, "lr": 1})),
        (
            "dataset.json",
            json.dumps({"numTraining": 5, "labels": {n: i for i, n in enumerate(NAMES)}}),
        ),
        ("dataset.json", json.dumps({"modality": {"0": "rgb"}, "labels": BY_ID})),
        ("classes.json", json.dumps(NAMES)),
        ("categories.json", json.dumps(WITH_IDS)),
        ("labels.json", json.dumps({"labels": WITH_IDS[::-1]})),
        ("codes.txt", "\n".join(NAMES)),
        ("classes.txt", "\r\n".join(NAMES) + "\r\n\r\n"),
        ("labels.txt", "".join(f"{i}: {n}\n" for i, n in BY_ID.items())),
        ("labels.txt", "".join(f"{n}: {i}\n" for i, n in BY_ID.items())),
        ("obj.names", "\n".join(NAMES)),
        (
            "objectInfo150.txt",
            "Idx\tRatio\tTrain\tVal\tName\n"
            + "".join(f"{i}\t0.1\t9\t9\t{n}\n" for i, n in BY_ID.items()),
        ),
    ],
)
def test_names_of_ids(tmp_path: Path, file: str, content: str) -> None:
    write_index(tmp_path, 4)
    (tmp_path / file).write_text(content)
    diagnosis = described(tmp_path)
    assert {*diagnosis.classes} == {*NAMES}
    assert diagnosis.names_file == file and codes(diagnosis) == set()
    for key, label in labels_of(tmp_path).items():
        assert np.array_equal(label, np.array(NAMES, object)[mask(int(key))])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes.json", [{"name": n, "color": c} for n, c in COLORED]),
        (
            "meta.json",
            {"classes": [{"title": n, "color": c} for n, c in COLORED]},
        ),
        ("labels.json", dict(COLORED)),
        ("class_dict.csv", "".join(f"{n},{r},{g},{b}\n" for n, (r, g, b) in COLORED)),
        ("map.csv", "R;G;B;Label\n" + "".join(f"{r};{g};{b};{n}\n" for n, (r, g, b) in COLORED)),
        ("categories.json", {n: "#" + bytes(c).hex() for n, c in COLORED}),
    ],
)
def test_names_of_colours(tmp_path: Path, file: str, content: object) -> None:
    write_rgb(tmp_path, 4)
    (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    assert described(tmp_path).names_file == file
    for key, label in labels_of(tmp_path).items():
        assert np.array_equal(label, np.array(NAMES, object)[mask(int(key))])


def test_greys_of_supervisely_are_ids(tmp_path: Path) -> None:
    """Its meta.json has names and colours too, but not those of the masks."""
    write_images(tmp_path, 4)
    for number in range(4):
        greys = mask(number, (0, 10, 20, 30, 40))
        save(tmp_path / f"masks_machine/{number:03}.png", greys)
    colors = {name: [10 * i] * 3 for i, name in enumerate(NAMES) if i}
    (tmp_path / "obj_class_to_machine_color.json").write_text(json.dumps(colors))
    classes = [{"title": name, "color": "#ff0000"} for name in reversed(NAMES[1:])]
    (tmp_path / "meta.json").write_text(json.dumps({"classes": classes}))
    diagnosis = described(tmp_path)
    assert diagnosis.names_file == "obj_class_to_machine_color.json"
    names = np.array(["background", *NAMES[1:]], object)
    for key, label in labels_of(tmp_path).items():
        assert np.array_equal(label, names[mask(int(key))])


def test_ids_from_1_as_ade20k_has_them(tmp_path: Path) -> None:
    write_images(tmp_path, 4)
    for number in range(4):
        save(tmp_path / f"masks/{number:03}.png", mask(number, (1, 2, 3)))
    rows = ["1\t0.1\t9\t9\twall", "2\t0.1\t9\t9\tbuilding, edifice", "3\t0.1\t9\t9\tsky"]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *rows]))
    assert described(tmp_path).classes == ("wall", "building, edifice", "sky")
    for key, label in labels_of(tmp_path).items():
        assert np.array_equal(label == "wall", mask(int(key), (1, 2, 3)) == 1)


def roboflow(folder: Path, head: str = "Pixel Value, Class") -> None:
    for split in ("train", "valid", "test"):
        for number in range(3):
            save(folder / split / f"{split}{number}.jpg", photo(number + len(split) * 9))
            save(folder / split / f"{split}{number}_mask.png", mask(number, (0, 1, 2)))
        (folder / split / "_classes.csv").write_text(f"{head}\n0, background\n1, crack\n2, rust\n")


@pytest.mark.parametrize("head", ["Pixel Value, Class", "Pixel Value,Class", " Class ID , Class"])
def test_roboflow_has_a_file_of_names_in_each_split(tmp_path: Path, head: str) -> None:
    roboflow(tmp_path, head.replace("Class ID", "class_id"))
    diagnosis = described(tmp_path)
    assert diagnosis.classes == ("background", "crack", "rust")
    for key, label in labels_of(tmp_path).items():
        assert np.array_equal(label == "rust", mask(int(key[-1]), (0, 1, 2)) == 2)


def test_splits_that_name_classes_otherwise_are_refused(tmp_path: Path) -> None:
    roboflow(tmp_path)
    path = tmp_path / "valid/_classes.csv"
    path.write_text("Pixel Value, Class\n0, background\n1, rust\n2, crack\n")
    with pytest.raises(
        InputError, match=r"test/_classes.csv and valid/_classes.csv name different"
    ):
        examine(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_names_of_other_encodings_that_are_certain(tmp_path: Path, encoding: str) -> None:
    write_index(tmp_path, 2)
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    names = ["Himmel", "Stra\u00dfe", "B\u00e4ume", "Auto", "Mann"]
    (tmp_path / "classes.txt").write_bytes((mark + "\r\n".join(names)).encode(encoding))
    assert examine(tmp_path).classes == tuple(names)


@pytest.mark.parametrize(
    ("encoding", "text"), [("latin-1", "Stra\u00dfe\nAuto\n"), ("cp936", "\u6c7d\u8f66\n\u8def\n")]
)
def test_names_of_an_unknown_encoding_are_refused(tmp_path: Path, encoding: str, text: str) -> None:
    write_index(tmp_path, 2)
    (tmp_path / "labels.txt").write_bytes(text.encode(encoding))
    with pytest.raises(InputError, match=r"labels.txt: not UTF-8 text"):
        examine(tmp_path)
    (tmp_path / "labels.txt").rename(tmp_path / "notes.csv")
    assert examine(tmp_path).names_file == ""


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("train.csv", "id,label\n" + "".join(f"{i},cat\n{i + 9},dog\n" for i in range(9))),
        ("boxes.csv", "filename,class,id,xmin\n1.png,cat,0,1\n"),
        ("config.json", '{"batch": 8, "size": 3}'),
        ("labels.json", '{"000.png": 3, "001.png": 4}'),
        ("dataset.json", '{"labels": {"whole": [1, 2], "core": [2]}}'),
        ("settings.yaml", "name: [x\n"),
        ("conda.yml", "name: env\ndependencies: [numpy]\n"),
    ],
)
def test_what_names_no_classes(tmp_path: Path, file: str, content: str) -> None:
    write_index(tmp_path, 4)
    (tmp_path / file).write_text(content)
    diagnosis = examine(tmp_path)
    assert diagnosis.classes == tuple(f"class {i}" for i in range(5))
    assert diagnosis.names_file == ""


def misfit(folder: Path, names: str) -> tuple[str, str]:
    (folder / "classes.txt").write_text(names)
    [said] = [f for f in examine(folder).findings if f.code == "names-do-not-fit"]
    return said.severity, said.message


def test_names_that_do_not_fit_the_ids_are_said(tmp_path: Path) -> None:
    write_index(tmp_path, 4)
    assert misfit(tmp_path, "background\nroad\ntree\n") == (
        "problem",
        "classes.txt names 3 classes, the masks hold 5 ids (0, 1, 2, 3 and 1 more): "
        "2 have no name and are ignored",
    )
    assert misfit(tmp_path, "road\ntree\ncar\nman\n") == (
        "note",
        "classes.txt names 4 classes, the masks hold 5 ids (0, 1, 2, 3 and 1 more): "
        "read as road = 1, tree = 2, car = 3, man = 4",
    )


def test_names_without_colours_are_not_given_to_colours(tmp_path: Path) -> None:
    write_rgb(tmp_path, 4)
    severity, message = misfit(tmp_path, "sky\nroad\ntree\ncar\nman\n")
    assert severity == "note" and message.endswith("does not say which is which")
    assert examine(tmp_path).names_file == ""


@pytest.mark.parametrize("names", ["100 cat\n101 dog\n", "cat 7 7 7\ndog 8 8 8\n"])
def test_names_of_other_masks_are_refused(tmp_path: Path, names: str) -> None:
    (write_index if names[0] == "1" else write_rgb)(tmp_path, 4)
    (tmp_path / "classes.txt").write_text(names)
    with pytest.raises(InputError, match=r"classes.txt: no (id|colour) in it occurs in the masks"):
        examine(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[(n, True) for n in ("void", "__ignore__", "Don't Care", "dont_care", "DO NOT CARE")],
        *[(n, True) for n in ("UnLabelled", "not labeled", "ignore region", "no-data", "NoLabel")],
        *[(n, False) for n in ("avoid", "background", "label", "data", "care", "other")],
    ],
)
def test_void_names(name: str, expected: bool) -> None:
    assert is_void(name) == expected
