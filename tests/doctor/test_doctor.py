import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from doctor_folders import PALETTE, mask, photo, resized, save, write_images, write_index, write_rgb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from atrous.data.dataset import Dataset
from atrous.doctor import Diagnosis, examine
from atrous.errors import InputError


def problems(diagnosis: Diagnosis) -> dict[str, int]:
    return {f.code: f.count for f in diagnosis.findings if f.severity == "problem"}


def finding(diagnosis: Diagnosis, code: str):
    return next(f for f in diagnosis.findings if f.code == code)


def read_all(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The labels of all splits; every sample is read."""
    dataset = Dataset.open(folder)
    return {
        name: {sample.key: sample.label for sample in dataset.split(name)}
        for name in dataset.splits
    }


# Healthy folders: nothing is invented, and what is written reads back exactly.


def palette(folder: Path) -> None:
    write_images(folder, 10, suffix="jpg")
    for number in range(10):
        save(folder / f"masks/{number:03}.png", mask(number), PALETTE)


def sixteen_bit(folder: Path) -> None:
    write_images(folder, 10)
    for number in range(10):
        save(folder / f"masks/{number:03}.png", mask(number).astype(np.uint16))


def binary(folder: Path) -> None:
    write_images(folder, 10)
    for number in range(10):
        save(folder / f"masks/{number:03}.png", mask(number, (0, 1)))


def voc(folder: Path) -> None:
    """Palette masks with a border of 255, in VOC's folders and lists."""
    for number in range(12):
        save(folder / f"JPEGImages/{number:03}.jpg", photo(number))
    for number in range(10):
        ids = mask(number).astype(int)
        edge = np.zeros(ids.shape, bool)
        edge[1:] |= ids[1:] != ids[:-1]
        edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
        save(
            folder / f"SegmentationClass/{number:03}.png",
            np.where(edge, 255, ids).astype(np.uint8),
            np.resize(PALETTE, (256, 3)),
        )
        save(folder / f"SegmentationObject/{number:03}.png", np.full((40, 56), number, np.uint8))
    lists = folder / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"{n:03}\n" for n in range(7)))
    (lists / "val.txt").write_text("".join(f"{n:03}\n" for n in range(7, 10)))
    (lists / "trainval.txt").write_text("".join(f"{n:03}\n" for n in range(10)))


def rare(folder: Path) -> None:
    """The last class in one mask alone, a few pixels of it."""
    write_images(folder, 20)
    for number in range(20):
        ids = mask(number, range(4))
        if number == 3:
            ids[20:23, 50:54] = 4
        save(folder / f"masks/{number:03}.png", ids)


def outlined(folder: Path) -> None:
    """Class 1 is drawn as the outline of class 2, on 0: between them, and thin, but no blur."""
    write_images(folder, 10)
    for number in range(10):
        inner = mask(number, (0, 2))
        grown = np.zeros_like(inner)
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            grown |= np.roll(inner, (dy, dx), (0, 1))
        save(folder / f"masks/{number:03}.png", np.where(inner, 2, grown // 2).astype(np.uint8))


def gaps(folder: Path) -> None:
    write_images(folder, 10)
    for number in range(10):
        save(folder / f"masks/{number:03}.png", mask(number, (0, 7, 8, 11)))


def labelme(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        save(folder / f"{number:03}.jpg", photo(number))
        box = [[3.0, 3.0], [20.0, 3.0], [20.0, 30.0], [3.0, 30.0]]
        other = [[30.0, 5.0], [50.0, 5.0], [50.0, 35.0]]
        shapes = [
            {"label": name, "points": points, "shape_type": "polygon", "group_id": None}
            for name, points in (("dog", box), ("cat", other))
        ]
        table = {"version": "5.0", "flags": {}, "shapes": shapes, "imagePath": f"{number:03}.jpg"}
        table |= {"imageData": None, "imageHeight": 40, "imageWidth": 56}
        (folder / f"{number:03}.json").write_text(json.dumps(table))


def yolo(folder: Path) -> None:
    write_images(folder, 6, suffix="jpg")
    (folder / "labels").mkdir()
    for number in range(6):
        (folder / f"labels/{number:03}.txt").write_text(
            "0 0.1 0.1 0.5 0.1 0.5 0.6\n1 0.6 0.6 0.9 0.6 0.9 0.9 0.6 0.9\n"
        )
    (folder / "data.yaml").write_text("train: images\nnames:\n  0: leaf\n  1: stem\n")


def coco(folder: Path) -> None:
    write_images(folder, 6, suffix="jpg")
    images = [{"id": n, "file_name": f"{n:03}.jpg", "height": 40, "width": 56} for n in range(6)]
    annotations = [
        {
            "id": 10 * n + k,
            "image_id": n,
            "category_id": category,
            "iscrowd": 0,
            "area": 100,
            "bbox": [x, 5, 15, 20],
            "segmentation": [[x, 5, x + 15, 5, x + 15, 25, x, 25]],
        }
        for n in range(6)
        for k, (category, x) in enumerate(((3, 2), (17, 30)))
    ]
    categories = [{"id": 3, "name": "car"}, {"id": 17, "name": "cat"}]
    table = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations").mkdir()
    (folder / "annotations/instances.json").write_text(json.dumps(table))


def camvid(folder: Path) -> None:
    """SegNet's layout: a folder and a list for each split, names of classes beside."""
    for split, numbers in (("train", range(6)), ("val", range(6, 9))):
        for number in numbers:
            save(folder / f"{split}/{number:03}.png", photo(number))
            save(folder / f"{split}annot/{number:03}.png", mask(number))
        lines = [f"/data/{split}/{n:03}.png /data/{split}annot/{n:03}.png\n" for n in numbers]
        (folder / f"{split}.txt").write_text("".join(lines))
    (folder / "classes.txt").write_text("sky\nroad\ntree\ncar\nvoid\n")


@pytest.mark.parametrize(
    ("write", "encoding", "num_classes", "splits"),
    [
        (write_index, "index", 5, {"train": 8, "val": 2}),
        (write_rgb, "rgb", 5, {"train": 8, "val": 2}),
        (palette, "palette", 5, {"train": 8, "val": 2}),
        (sixteen_bit, "index", 5, {"train": 8, "val": 2}),
        (binary, "index", 2, {"train": 8, "val": 2}),
        (voc, "palette", 5, {"train": 7, "val": 3}),
        (rare, "index", 5, {"train": 16, "val": 4}),
        (outlined, "index", 3, {"train": 8, "val": 2}),
        (gaps, "index", 4, {"train": 8, "val": 2}),
        (labelme, "polygons", 3, {"train": 5, "val": 1}),
        (yolo, "polygons", 3, {"train": 5, "val": 1}),
        (coco, "coco-json", 3, {"train": 5, "val": 1}),
        (camvid, "index", 4, {"train": 6, "val": 3}),
    ],
)
def test_a_healthy_folder_has_no_problems(
    tmp_path: Path,
    write: Callable[[Path], object],
    encoding: str,
    num_classes: int,
    splits: dict[str, int],
) -> None:
    write(tmp_path)
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {}
    assert diagnosis.scan.labels.encoding == encoding
    assert len(diagnosis.classes) == num_classes
    assert {name: len(files.keys) for name, files in diagnosis.splits.items()} == splits
    diagnosis.write()
    labels = read_all(tmp_path)
    assert {name: len(keys) for name, keys in labels.items()} == splits
    assert all(
        set(np.unique(x)) <= {*range(num_classes), 255} for s in labels.values() for x in s.values()
    )
    assert problems(examine(tmp_path)) == {}  # and what it wrote is healthy too


def checkered(folder: Path) -> None:
    """Of each 2 every other pixel is 1, which so lies between 0 and 2 on each edge."""
    write_images(folder, 20)
    for number in range(20):
        ids = mask(number, (0, 3, 2, 1), (80, 112))
        ids[(ids == 2) & (np.indices(ids.shape).sum(0) % 2 == 0)] = 1
        save(folder / f"images/{number:03}.png", photo(number, ids.shape))
        save(mask_path(folder, number), ids)


def one_ring(folder: Path) -> None:
    """Drawn objects, of which a single one has an outline with an id between."""
    write_images(folder, 20)
    for number in range(20):
        ids = np.zeros((40, 56), np.uint8)
        ids[9:20, 20:26] = 2
        if number == 4:
            ids[9:20, 20] = ids[9:20, 25] = 1
        save(mask_path(folder, number), ids)


@pytest.mark.parametrize("write", [checkered, one_ring])
def test_what_is_drawn_thinly_is_no_blur(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    assert problems(examine(tmp_path)) == {}


# Faults: each alone in a folder that is healthy otherwise.


def mask_path(folder: Path, number: int) -> Path:
    return folder / f"masks/{number:03}.png"


def stray_id(folder: Path) -> None:
    ids = mask(3)
    ids[30:36, 2:9] = 77
    save(mask_path(folder, 3), ids)


def size_mismatch(folder: Path) -> None:
    for number in (2, 5):
        save(mask_path(folder, number), mask(number, size=(44, 60)))


def exif_rotated(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "images/004.png", photo(4), exif=exif)


def unreadable_image(folder: Path) -> None:
    path = folder / "images/001.png"
    path.write_bytes(path.read_bytes()[:-100])


def unreadable_mask(folder: Path) -> None:
    mask_path(folder, 1).write_bytes(b"")
    save(mask_path(folder, 2), PALETTE[mask(2)])


def empty_mask(folder: Path) -> None:
    save(mask_path(folder, 6), np.zeros((40, 56), np.uint8))


def duplicate_image(folder: Path) -> None:
    shutil.copy(folder / "images/001.png", folder / "images/002.png")


def unpaired_image(folder: Path) -> None:
    mask_path(folder, 9).unlink()


def unpaired_mask(folder: Path) -> None:
    (folder / "images/008.png").unlink()


def odd_name(folder: Path) -> None:
    save(folder / "images/a\nb.png", photo(50))


def interpolated_ids(folder: Path) -> None:
    for number in (1, 4, 7):
        save(mask_path(folder, number), resized(mask(number)))


@pytest.mark.parametrize(
    ("fault", "code", "count", "left_out"),
    [
        (stray_id, "stray-id", 1, 0),
        (size_mismatch, "size-mismatch", 2, 2),
        (exif_rotated, "exif-rotated", 1, 1),
        (unreadable_image, "unreadable-image", 1, 1),
        (unreadable_mask, "unreadable-mask", 2, 2),
        (empty_mask, "empty-mask", 1, 0),
        (duplicate_image, "duplicate-image", 1, 1),
        (unpaired_image, "unpaired-image", 1, 0),
        (unpaired_mask, "unpaired-mask", 1, 0),
        (odd_name, "odd-name", 1, 0),
        (interpolated_ids, "interpolated", 3, 0),
    ],
)
def test_each_fault_is_found_alone_and_the_rest_can_be_used(
    tmp_path: Path, fault: Callable[[Path], None], code: str, count: int, left_out: int
) -> None:
    write_index(tmp_path, 20)
    fault(tmp_path)
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {code: count}
    assert all("\n" not in line for line in finding(diagnosis, code).examples)
    assert len(finding(diagnosis, code).examples) == count
    assert diagnosis.left_out == left_out
    assert diagnosis.classes == tuple(f"class {i}" for i in range(5))
    diagnosis.write()
    labels = read_all(tmp_path)
    assert sum(map(len, labels.values())) == len(diagnosis.scan.pairs) - left_out


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_blurred_colours_become_the_nearest_of_a_class(tmp_path: Path, suffix: str) -> None:
    truth = [mask(number).repeat(3, 0).repeat(3, 1) for number in range(10)]
    for number, ids in enumerate(truth):
        save(tmp_path / f"images/{number:03}.png", photo(number, ids.shape))
        colors = resized(PALETTE[ids]) if suffix == "png" and number < 4 else PALETTE[ids]
        save(tmp_path / f"masks/{number:03}.{suffix}", colors)
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {"interpolated": 4 if suffix == "png" else 10}
    assert len(diagnosis.classes) == 5 and diagnosis.scan.labels.unknown == "nearest"
    diagnosis.write()
    # "class 1" is the first colour by its code, not by ours
    order = np.argsort(np.argsort(PALETTE @ np.array([1, 256, 65536])))
    for labels in read_all(tmp_path).values():
        for key, label in labels.items():
            assert (label == order[truth[int(key)]]).mean() > 0.8
    assert problems(examine(tmp_path)) == {}  # the description mends it


def test_one_mask_as_jpeg_counts_by_its_nearest_colours(tmp_path: Path) -> None:
    write_rgb(tmp_path, 10)
    path = tmp_path / "masks/004.png"
    save(tmp_path / "blurred.jpg", PALETTE[mask(4)], quality=75)
    with Image.open(tmp_path / "blurred.jpg") as picture:
        picture.save(path)
    (tmp_path / "blurred.jpg").unlink()
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {"interpolated": 1}  # and it is not empty
    assert sum(pixels[-1] for pixels in diagnosis.pixels.values()) == 0


def odd_patch(colors: np.ndarray) -> np.ndarray:
    colors[30:35, 2:7] = (9, 200, 13)
    return colors


def odd_photo(colors: np.ndarray) -> np.ndarray:
    return photo(99)


@pytest.mark.parametrize("spoil", [odd_patch, odd_photo])
def test_what_one_mask_alone_has_a_little_of_is_no_class(
    tmp_path: Path, spoil: Callable[[np.ndarray], np.ndarray]
) -> None:
    write_rgb(tmp_path, 20)
    save(mask_path(tmp_path, 3), spoil(PALETTE[mask(3)]))
    diagnosis = examine(tmp_path)
    assert problems(diagnosis)["stray-id"] == 1
    assert len(diagnosis.classes) == 5 and diagnosis.scan.labels.unknown == "ignore"
    diagnosis.write()
    assert sum(map(len, read_all(tmp_path).values())) == 20


def test_mixtures_on_a_few_edges_of_many_masks_are_no_classes(tmp_path: Path) -> None:
    for number in range(20):
        colors = PALETTE[mask(number)].repeat(3, 0).repeat(3, 1)
        height, width = colors.shape[:2]
        large = Image.fromarray(colors).resize((width * 23 // 10, height * 23 // 10), 0)
        save(mask_path(tmp_path, number), np.array(large.resize((width, height), 4)))
        save(tmp_path / f"images/{number:03}.png", photo(number, (height, width)))
    diagnosis = examine(tmp_path)
    assert problems(diagnosis).keys() <= {"stray-id", "interpolated"} and problems(diagnosis)
    assert len(diagnosis.classes) == 5


def test_many_rare_colours_are_classes(tmp_path: Path) -> None:
    write_rgb(tmp_path, 8)
    for number in range(8):
        colors = PALETTE[mask(number)]
        colors[30:35, 2:7] = (9, 200, number)
        save(mask_path(tmp_path, number), colors)
    assert len(examine(tmp_path).classes) == 13


def test_a_stray_id_beyond_ids_with_gaps(tmp_path: Path) -> None:
    write_images(tmp_path, 20)
    for number in range(20):
        ids = mask(number, (0, 7, 8, 11, 26))
        ids[30:35, 2:7] = 200 if number == 3 else 0
        save(mask_path(tmp_path, number), ids)
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {"stray-id": 1}
    assert diagnosis.classes == tuple(f"class {i}" for i in (0, 7, 8, 11, 26))


def test_images_turned_to_the_same_size_are_only_noted(tmp_path: Path) -> None:
    write_images(tmp_path, 10, suffix="jpg")
    exif = Image.Exif()
    exif[0x0112] = 3
    save(tmp_path / "images/004.jpg", photo(4), exif=exif)
    for number in range(10):
        save(mask_path(tmp_path, number), mask(number))
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {} and diagnosis.left_out == 0
    assert finding(diagnosis, "exif-rotated").severity == "note"


def test_of_two_names_of_a_colour_the_first_counts(tmp_path: Path) -> None:
    write_rgb(tmp_path)
    names = [*"abcde", "again"]
    rows = [f"{name},{','.join(map(str, PALETTE[i % 5]))}\n" for i, name in enumerate(names)]
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\n" + "".join(rows))
    diagnosis = examine(tmp_path)
    assert {*diagnosis.classes} == {*"abcde"} and problems(diagnosis) == {}
    diagnosis.write()
    read_all(tmp_path)


@pytest.mark.parametrize("how", ["hard", "soft", "jpg"])
def test_foreground_255_is_mapped_to_a_class(tmp_path: Path, how: str) -> None:
    write_images(tmp_path, 10)
    for number in range(10):
        ids = mask(number, (0, 255))
        ids = resized(ids) if how == "soft" else ids
        save(tmp_path / f"masks/{number:03}.{'jpg' if how == 'jpg' else 'png'}", ids)
    diagnosis = examine(tmp_path)
    soft = {} if how == "hard" else {"interpolated": 10}
    assert problems(diagnosis) == {"foreground-255": 10, **soft}
    assert diagnosis.classes == ("background", "foreground")
    diagnosis.write()
    for labels in read_all(tmp_path).values():
        for key, label in labels.items():
            assert ((label == 1) == (mask(int(key), (0, 255)) == 255)).mean() > 0.8
    assert problems(examine(tmp_path)) == {}


def test_some_masks_of_0_and_1_and_some_of_0_and_255(tmp_path: Path) -> None:
    binary(tmp_path)
    for number in (2, 3, 5):
        save(mask_path(tmp_path, number), mask(number, (0, 255)))
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {"foreground-255": 3}
    diagnosis.write()
    for labels in read_all(tmp_path).values():
        assert all(np.array_equal(x, mask(int(key), (0, 1))) for key, x in labels.items())


@pytest.mark.parametrize("ids", [(0, 85, 170, 255), (0, 128, 255)])
def test_ids_spread_to_be_seen_are_classes(tmp_path: Path, ids: tuple[int, ...]) -> None:
    write_images(tmp_path, 5)
    for number in range(5):
        save(mask_path(tmp_path, number), mask(number, ids))
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {"foreground-255": 5}
    assert list(diagnosis.scan.class_of) == list(ids)


def test_a_border_of_255_around_1_is_no_class(tmp_path: Path) -> None:
    write_images(tmp_path, 6)
    for number in range(6):
        save(mask_path(tmp_path, number), mask(number, (0, 1, 255) if number else (0, 255)))
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {"empty-mask": 1} and len(diagnosis.classes) == 2


def test_a_folder_whose_masks_are_all_broken_is_told_so(tmp_path: Path) -> None:
    write_index(tmp_path, 3)
    for number in range(3):
        mask_path(tmp_path, number).write_bytes(b"no mask")
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {"unreadable-mask": 3}
    with pytest.raises(InputError, match="nothing is written"):
        diagnosis.write()


def test_a_class_of_255_that_a_description_ignores_is_found(tmp_path: Path) -> None:
    write_images(tmp_path, 4)
    for number in range(4):
        save(mask_path(tmp_path, number), mask(number, (0, 255)))
    diagnosis = examine(tmp_path)
    diagnosis.write()
    path = tmp_path / "dataset.toml"
    path.write_text(path.read_text().replace("map = { 0 = 0, 255 = 1 }\n", ""))
    assert "foreground-255" in problems(examine(tmp_path))


def test_leakage_and_missing_class_between_folders(tmp_path: Path) -> None:
    camvid(tmp_path)
    shutil.copy(tmp_path / "val/006.png", tmp_path / "train/002.png")
    for number in range(6, 9):
        save(tmp_path / f"valannot/{number:03}.png", mask(number, (0, 1, 2)))
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {"leakage": 1, "missing-class": 1}
    assert finding(diagnosis, "missing-class").message == '"car" never occurs in val'
    assert finding(diagnosis, "leakage").examples == ("train train/002.png = val val/006.png",)
    diagnosis.write()
    assert {name: sorted(keys) for name, keys in read_all(tmp_path).items()} == {
        "train": ["000", "001", "003", "004", "005"],
        "val": ["006", "007", "008"],
    }
    assert set(problems(examine(tmp_path))) == {"missing-class"}


def test_many_empty_masks_are_meant(tmp_path: Path) -> None:
    binary(tmp_path)
    for number in range(6):
        save(mask_path(tmp_path, number), np.zeros((40, 56), np.uint8))
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {} and finding(diagnosis, "empty-mask").count == 6


def test_a_palette_mask_that_was_converted_is_refused(tmp_path: Path) -> None:
    palette(tmp_path)
    grey = Image.open(mask_path(tmp_path, 4)).convert("L")
    grey.save(mask_path(tmp_path, 4))
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {"unreadable-mask": 1}
    assert "lost in a conversion" in finding(diagnosis, "unreadable-mask").examples[0]
    assert len(diagnosis.classes) == 5


def test_masks_with_palettes_of_their_own_are_read_by_colour(tmp_path: Path) -> None:
    write_images(tmp_path, 10)
    for number in range(10):
        order = np.random.default_rng(number).permutation(5)  # of colour i in this palette
        ids = order[mask(number)].astype(np.uint8)
        save(mask_path(tmp_path, number), ids, PALETTE[np.argsort(order)])
    diagnosis = examine(tmp_path)
    assert diagnosis.scan.labels.encoding == "rgb" and problems(diagnosis) == {}
    assert len(diagnosis.classes) == 5


def test_a_description_is_believed(tmp_path: Path) -> None:
    write_index(tmp_path)
    examine(tmp_path).write()
    text = (tmp_path / "dataset.toml").read_text()
    fewer = "".join(line for line in text.splitlines(True) if '"class 4"' not in line)
    (tmp_path / "dataset.toml").write_text(fewer)
    diagnosis = examine(tmp_path)
    assert problems(diagnosis) == {"stray-id": 10} and diagnosis.toml == fewer
    with pytest.raises(InputError, match="exists already"):
        diagnosis.write()


@pytest.mark.parametrize(
    ("name", "text", "classes"),
    [
        ("classes.txt", "sky\nroad\ntree\ncar\nman\n", "sky road tree car man"),
        ("labels.txt", "0 sky\n1 road\n2 tree\n3 car\n4 void\n", "sky road tree car"),
        ("classes.txt", "road\ntree\ncar\nman\n", "background road tree car man"),  # from 1
        ("classes.txt", "background\nroad\ntree\n", "background road tree"),  # 3 and 4 are stray
    ],
)
def test_names_of_classes(tmp_path: Path, name: str, text: str, classes: str) -> None:
    write_index(tmp_path)
    (tmp_path / name).write_text(text)
    diagnosis = examine(tmp_path)
    assert diagnosis.classes == tuple(classes.split())
    assert diagnosis.names_file == name
    assert ("stray-id" in problems(diagnosis)) == ("background" in text)


@pytest.mark.parametrize("white", [1, 255])
def test_one_name_is_that_of_the_foreground(tmp_path: Path, white: int) -> None:
    write_images(tmp_path, 4)
    for number in range(4):
        save(mask_path(tmp_path, number), mask(number, (0, white)))
    (tmp_path / "labels.txt").write_text("building\n")
    assert examine(tmp_path).classes == ("background", "building")


def test_ids_counted_from_1_leave_little_0_unlabelled(tmp_path: Path) -> None:
    write_images(tmp_path, 4)
    for number in range(4):
        save(mask_path(tmp_path, number), mask(number, (1, 2, 3, 0)))
    (tmp_path / "labels.txt").write_text("1 road\n2 tree\n3 car\n")
    diagnosis = examine(tmp_path)
    assert diagnosis.classes == ("road", "tree", "car") and problems(diagnosis) == {}
    diagnosis.write()
    for labels in read_all(tmp_path).values():
        for key, label in labels.items():
            expected = mask(int(key), (1, 2, 3, 0)) - 1  # 0 - 1 = 255 in uint8
            assert np.array_equal(label, expected)


@pytest.mark.parametrize(
    ("name", "line", "head"),
    [
        ("class_dict.csv", "{name}, {r}, {g}, {b}", "name, r, g, b"),
        ("labelmap.txt", "{name}:{r},{g},{b}::", "# label:color_rgb:parts:actions"),
        ("label_colors.txt", "{r} {g} {b}\t{name}", ""),
    ],
)
def test_names_of_colours(tmp_path: Path, name: str, line: str, head: str) -> None:
    write_rgb(tmp_path)
    names = ["sky", "wide road", "tree", "car", "man"]
    rows = [line.format(name=n, r=r, g=g, b=b) for n, (r, g, b) in zip(names, PALETTE, strict=True)]
    (tmp_path / name).write_text("\n".join([head, *rows]))
    diagnosis = examine(tmp_path)
    assert diagnosis.classes == tuple(names)
    diagnosis.write()
    for labels in read_all(tmp_path).values():
        assert all(np.array_equal(label, mask(int(key))) for key, label in labels.items())


def test_folders_without_pairs_say_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no images in it; looked for images/ and masks/"):
        examine(tmp_path)
    save(tmp_path / "a/1.png", photo(1))
    with pytest.raises(InputError, match=r"1 images, but no mask"):
        examine(tmp_path)
    with pytest.raises(InputError, match=r"no such folder"):
        examine(tmp_path / "nowhere")


def test_photos_in_place_of_masks_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path, 3)
    for number in range(3):
        save(mask_path(tmp_path, number), photo(90 + number))
    with pytest.raises(InputError, match="different values, where 1 to 255 classes can be"):
        examine(tmp_path)


SUFFIXES = ["png", "mat", "json", "txt", "jpg"]
NAMES = ["a.json", "classes.txt", "data.yaml", "class_dict.csv", "train.txt", "dataset.toml"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.sampled_from(
            [f"{side}/000.{suffix}" for side in ("images", "masks") for suffix in SUFFIXES] + NAMES
        ),
        unique=True,
    ),
    content=st.one_of(st.binary(max_size=200), st.text(max_size=60).map(lambda t: t.encode())),
)
def test_any_bytes_end_in_a_diagnosis_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    write_index(folder, 2)
    for name in names:
        (folder / name).write_bytes(content)
    try:
        diagnosis = examine(folder)
        json.dumps(diagnosis.to_dict()).encode()
    except InputError as error:
        assert "\n" not in str(error)


def test_json_form_is_stable(tmp_path: Path) -> None:
    document = examine(write_index(tmp_path)).to_dict()
    assert list(document) == [
        "folder", "pairs", "encoding", "classes", "splits", "proposed_seed", "left_out",
        "findings", "toml",
    ]  # fmt: skip
    assert list(document["findings"][0]) == [
        "code", "severity", "count", "message", "examples", "mend",
    ]  # fmt: skip
    assert examine(tmp_path).to_dict() == document  # the same folder, the same answer


@pytest.mark.parametrize("fault", ["colours", "sizes", "damaged"])
def test_a_val_split_that_is_wholly_left_out_is_taken_from_train(
    tmp_path: Path, fault: str
) -> None:
    for number in range(10):
        split = "train" if number < 7 else "val"
        save(tmp_path / f"{split}/images/{number}.png", photo(number))
        path, label = tmp_path / f"{split}/masks/{number}.png", mask(number)
        save(path, label)
        if split == "val" and fault == "damaged":
            path.write_bytes(path.read_bytes()[:60])
        elif split == "val":
            save(path, PALETTE[label] if fault == "colours" else label[:20])
    diagnosis = examine(tmp_path)
    assert problems(diagnosis)["size-mismatch" if fault == "sizes" else "unreadable-mask"] == 3
    diagnosis.write()
    read = read_all(tmp_path)
    assert sum(map(len, read.values())) == 7 and read["val"]
    for labels in read.values():
        for key, label in labels.items():
            assert (label == mask(int(key))).all()
