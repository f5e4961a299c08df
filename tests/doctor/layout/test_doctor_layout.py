import os
from pathlib import Path

import pytest
from doctor_folders import mask, photo, save
from hypothesis import given
from hypothesis import strategies as st

from atrous.doctor.layout.pairing import find_layout
from atrous.errors import InputError
from atrous.files import walk

NUMBERS = [f"{number:03}" for number in range(5)]
CITIES = [("train", "aachen"), ("train", "ulm"), ("val", "bonn")]
CITYSCAPES = [
    path
    for number in NUMBERS
    for split, city in CITIES
    for path in (
        f"leftImg8bit/{split}/{city}/{city}_{number}_leftImg8bit.png",
        *(
            f"gtFine/{split}/{city}/{city}_{number}_gtFine_{kind}"
            for kind in ("labelIds.png", "color.png", "instanceIds.png", "polygons.json")
        ),
    )
]


def names(*patterns: str) -> list[str]:
    return [pattern.format(number) for pattern in patterns for number in NUMBERS]


@pytest.mark.parametrize(
    ("paths", "images", "labels"),
    [
        (names("images/{}.jpg", "masks/{}.png"), "images/{key}.jpg", "masks/{key}.png"),
        (names("img/{}.jpg", "label/{}.png"), "img/{key}.jpg", "label/{key}.png"),
        (names("{}.jpg", "{}_mask.png"), "{key}.jpg", "{key}_mask.png"),
        (names("{}.jpg", "{}_GT.png"), "{key}.jpg", "{key}_GT.png"),
        (names("{}.png", "{}_mask_1.png"), "{key}.png", "{key}_mask_1.png"),
        (names("{}.jpg", "{}.png"), "{key}.jpg", "{key}.png"),
        (names("{}.jpg", "{}.json"), "{key}.jpg", "{key}.json"),
        (names("d/{}_sat.jpg", "d/{}_mask.png"), "{key}_sat.jpg", "{key}_mask.png"),
        (names("a/img_{}.jpg", "a/mask_{}.png"), "a/img_{key}.jpg", "a/mask_{key}.png"),
        (names("Raw/{}.png", "Labeled/{}_L.png"), "Raw/{key}.png", "Labeled/{key}_L.png"),
        (names("images/{}.jpg", "masks/{}.jpg.png"), "images/{key}.jpg", "masks/{key}.jpg.png"),
        (
            names("a/{}_training.tif", "b/{}_manual1.gif"),
            "a/{key}_training.tif",
            "b/{key}_manual1.gif",
        ),
        (names("images/{}.jpg", "annotations/{}.mat"), "images/{key}.jpg", "annotations/{key}.mat"),
        (names("images/{}.jpg", "labels/{}.txt"), "images/{key}.jpg", "labels/{key}.txt"),
        (names("images/a/{}.jpg", "masks/a/{}.png"), "images/{key}.jpg", "masks/{key}.png"),
        (
            names("JPEGImages/{}.jpg", "SegmentationClass/{}.png", "SegmentationObject/{}.png"),
            "JPEGImages/{key}.jpg",
            "SegmentationClass/{key}.png",
        ),
        (  # captions beside the images are no masks where there are masks
            names("images/{}.jpg", "images/{}.txt", "masks/{}.png")[:-1],
            "images/{key}.jpg",
            "masks/{key}.png",
        ),
    ],
)
def test_undivided_folders(paths: list[str], images: str, labels: str) -> None:
    layout = find_layout(Path("x"), paths)
    (files,) = layout.splits.values()
    assert (files.images, files.labels, layout.origin) == (images, labels, "none")
    assert [files.image(key) in paths and files.mask(key) in paths for key in files.keys]
    assert len(files.keys) >= 4 and layout.unpaired_masks == ()


@pytest.mark.parametrize(
    ("patterns", "train"),
    [
        (
            ("{}/images/#.jpg", "{}/masks/#.png"),
            ("train/images/{key}.jpg", "train/masks/{key}.png"),
        ),
        (("img/{}/#.jpg", "ann/{}/#.png"), ("img/train/{key}.jpg", "ann/train/{key}.png")),
        (("{}/#.png", "{}annot/#.png"), ("train/{key}.png", "trainannot/{key}.png")),
        (
            ("{}_images/#.jpg", "{}_masks/#.png"),
            ("train_images/{key}.jpg", "train_masks/{key}.png"),
        ),
    ],
)
@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_folders_of_splits(patterns: tuple[str, str], train: tuple[str, str], val: str) -> None:
    if val != "val" and "annot" in patterns[1]:
        return
    paths = [
        pattern.format(split).replace("#", number)
        for pattern in patterns
        for split in ("train", val)
        for number in NUMBERS
    ]
    layout = find_layout(Path("x"), paths)
    assert set(layout.splits) == {"train", "val"} and layout.origin == "folders"
    assert (layout.splits["train"].images, layout.splits["train"].labels) == train
    assert layout.splits["val"].images == train[0].replace("train", val)


@pytest.mark.parametrize("both", ["trainval", "train_val", "Train-Val"])
def test_a_folder_of_train_and_val_together(both: str) -> None:
    def split(*splits: str) -> dict[str, tuple[str, ...]]:
        patterns = [f"{name}/{side}/{{}}.png" for name in splits for side in ("images", "masks")]
        layout = find_layout(Path("x"), names(*patterns))
        return {name: (files.images, *files.keys) for name, files in layout.splits.items()}

    divisible = (f"{both}/images/{{key}}.png", *NUMBERS)
    assert split(both, "test") == {
        "train": divisible,
        "test": ("test/images/{key}.png", *NUMBERS),
    }
    assert split(both) == {"all": divisible}
    assert {name: keys[0] for name, keys in split(both, "train", "dev").items()} == {
        "train": "train/images/{key}.png",
        "val": "dev/images/{key}.png",
    }


def test_masks_of_segments_are_no_images() -> None:
    masks = names("s/v1/{}_label_ground-truth.png", "s/v1/{}_label_ground-truth_semantic.png")
    with pytest.raises(InputError, match="two kinds of masks"):
        find_layout(Path("x"), [*names("s/v1/{}.jpg"), *masks])
    (files,) = find_layout(Path("x"), [*names("s/v1/{}.jpg"), *masks[5:]]).splits.values()
    assert files.images.endswith("{key}.jpg") and len(files.keys) == 5


def test_cities_and_masks_of_many_kinds() -> None:
    layout = find_layout(Path("x"), CITYSCAPES)
    assert {name: len(files.keys) for name, files in layout.splits.items()} == {
        "train": 10,
        "val": 5,
    }
    assert layout.splits["val"].labels == "gtFine/val/{key}_gtFine_labelIds.png"
    assert layout.splits["val"].keys[0] == "bonn/bonn_000"
    assert layout.unpaired_images == layout.unpaired_masks == ()


def test_what_has_no_partner_is_named() -> None:
    paths = names("images/{}.jpg", "masks/{}.png")
    paths = [*paths[:-1], "masks/extra.png", "images/other.png", "notes/todo.txt"]
    layout = find_layout(Path("x"), paths)
    assert layout.unpaired_images == ("images/004.jpg", "images/other.png")
    assert layout.unpaired_masks == ("masks/extra.png",)


def test_images_in_other_folders_are_named() -> None:
    paths = names("images/{}.jpg", "masks/{}.png")
    layout = find_layout(Path("x"), [*paths, "unlabelled/7.jpg"])
    assert layout.elsewhere == ("unlabelled/7.jpg",) and layout.pairs_elsewhere == 0
    sites = [
        f"site{n}/{side}/{i}.png" for n in range(3) for side in ("images", "masks") for i in "ab"
    ]
    layout = find_layout(Path("x"), sites)
    assert len(layout.elsewhere) == 4 and layout.pairs_elsewhere > 0


def test_lists_divide_a_folder(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("".join(f"/srv/images/{n}.jpg x\n" for n in NUMBERS[:3]))
    (tmp_path / "val.txt").write_text("003\n004\nabsent\n")
    paths = ["train.txt", "val.txt", *names("images/{}.jpg", "masks/{}.png"), "images/005.jpg"]
    layout = find_layout(tmp_path, paths)
    assert layout.origin == "lists"
    assert layout.splits["train"].keys == ("000", "001", "002")
    assert layout.splits["val"].keys == ("003", "004")
    assert layout.unpaired_images == ()  # no list names the image that has no mask


def test_where_names_tell_nothing_one_file_is_looked_at(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"x/{number}.png", photo(number))
        save(tmp_path / f"y/{number}.png", mask(number))
    (files,) = find_layout(tmp_path, walk(tmp_path)).splits.values()
    assert (files.images, files.labels) == ("x/{key}.png", "y/{key}.png")


def test_walk_leaves_hidden_files_and_ends_in_circles(tmp_path: Path) -> None:
    save(tmp_path / "images/1.png", photo(1))
    save(tmp_path / ".cache/images/1.png", photo(1))
    save(tmp_path / "images/._1.png", photo(1))
    (tmp_path / "images/again").symlink_to(tmp_path)
    (tmp_path / "images/2.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "classes.txt")
    assert list(walk(tmp_path)) == ["images/1.png"]


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "images/1.png", photo(1))
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("images"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"images: Permission denied; let this user read it"):
        list(walk(tmp_path))


PART = st.sampled_from(
    ["images", "masks", "train", "val", "a", "x_mask", "000", "001", "é ü", "{k}"]
)


@given(
    st.lists(
        st.tuples(st.lists(PART, max_size=3), PART, st.sampled_from([".jpg", ".png", ".mat", ""])),
        max_size=12,
    )
)
def test_every_pair_is_of_files_that_are_there(parts: list[tuple[list[str], str, str]]) -> None:
    paths = sorted({"/".join([*folders, name + suffix]) for folders, name, suffix in parts})
    try:
        layout = find_layout(Path("nowhere"), paths)
    except InputError as error:
        assert "\n" not in str(error)
        return
    for files in layout.splits.values():
        for key in files.keys:
            assert files.image(key) in paths and files.mask(key) in paths
            assert files.image(key) != files.mask(key)
