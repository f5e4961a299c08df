"""Folders with several masks for an image: what is read, or why it is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from doctor_folders import mask, photo, resized, save
from PIL import Image

from atrous.data.dataset import Dataset
from atrous.doctor import examine
from atrous.doctor.diagnosis import Diagnosis
from atrous.errors import InputError

COUNT = 6
NAMES = ("background", "car", "tree")


def truth(number: int) -> np.ndarray:
    """(H, W) places in `NAMES`; the first image has no tree."""
    ids = mask(number, range(3))
    return np.where(ids == 2, 0, ids) if number == 0 else ids


def binary(number: int, name: str) -> np.ndarray:
    return ((truth(number) == NAMES.index(name)) * 255).astype(np.uint8)


def write_parts(folder: Path, image: str, part: str, **options) -> None:
    """One file for each class; `{}` stands for the number, `{c}` for the class."""
    for number in range(COUNT):
        save(folder / image.format(number), photo(number))
        for name in NAMES[1:]:
            save(folder / part.format(number, c=name), binary(number, name), **options)


def read(folder: Path) -> tuple[Diagnosis, Dataset]:
    diagnosis = examine(folder)
    diagnosis.write()
    return diagnosis, Dataset.open(folder)


def labels(dataset: Dataset) -> dict[str, np.ndarray]:
    """The names of the classes at all pixels, by key."""
    names = np.full(256, "ignored", object)
    names[: dataset.taxonomy.num_classes] = dataset.taxonomy.classes
    splits = [dataset.split(name) for name in dataset.splits]
    return {key: names[s.label(i)] for s in splits for i, key in enumerate(s.keys)}


def number_of(key: str) -> int:
    return int("".join(letter for letter in key.split("/")[-1] if letter.isdigit()))


def codes(diagnosis: Diagnosis, severity: str) -> set[str]:
    return {finding.code for finding in diagnosis.findings if finding.severity == severity}


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        examine(folder)
    assert "\n" not in str(error.value) and not (folder / "dataset.toml").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("image", "part"),
    [
        ("images/x{}.jpg", "masks/{c}/x{}.png"),
        ("images/x{}.jpg", "masks/x{}_{c}.png"),
        ("images/x{}.jpg", "masks/x{}.{c}.png"),
        ("images/x{}.jpg", "masks/{c}_x{}.png"),
        ("images/x{}.jpg", "masks/{c}-x{}_mask.png"),
        ("images/x{}.jpg", "masks/x{}_mask_{c}.png"),
        ("images/x{}.jpg", "masks/x{}/{c}.png"),
        ("images/x{}.jpg", "masks/x{0}/x{0}_{c}.png"),
        ("images/x{}.jpg", "masks_{c}/x{}.png"),
        ("images/x{}.jpg", "{c}_mask/x{}.png"),
        ("images/x{}.jpg", "{c}/x{}.png"),
        ("images/x{}.png", "{c}/x{}.png"),
        ("images/x{}.png", "GroundTruth/{c}/x{}.BMP"),
        ("Images/IMG {} a.JPG", "Masks/{c}/IMG {} a.PNG"),
        ("x{}.jpg", "x{}_{c}.png"),
        ("x{}.png", "x{}_{c}.png"),
        ("data/img/x{}.png", "data/annotations/{c}/x{}.gif"),
        ("images/{:03}.jpg", "labels/{c}/{:03}_segmentation.png"),
    ],
)
def test_a_binary_mask_for_each_class(tmp_path: Path, image: str, part: str) -> None:
    write_parts(tmp_path, image, part)
    diagnosis, dataset = read(tmp_path)
    assert {*dataset.taxonomy.classes} == {*NAMES} and dataset.encoding.name == "binary-masks"
    found = labels(dataset)
    assert len(found) == COUNT
    for key, label in found.items():
        assert np.array_equal(label, np.array(NAMES)[truth(number_of(key))])
    assert not codes(diagnosis, "problem") and "class-masks" in codes(diagnosis, "note")
    assert not codes(examine(tmp_path), "problem")


@pytest.mark.parametrize(
    ("image", "part"),
    [
        ("images/{s}/x{}.jpg", "masks/{s}/{c}/x{}.png"),
        ("images/{s}/x{}.jpg", "masks/{c}/{s}/x{}.png"),
        ("{s}/images/x{}.jpg", "{s}/masks/{c}/x{}.png"),
        ("{s}/x{}.jpg", "{s}_masks/x{}_{c}.png"),
        ("{s}/images/x{}.jpg", "{s}/{c}/x{}.png"),
    ],
)
@pytest.mark.parametrize("lacking", [False, True])
def test_splits_of_binary_masks(tmp_path: Path, image: str, part: str, lacking: bool) -> None:
    for number in range(COUNT):
        split = "train" if number < 4 else "val"
        save(tmp_path / image.format(number, s=split), photo(number))
        for name in NAMES[1:]:
            if not (lacking and split == "val" and name == "tree"):
                save(tmp_path / part.format(number, c=name, s=split), binary(number, name))
    _, dataset = read(tmp_path)
    assert {*dataset.splits} == {"train", "val"} and {*dataset.taxonomy.classes} == {*NAMES}
    for key, label in labels(dataset).items():
        ids = truth(number_of(key))
        if lacking and number_of(key) >= 4:
            ids = np.where(ids == 2, 0, ids)  # what has no file is absent
        assert np.array_equal(label, np.array(NAMES)[ids])


@pytest.mark.parametrize(
    "how", ["ones", "jpeg", "resized", "palette", "bits", "rgb", "alpha", "16"]
)
def test_forms_of_binary_masks(tmp_path: Path, how: str) -> None:
    for number in range(COUNT):
        save(tmp_path / f"images/{number}.png", photo(number))
        for name in NAMES[1:]:
            drawn = binary(number, name)
            path = tmp_path / f"masks/{name}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if how == "jpeg":
                save(path.with_suffix(".jpg"), drawn, quality=90)
            elif how == "palette":  # of one colour alone, its index is 0
                Image.fromarray(drawn).convert("RGB").quantize(2).save(path)
            elif how == "bits":
                Image.fromarray(drawn > 0).save(path)
            elif how == "rgb":
                save(path, np.stack([0 * drawn, drawn, 0 * drawn], -1))
            elif how == "alpha":  # black, drawn on nothing
                save(path, np.dstack([0 * drawn] * 3 + [drawn]))
            elif how == "16":
                save(path, drawn.astype(np.uint16) * 257)
            else:
                save(path, drawn // 255 if how == "ones" else resized(drawn))
    _, dataset = read(tmp_path)
    for key, label in labels(dataset).items():
        wrong = label != np.array(NAMES)[truth(number_of(key))]
        assert wrong.mean() <= (0.05 if how in ("jpeg", "resized") else 0)


def test_order_decides_where_masks_overlap_and_it_is_said(tmp_path: Path) -> None:
    """A cup lies in its disc: alphabetically, the disc would cover it."""
    for number in range(COUNT):
        save(tmp_path / f"images/{number}.png", photo(number))
        disc, cup = np.zeros((2, 40, 56), np.uint8)
        disc[5:30, 5 + number : 40], cup[10:20, 15:30] = 255, 255
        save(tmp_path / f"masks/disc/{number}.png", disc)
        save(tmp_path / f"masks/cup/{number}.png", cup)
        save(tmp_path / f"masks/void/{number}.png", np.pad(np.full((2, 2), 255, np.uint8), 19))
    for path in (tmp_path / "masks/void").iterdir():
        save(path, np.pad(np.full((2, 2), 255, np.uint8), ((10, 28), (15, 39))))
    diagnosis, dataset = read(tmp_path)
    assert dataset.taxonomy.classes == ("background", "disc", "cup")
    (overlap,) = (f for f in diagnosis.findings if f.code == "overlap")
    assert overlap.count == COUNT and "disc, cup" in overlap.message and "876" in overlap.message
    for label in labels(dataset).values():
        assert (label == "cup").sum() == 150 - 4 and (label == "ignored").sum() == 4
        assert (label[10:20, 15:30] != "disc").all()


def test_masks_that_leave_nothing_over_have_no_background(tmp_path: Path) -> None:
    for number in range(COUNT):
        save(tmp_path / f"images/{number}.png", photo(number))
        save(tmp_path / f"masks/ground/{number}.png", binary(number, "car"))
        save(tmp_path / f"masks/human/{number}.png", 255 - binary(number, "car"))
    _, dataset = read(tmp_path)
    assert dataset.taxonomy.classes == ("human", "ground")
    for key, label in labels(dataset).items():
        assert np.array_equal(label == "ground", binary(number_of(key), "car") > 0)


def test_a_file_of_names_gives_the_order(tmp_path: Path) -> None:
    write_parts(tmp_path, "images/x{}.jpg", "masks/{c}/x{}.png")
    (tmp_path / "classes.txt").write_text("tree\ncar\n")
    diagnosis, dataset = read(tmp_path)
    assert dataset.taxonomy.classes == ("background", "tree", "car")
    assert diagnosis.names_file == "classes.txt"


def test_what_is_missing_among_binary_masks(tmp_path: Path) -> None:
    write_parts(tmp_path, "images/x{}.jpg", "masks/{c}/x{}.png")
    for name in NAMES[1:]:
        (tmp_path / f"masks/{name}/x3.png").unlink()
    save(tmp_path / "masks/car/stranger.png", binary(1, "car"))
    save(tmp_path / "masks/tree/x4.png", binary(4, "tree")[:20])
    diagnosis, dataset = read(tmp_path)
    assert diagnosis.scan.layout.unpaired_images == ("images/x3.jpg",)
    assert diagnosis.scan.layout.unpaired_masks == ("masks/car/stranger.png",)
    assert diagnosis.left_out == 1 and len(labels(dataset)) == COUNT - 2
    (unreadable,) = (f for f in diagnosis.findings if f.code == "unreadable-mask")
    assert "masks/tree/x4.png: 56x20" in unreadable.examples[0]


def test_a_faint_mask_among_bright_ones_is_no_empty_one(tmp_path: Path) -> None:
    write_parts(tmp_path, "images/x{}.jpg", "masks/{c}/x{}.png")
    (tmp_path / "dataset.toml").write_text(
        '[labels]\nencoding = "binary-masks"\nforeground = 128\nbackground = "background"\n'
        f"classes = {json.dumps(NAMES)}\n"
        '[splits.all]\nimages = "images/{key}.jpg"\nlabels = "masks/{class}/{key}.png"\n'
    )
    save(tmp_path / "masks/car/x2.png", binary(2, "car") // 255)
    with pytest.raises(InputError, match=r"car/x2\.png: no value over 1, where a mask begins at"):
        Dataset.open(tmp_path).split("all").label(2)


def beside(second: str, draw: Callable[[int], np.ndarray], first: str = "masks/{}.png"):
    """Write masks of ids, and others beside them."""

    def write(folder: Path) -> None:
        for number in range(COUNT):
            save(folder / f"images/{number}.png", photo(number))
            save(folder / first.format(number), mask(number, range(4)))
            save(folder / second.format(number), draw(number))

    return write


def shifted(number: int) -> np.ndarray:
    return np.roll(mask(number, range(4)), 3, axis=1)


def two_people(one: str, other: str):
    """Write what two people draw of one thing."""

    def write(folder: Path) -> None:
        for number in range(COUNT):
            save(folder / f"images/{number}.png", photo(number))
            drawn = np.zeros((40, 56), np.uint8)
            drawn[10:30, 10 + number : 40] = 255
            save(folder / one.format(number), drawn)
            save(folder / other.format(number), np.roll(drawn, 2, axis=0))

    return write


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (beside("masks_b/{}.png", shifted, "masks_a/{}.png"), ("masks_a/*.png", "masks_b/*.png")),
        (beside("annotations/{}.png", shifted, "labels/{}.png"), ("annotations/", "labels/")),
        (beside("gt/{}.png", shifted, "mask/{}.png"), ("gt/*.png", "mask/*.png")),
        (beside("masks/{}_new.png", shifted), ("masks/*.png", "masks/*_new.png")),
        (beside("annotator2/{}.png", shifted, "annotator1/{}.png"), ("annotator1", "annotator2")),
        (beside("b/{}.png", shifted, "a/{}.png"), ("a/*.png", "b/*.png")),
        (beside("masks/anna/{}.png", shifted, "masks/bob/{}.png"), ("masks/anna", "masks/bob")),
        (two_people("masks_a/{}.png", "masks_b/{}.png"), ("masks_",)),
        (two_people("labels/{}.png", "annotations/{}.png"), ("labels/*.png", "annotations/*.png")),
        (two_people("masks/anna/{}.png", "masks/bob/{}.png"), ("masks/anna", "masks/bob")),
        (two_people("masks/{}_expert1.png", "masks/{}_expert2.png"), ("expert",)),
        (two_people("masks/{}/1.png", "masks/{}/2.png"), ("numbers",)),
        (two_people("masks/{}_0.png", "masks/{}_1.png"), ("numbers",)),
        (two_people("gt/manual/{}.png", "gt/auto/{}.png"), ("gt/manual", "gt/auto")),
        (two_people("masks/manual/{}.png", "masks/auto/{}.png"), ("masks/manual", "masks/auto")),
        (two_people("manual/{}.png", "mask/{}.png"), ("manual/*.png", "mask/*.png")),
    ],
)
def test_two_kinds_of_masks_that_both_fit_are_refused(
    tmp_path: Path, write: Callable[[Path], None], named: tuple[str, ...]
) -> None:
    write(tmp_path)
    line = refusal(tmp_path)
    assert all(name in line for name in named), line


def test_parts_of_a_set_are_no_classes(tmp_path: Path) -> None:
    for number in range(COUNT):
        save(tmp_path / f"images/{number}.png", photo(number))
        town = "austin" if number % 2 else "vienna"
        save(tmp_path / f"masks/{town}/{number}.png", binary(number, "car"))
    assert "parts of the set?" in refusal(tmp_path)


@pytest.mark.parametrize(
    "write",
    [
        beside("masks_color/{}.png", lambda n: np.full((40, 56, 3), 7, np.uint8)),
        beside("masks_copy/{}.png", lambda n: mask(n, range(4))),
        beside("gray_labels/{}.png", lambda n: mask(n, range(4)) * 60),
        beside("masks/{}_overlay.png", photo),
        beside("SegmentationObject/{}.png", shifted, "SegmentationClass/{}.png"),
        beside("SegmentationClassVisualization/{}.jpg", photo, "SegmentationClass/{}.png"),
        beside("gtCoarse/{}_gtCoarse_labelIds.png", shifted, "gtFine/{}_gtFine_labelIds.png"),
    ],
)
def test_other_forms_of_the_masks_are_passed_over(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path)
    diagnosis, dataset = read(tmp_path)
    assert "passed-over" in codes(diagnosis, "note") and not codes(diagnosis, "problem")
    split = dataset.split("train")
    for index, key in enumerate(split.keys):
        assert np.array_equal(split.label(index), mask(number_of(key), range(4)))


def test_a_few_further_masks_are_named(tmp_path: Path) -> None:
    beside("masks/{}_mask_1.png", shifted, "masks/{}_mask.png")(tmp_path)
    for number in range(2, COUNT):
        (tmp_path / f"masks/{number}_mask_1.png").unlink()
    diagnosis = examine(tmp_path)
    (unused,) = (f for f in diagnosis.findings if f.code == "unused-mask")
    assert unused.severity == "problem" and unused.examples == ("masks/{key}_mask_1.png",)


def test_scenes_that_images_share_are_no_classes(tmp_path: Path) -> None:
    for scene in ("harbour", "forest"):
        for number in range(4):
            save(tmp_path / f"images/{scene}/{number}.png", photo(number + 10 * len(scene)))
            save(tmp_path / f"masks/{scene}/{number}.png", binary(number, "car"))
    _, dataset = read(tmp_path)
    assert dataset.taxonomy.num_classes == 2 and len(labels(dataset)) == 8


def test_sites_with_images_of_their_own_are_no_classes(tmp_path: Path) -> None:
    for site in range(3):
        for number in range(4):
            save(tmp_path / f"site{site}/images/{number}.png", photo(number + 10 * site))
            save(tmp_path / f"site{site}/masks/{number}.png", binary(number, "car"))
    diagnosis = examine(tmp_path)
    assert diagnosis.scan.labels.encoding == "index" and "unused-image" in codes(
        diagnosis, "problem"
    )


def write_retina(folder: Path, patterns: tuple[str, ...], splits: tuple[str, ...]) -> None:
    image, first, view, second = patterns
    for split in splits:
        for number in range(1, 5):
            inside = np.zeros((40, 56), np.uint8)
            inside[4:36, 8:48] = 255
            vessel = np.zeros((40, 56), np.uint8)
            vessel[10:12, 10 + number : 40] = 255
            shot = photo(number + 10 * len(split)) * (inside[..., None] > 0)
            save(folder / image.format(number, s=split), shot)
            for pattern, drawn in ((first, vessel), (view, inside), (second, np.roll(vessel, 1))):
                if pattern:
                    save(folder / pattern.format(number, s=split), drawn)


@pytest.mark.parametrize(
    ("patterns", "splits"),
    [
        (
            (
                "{s}/images/{:02}_{s}.tif",
                "{s}/1st_manual/{:02}_manual1.gif",
                "{s}/mask/{:02}_{s}_mask.gif",
                "{s}/2nd_manual/{:02}_manual2.gif",
            ),
            ("training", "test"),
        ),
        (("images/{:02}_dr.JPG", "manual1/{:02}_dr.tif", "mask/{:02}_dr_mask.tif", ""), ("",)),
        (
            ("Image_{:02}L.jpg", "Image_{:02}L_1stHO.png", "", "Image_{:02}L_2ndHO.png"),
            ("",),
        ),
    ],
)
def test_what_is_out_of_view_is_ignored(
    tmp_path: Path, patterns: tuple[str, ...], splits: tuple[str, ...]
) -> None:
    write_retina(tmp_path, patterns, splits)
    diagnosis, dataset = read(tmp_path)
    assert not codes(diagnosis, "problem") & {"unused-mask", "stray-id"}
    assert ("passed-over" in codes(diagnosis, "note")) == bool(patterns[3])
    found = labels(dataset)
    assert len(found) == 4  # of DRIVE's two splits the keys are the same here
    background, vessel = dataset.taxonomy.classes
    for key, label in found.items():
        assert (label == vessel).sum() == 2 * (30 - number_of(key))
        outside = np.ones((40, 56), bool)
        outside[4:36, 8:48] = not patterns[2]
        assert ((label == "ignored") == (outside if patterns[2] else False)).all()
    if len(splits) == 2:
        assert (background, vessel) == ("background", "vessel")
        assert "laid out as DRIVE" in "".join(f.message for f in diagnosis.findings)


def test_a_field_of_view_of_jpeg(tmp_path: Path) -> None:
    write_retina(tmp_path, ("images/{}.png", "manual/{}.png", "mask/{}.jpg", ""), ("",))
    view = np.array(Image.open(tmp_path / "mask/1.jpg"))
    assert ((view > 0) & (view < 128)).any()  # noise around the edge
    diagnosis, dataset = read(tmp_path)
    assert "valid-mask" in codes(diagnosis, "note")
    outside = np.ones((40, 56), bool)
    outside[4:36, 8:48] = False
    for label in labels(dataset).values():
        assert ((label == "ignored") == outside).all()


@pytest.mark.parametrize("fault", ["damaged", "small"])
def test_a_field_of_view_that_does_not_fit_leaves_the_pair_out(tmp_path: Path, fault: str) -> None:
    write_retina(tmp_path, ("images/{}.png", "manual/{}.png", "mask/{}.png", ""), ("",))
    if fault == "small":
        save(tmp_path / "mask/2.png", np.full((20, 28), 255, np.uint8))
    else:
        (tmp_path / "mask/2.png").write_bytes(b"no picture")
    diagnosis, dataset = read(tmp_path)
    (finding,) = (f for f in diagnosis.findings if f.code == "unreadable-mask")
    assert finding.count == 1 and "mask/2.png" in finding.examples[0]
    assert {number_of(key) for key in labels(dataset)} == {1, 3, 4}


def test_a_mask_beside_manual_ones_that_is_no_field_of_view(tmp_path: Path) -> None:
    write_retina(tmp_path, ("images/{}.png", "manual/{}.png", "mask/{}.png", ""), ("",))
    for number in range(1, 5):
        save(tmp_path / f"mask/{number}.png", binary(number, "car"))
    assert "manual/*.png and mask/*.png" in refusal(tmp_path)


def test_a_word_in_a_path_makes_no_field_of_view(tmp_path: Path) -> None:
    for number in range(COUNT):
        save(tmp_path / f"images/{number}.png", photo(number))
        save(tmp_path / f"masks/{number}.png", mask(number))
    save(tmp_path / "manual/figure.png", photo(99))
    assert len(examine(tmp_path).scan.pairs) == COUNT


def test_views_without_manual_masks_are_no_labels(tmp_path: Path) -> None:
    patterns = (
        "{s}/images/{:02}_{s}.tif",
        "{s}/1st_manual/{:02}_manual1.gif",
        "{s}/mask/{:02}_{s}_mask.gif",
        "",
    )
    write_retina(tmp_path, patterns, ("training", "test"))
    for path in (tmp_path / "test/1st_manual").iterdir():
        path.unlink()
    diagnosis = examine(tmp_path)
    assert "test" not in diagnosis.splits and len(diagnosis.scan.layout.elsewhere) == 4


def test_a_split_of_valid_masks_has_no_panoptic_truth_and_checks_sizes(tmp_path: Path) -> None:
    write_retina(tmp_path, ("images/{}.png", "manual/{}.png", "mask/{}.png", ""), ("",))
    _, dataset = read(tmp_path)
    split = dataset.split("train")
    with pytest.raises(InputError, match="no panoptic truth"):
        split.panoptic(0)
    save(tmp_path / f"mask/{split.keys[0]}.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"mask/.\.png: 4x4, but another mask of its image"):
        split.label(0)


def test_supervisely_masks(tmp_path: Path) -> None:
    for number in range(COUNT):
        save(tmp_path / f"ds0/img/{number}.jpg", photo(number))
        save(tmp_path / f"ds0/masks_machine/{number}.png", truth(number) * 10)
        save(tmp_path / f"ds0/masks_human/{number}.png", photo(number))
    table = {"tree": [20, 20, 20], "car": [10, 10, 10]}
    (tmp_path / "obj_class_to_machine_color.json").write_text(json.dumps(table))
    _, dataset = read(tmp_path)
    assert dataset.taxonomy.classes == NAMES
    for key, label in labels(dataset).items():
        assert np.array_equal(label, np.array(NAMES)[truth(number_of(key))])


def write_known(folder: Path, image: str, label: str, ids: list[int], **options) -> None:
    for number in range(1, 5):
        save(folder / image.format(number), photo(number))
        save(folder / label.format(number), np.array(ids, np.uint8)[mask(number, range(3))])


@pytest.mark.parametrize(
    ("image", "label", "ids", "title", "classes"),
    [
        (
            "leftImg8bit/train/ulm/ulm_{:06}_000019_leftImg8bit.png",
            "gtFine/train/ulm/ulm_{:06}_000019_gtFine_labelIds.png",
            [7, 26, 4],
            "Cityscapes,",
            ("road", "car", "ignored"),
        ),
        (
            "leftImg8bit/train/ulm/ulm_{:06}_000019_leftImg8bit.png",
            "gtFine/train/ulm/ulm_{:06}_000019_gtFine_labelTrainIds.png",
            [0, 13, 255],
            "Cityscapes, train ids",
            ("road", "car", "ignored"),
        ),
        (
            "bdd100k/images/10k/train/0a0a0b1a-{:08x}.jpg",
            "bdd100k/labels/sem_seg/masks/train/0a0a0b1a-{:08x}.png",
            [0, 13, 255],
            "BDD100K",
            ("road", "car", "ignored"),
        ),
        (
            "seg/images/train/0a0a0b1a-{:08x}.jpg",
            "seg/labels/train/0a0a0b1a-{:08x}_train_id.png",
            [0, 13, 255],
            "BDD100K",
            ("road", "car", "ignored"),
        ),
        (
            "images/training/ADE_train_{:08}.jpg",
            "annotations/training/ADE_train_{:08}.png",
            [0, 1, 150],
            "ADE20K",
            ("ignored", "wall", "flag"),
        ),
        (
            "JPEGImages/2007_{:06}.jpg",
            "SegmentationClass/2007_{:06}.png",
            [0, 15, 255],
            "PASCAL VOC",
            ("background", "person", "ignored"),
        ),
        (
            "train2017/{:012}.jpg",
            "stuffthingmaps/train2017/{:012}.png",
            [0, 181, 255],
            "COCO-Stuff",
            ("person", "wood", "ignored"),
        ),
        (
            "train/0001TP_{:06}.png",
            "trainannot/0001TP_{:06}.png",
            [0, 8, 11],
            "CamVid",
            ("sky", "car", "ignored"),
        ),
        (
            "Train/Rural/images_png/{}.png",
            "Train/Rural/masks_png/{}.png",
            [0, 2, 7],
            "LoveDA",
            ("ignored", "building", "agriculture"),
        ),
    ],
)
def test_known_sets(
    tmp_path: Path, image: str, label: str, ids: list[int], title: str, classes: tuple[str, ...]
) -> None:
    write_known(tmp_path, image, label, ids)
    diagnosis, dataset = read(tmp_path)
    assert f"laid out as {title}" in "".join(f.message for f in diagnosis.findings)
    for key, found in labels(dataset).items():
        number = int(key.split("_000019")[0][-6:].lstrip("_"), 16)
        assert np.array_equal(found, np.array(classes)[mask(number, range(3))])


def test_a_folder_that_only_looks_like_a_known_set(tmp_path: Path) -> None:
    name = "training/ADE_train_{:08}"
    write_known(tmp_path, f"images/{name}.jpg", f"annotations/{name}.png", [0, 1, 200])
    diagnosis, dataset = read(tmp_path)
    assert "but holds 200" in "".join(f.message for f in diagnosis.findings)
    assert dataset.taxonomy.classes == ("class 0", "class 1", "class 200")


def test_a_known_layout_whose_set_ignores_nearly_all_is_told(tmp_path: Path) -> None:
    image = "leftImg8bit/train/ulm/ulm_{:06}_000019_leftImg8bit.png"
    label = "gtFine/train/ulm/ulm_{:06}_000019_gtFine_labelIds.png"
    write_known(tmp_path / "a", image, label, [0, 1, 2])
    diagnosis, dataset = read(tmp_path / "a")
    assert dataset.taxonomy.classes == ("class 0", "class 1", "class 2")
    assert "it would ignore all pixels" in "".join(f.message for f in diagnosis.findings)
    pattern = "Train/Rural/{}_png/{{}}.png"
    write_known(tmp_path / "b", pattern.format("images"), pattern.format("masks"), [0, 1, 2])
    diagnosis, dataset = read(tmp_path / "b")
    assert dataset.taxonomy.classes[:2] == ("background", "building")
    found = np.concatenate([label.ravel() for label in labels(dataset).values()])
    (problem,) = (f for f in diagnosis.findings if f.code == "known-set")
    share = (found == "ignored").mean()
    assert problem.severity == "problem" and f"which ignore {share:.0%}" in problem.message


def test_a_file_of_names_counts_more_than_a_known_layout(tmp_path: Path) -> None:
    write_known(
        tmp_path, "JPEGImages/2007_{:06}.jpg", "SegmentationClass/2007_{:06}.png", [0, 1, 2]
    )
    (tmp_path / "class_names.txt").write_text("background\ncar\ntree\n")
    diagnosis, dataset = read(tmp_path)
    assert dataset.taxonomy.classes == NAMES
    assert "a file names other classes" in "".join(f.message for f in diagnosis.findings)


def test_mapillary_vistas(tmp_path: Path) -> None:
    image, label = "training/images/{:022}.jpg", "training/v2.0/labels/{:022}.png"
    write_known(tmp_path, image, label, [0, 1, 2])
    entries = [
        {"readable": name, "name": f"x--{name}", "color": [9, 9, place]}
        for place, name in enumerate(["Bird", "Curb", "Unlabeled"])
    ]
    (tmp_path / "config_v2.0.json").write_text(json.dumps({"labels": entries}))
    (tmp_path / "config_v1.2.json").write_text(json.dumps({"labels": entries[::-1]}))
    _, dataset = read(tmp_path)
    for key, found in labels(dataset).items():
        names = np.array(["Bird", "Curb", "ignored"])
        assert np.array_equal(found, names[mask(int(key), range(3))])


@pytest.mark.parametrize(
    "text", ["[1]", "{}", '{"labels": [3]}', '{"car": "red"}', '{"car": [1, 2, 300]}', "{"]
)
def test_damaged_files_of_names_are_one_line(tmp_path: Path, text: str) -> None:
    for number in range(4):
        save(tmp_path / f"ds0/img/{number}.jpg", photo(number))
        save(tmp_path / f"ds0/masks_machine/{number}.png", truth(number) * 10)
    (tmp_path / "obj_class_to_machine_color.json").write_text(text)
    try:
        examine(tmp_path)
    except InputError as error:
        assert "\n" not in str(error)
