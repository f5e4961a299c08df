"""List files as strangers write them: the doctor and the data set read the same keys."""

import json
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from describing import few
from doctor_folders import mask, photo, save
from hypothesis import given
from hypothesis import strategies as st

from atrous.data.dataset import Dataset
from atrous.data.lists import Place
from atrous.doctor import examine
from atrous.doctor.layout.files import Layout
from atrous.doctor.layout.pairing import find_layout
from atrous.errors import InputError
from atrous.files import walk

SPACED = [f"im {i}" for i in range(8)]
PLAIN = [f"im_{i}" for i in range(8)]
ACCENTED = [f"straße {i} é" for i in range(8)]
TOML = '[labels]\nencoding = "index"\nclasses = ["a", "b"]\n'


def touch(folder: Path, keys: Iterable[str], image: str = "images/{}.jpg") -> Path:
    """Empty files of images and masks: names are all that is read of them here."""
    for key in keys:
        for path in (folder / image.format(key), folder / f"masks/{key}.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


def layout_of(folder: Path) -> Layout:
    return find_layout(folder, walk(folder))


def keys_of(layout: Layout) -> dict[str, tuple[str, ...]]:
    return {name: files.keys for name, files in layout.splits.items()}


def read_by_dataset(folder: Path, path: str) -> tuple[tuple[str, ...], int]:
    """The keys of a split whose `list` is the file as it is, and how many entries are missing."""
    (folder / "dataset.toml").write_text(
        f'{TOML}[splits.train]\nimages = "images/{{key}}.jpg"\nlabels = "masks/{{key}}.png"\n'
        f'list = "{path}"\n'
    )
    split = Dataset.open(folder).split("train")
    return split.keys, split.missing


LINES = {
    "keys": "{}",
    "names": "{}.jpg",
    "names of masks": "{}.png",
    "paths": "images/{}.jpg",
    "paths of masks": "masks/{}.png",
    "here": "./images/{}.jpg",
    "above": "../set/images/{}.jpg",
    "backslashes": r"images\{}.jpg",
    "drive": r"C:\Users\J. Doe, jr\set\images\{}.jpg",
    "share": r"\\server\share\images\{}.jpg",
    "absolute": "/home/me/set/images/{}.jpg",
    "file address": "file:///home/me/set/images/{}.jpg",
    "address": "https://example.org/set/images/{}.jpg",
    "bucket": "s3://bucket/images/{}.jpg",
    "other folder": "/data/JPEGImages/{}.jpg",
    "other suffix": "images/{}.JPG",
    "space columns": "images/{0}.jpg masks/{0}.png",
    "tab columns": "images/{0}.jpg\tmasks/{0}.png",
    "comma columns": "images/{0}.jpg,masks/{0}.png",
    "comma and space": "images/{0}.jpg, masks/{0}.png",
    "semicolon columns": "{0}.jpg;{0}.png",
    "masks first": "masks/{0}.png,images/{0}.jpg",
    "quoted": '"images/{0}.jpg","masks/{0}.png"',
    "quoted alone": '"images/{0}.jpg"',
    "quoted with spaces": '"images/{0}.jpg" "masks/{0}.png"',
    "row numbers": "7,images/{0}.jpg,masks/{0}.png",
    "keys twice": "{0} {0}",
    "labels": "{}.jpg 1",
    "labels of keys": "{} 1 -1 3",
    "trailing space": "images/{}.jpg  ",
    "absolute columns": r"D:\set\images\{0}.jpg D:\set\masks\{0}.png",
}


@pytest.mark.parametrize("keys", [SPACED, PLAIN, ACCENTED], ids=["spaces", "plain", "accents"])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_each_way_to_write_a_line(tmp_path: Path, line: str, keys: list[str]) -> None:
    touch(tmp_path, keys)
    (tmp_path / "train.txt").write_text("".join(f"{line.format(k)}\n" for k in keys[:6]), "utf-8")
    (tmp_path / "val.txt").write_text("".join(f"{line.format(k)}\n" for k in keys[6:]), "utf-8")
    layout = layout_of(tmp_path)
    assert keys_of(layout) == {"train": tuple(keys[:6]), "val": tuple(keys[6:])}
    assert layout.origin == "lists" and layout.missing == layout.crossed == ()
    assert layout.unused_lists == layout.other_lists == layout.guesses == layout.unlisted == ()
    assert read_by_dataset(tmp_path, "train.txt") == (tuple(keys[:6]), 0)


def test_the_header_tells_the_column_also_after_an_empty_one(tmp_path: Path) -> None:
    """Row numbers, as pandas writes them, are keys too where images are numbered."""
    touch(tmp_path, map(str, range(8)))
    for name, keys in (("train", range(2, 8)), ("val", range(2))):
        rows = [f"{row},{key}\n" for row, key in enumerate(keys)]
        (tmp_path / f"{name}.csv").write_text("".join([",image_id\n", *rows]))
    assert keys_of(layout_of(tmp_path)) == {"train": tuple("234567"), "val": tuple("01")}
    assert read_by_dataset(tmp_path, "train.csv") == (tuple("234567"), 0)


def test_a_list_in_json(tmp_path: Path) -> None:
    touch(tmp_path, PLAIN)
    for name, keys in (("train", PLAIN[:6]), ("val", PLAIN[6:])):
        (tmp_path / f"{name}.txt").write_text(json.dumps([f"images/{key}.jpg" for key in keys]))
    assert keys_of(layout_of(tmp_path)) == {"train": tuple(PLAIN[:6]), "val": tuple(PLAIN[6:])}
    assert read_by_dataset(tmp_path, "val.txt") == (tuple(PLAIN[6:]), 0)


def test_the_list_of_masks_counts_more_than_that_of_boxes(tmp_path: Path) -> None:
    touch(tmp_path, PLAIN)
    for folder, count in (("Main", 2), ("Layout", 1), ("Segmentation", 6)):
        (tmp_path / "ImageSets" / folder).mkdir(parents=True)
        (tmp_path / "ImageSets" / folder / "train.txt").write_text("\n".join(PLAIN[:count]))
    assert keys_of(layout_of(tmp_path)) == {"train": tuple(PLAIN[:6]), "val": tuple(PLAIN[6:])}


@pytest.mark.parametrize("name", ["dataset.csv", "metadata.csv", "meta.tsv"])
def test_a_table_with_a_column_of_splits_is_named(tmp_path: Path, name: str) -> None:
    touch(tmp_path, PLAIN)
    rows = [f"{key},{'train' if i else 'val'}\n" for i, key in enumerate(PLAIN)]
    (tmp_path / name).write_text("".join(["image,Split\n", *rows]))
    layout, line = layout_of(tmp_path), f"{name}: names splits in a way that is not read"
    assert layout.unused_lists == (line,) and layout.other_lists == ()
    (tmp_path / "images").rename(tmp_path / "train_images")
    (tmp_path / "masks").rename(tmp_path / "train_masks")
    layout = layout_of(tmp_path)  # folders tell the splits
    assert layout.unused_lists == () and layout.other_lists == (line,)


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["unix", "windows", "mac"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, newline: str) -> None:
    touch(tmp_path, ACCENTED)
    for name, keys in (("train", ACCENTED[:6]), ("val", ACCENTED[6:])):
        text = newline.join(rf"images\{key}.jpg" for key in keys)
        (tmp_path / f"{name}.txt").write_bytes(text.encode(encoding))
    assert keys_of(layout_of(tmp_path)) == {
        "train": tuple(ACCENTED[:6]),
        "val": tuple(ACCENTED[6:]),
    }
    assert read_by_dataset(tmp_path, "train.txt") == (tuple(ACCENTED[:6]), 0)


def test_big_endian_with_a_mark(tmp_path: Path) -> None:
    touch(tmp_path, ACCENTED)
    (tmp_path / "train.txt").write_bytes(b"\xfe\xff" + "\n".join(ACCENTED).encode("utf-16-be"))
    assert read_by_dataset(tmp_path, "train.txt") == (tuple(ACCENTED), 0)


@pytest.mark.parametrize(
    "head", ["image,mask", "Image,Label", "filename;mask", "image_path\tmask_path", ",img,mask"]
)
def test_headers_name_the_column(tmp_path: Path, head: str) -> None:
    """Row numbers that are keys of images, too, are no entries."""
    keys = [str(i) for i in range(8)]
    touch(tmp_path, keys)
    mark = next(c for c in ",;\t" if c in head)
    for name, part in (("train", keys[:6]), ("val", keys[6:])):
        rows = [mark.join((f"images/{key}.jpg", f"masks/{key}.png")) for key in part]
        if head.startswith(mark):
            rows = [f"{number}{mark}{row}" for number, row in enumerate(rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join([head, *rows]) + "\n")
    layout = layout_of(tmp_path)
    assert keys_of(layout) == {"train": tuple(keys[:6]), "val": tuple(keys[6:])}
    assert layout.missing == ()
    assert read_by_dataset(tmp_path, "val.csv") == (tuple(keys[6:]), 0)


@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_composed_and_decomposed_letters_are_one(tmp_path: Path, listed: str) -> None:
    stored = "NFD" if listed == "NFC" else "NFC"
    keys = [unicodedata.normalize(stored, key) for key in ("é 1", "ü 2", "ñ 3")]
    touch(tmp_path, keys)
    text = "\n".join(unicodedata.normalize(listed, key) for key in keys)
    (tmp_path / "train.txt").write_text(text, "utf-8")
    assert keys_of(layout_of(tmp_path))["train"] == tuple(keys)
    assert read_by_dataset(tmp_path, "train.txt") == (tuple(keys), 0)


def test_letter_case_counts_where_it_must(tmp_path: Path) -> None:
    touch(tmp_path, ["A", "a", "B"])
    (tmp_path / "train.txt").write_text("a.JPG\nA.JPG\nb.JPG\n")
    assert read_by_dataset(tmp_path, "train.txt") == (("a", "A", "B"), 0)
    (tmp_path / "train.txt").write_text("B\nIMAGES/a.JPG\n")  # either of two
    assert read_by_dataset(tmp_path, "train.txt") == (("B",), 1)


def test_comments_are_no_entries_and_names_may_look_like_them(tmp_path: Path) -> None:
    touch(tmp_path, ["#hash", "b"])
    (tmp_path / "train.txt").write_text("# two images\n#hash\n\n   \nb\n#c\n")
    assert read_by_dataset(tmp_path, "train.txt") == (("#hash", "b"), 0)


def test_no_entry_is_taken_for_another_file(tmp_path: Path) -> None:
    """Images that are not here, beside some whose names begin or end as theirs."""
    touch(tmp_path, ["photo", "x", "1", "sub/2"])
    gone = ["photo 2", "photo (2)", "x,1", "y 1", "masks2/x.png", "sub/1"]
    (tmp_path / "train.txt").write_text("\n".join(["photo", "x", *gone]) + "\n")
    (tmp_path / "masks2").mkdir()
    keys, missing = read_by_dataset(tmp_path, "train.txt")
    assert keys == ("photo", "x")
    assert missing == len(gone)


def test_a_name_in_several_folders_is_none_of_them(tmp_path: Path) -> None:
    touch(tmp_path, ["north/0", "south/0", "south/1"])
    (tmp_path / "train.txt").write_text("0\n1\nsouth/0\n")
    assert read_by_dataset(tmp_path, "train.txt") == (("south/1", "south/0"), 1)
    layout = layout_of(tmp_path)
    assert layout.missing == ("train.txt: 0",)


def test_a_path_in_another_folder_that_is_there(tmp_path: Path) -> None:
    """Of two scenes with the same names, the list names the one that is not described."""
    for scene in ("a", "b"):
        touch(tmp_path / scene, ["0", "1"])
    (tmp_path / "train.txt").write_text("b/images/0.jpg\nb/images/1\na/images/1.jpg\n")
    (tmp_path / "dataset.toml").write_text(
        f'{TOML}[splits.train]\nimages = "a/images/{{key}}.jpg"\nlabels = "a/masks/{{key}}.png"\n'
        'list = "train.txt"\n'
    )
    split = Dataset.open(tmp_path).split("train")
    assert split.keys == ("1",) and split.missing == 2


def test_pairs_of_a_list_that_are_not_those_of_names(tmp_path: Path) -> None:
    touch(tmp_path, PLAIN)
    rows = [f"images/{a}.jpg masks/{b}.png\n" for a, b in pairwise(PLAIN)]
    (tmp_path / "train.txt").write_text("".join(rows[:2]) + "images/im_5.jpg masks/im_5.png\n")
    layout = layout_of(tmp_path)
    assert layout.crossed == tuple(f"train.txt: {row.strip()}" for row in rows[:2])
    assert keys_of(layout) == {"train": ("im_5",), "val": ("im_2", "im_3", "im_4", *PLAIN[6:])}
    with pytest.raises(
        InputError, match=r"train\.txt: 'images/im_0.* names the mask of another im"
    ):
        read_by_dataset(tmp_path, "train.txt")


def test_captions_and_labels_are_no_lists(tmp_path: Path) -> None:
    keys = [f"train_{i}" for i in range(12)]
    touch(tmp_path, keys)
    for key in keys:
        (tmp_path / f"images/{key}.txt").write_text("a road and a tree")
    layout = layout_of(tmp_path)
    assert layout.unused_lists == layout.other_lists == () and layout.origin == "none"


@pytest.mark.parametrize(
    ("lists", "expected", "said"),
    [
        (
            {"valid": [6, 7]},
            {"train": range(6), "val": [6, 7]},
            "6 pairs that are not in valid.txt",
        ),
        (
            {"val": [0, 7]},
            {"train": range(1, 7), "val": [0, 7]},
            "6 pairs that are not in val.txt",
        ),
        (
            {"test": [0]},
            {"train": range(1, 8), "test": [0]},
            "7 pairs that are not in test.txt",
        ),
        (
            {"train": range(6)},
            {"train": range(6), "val": [6, 7]},
            "2 pairs that are not in train.txt",
        ),
        ({"train": range(8)}, {"train": range(8)}, ""),
        ({"trainval": range(6)}, {"train": range(6)}, "trainval.txt is divided into train and val"),
        ({"val": [1], "test": [0]}, {"train": range(2, 8), "val": [1], "test": [0]}, "6 pairs"),
        ({"trainval": range(7), "test": [7]}, {"train": range(7), "test": [7]}, "divided into"),
        ({"trainval": range(8), "train": range(5)}, {"train": range(5), "val": [5, 6, 7]}, "3 pa"),
        ({"trainval": range(8), "val": [3]}, {"train": [0, 1, 2, 4, 5, 6, 7], "val": [3]}, "7 pa"),
    ],
)
def test_what_lists_leave_open_is_completed_and_said(
    tmp_path: Path, lists: dict, expected: dict, said: str
) -> None:
    touch(tmp_path, PLAIN)
    for name, numbers in lists.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{PLAIN[i]}.jpg\n" for i in numbers))
    layout = layout_of(tmp_path)
    assert keys_of(layout) == {n: tuple(PLAIN[i] for i in part) for n, part in expected.items()}
    assert said in "".join(layout.guesses) and len(layout.guesses) == bool(said)
    assert layout.unused_lists == ()


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("training.txt", "validation.txt"),
        ("train.txt", "dev.txt"),
        ("train_list.txt", "val_list.txt"),
        ("train_ids.txt", "valid_ids.txt"),
        ("TrainImages.txt", "ValImages.txt"),
        ("list_train.lst", "list_val.lst"),
        ("trainset.csv", "valset.csv"),
        ("train2017.txt", "val2017.txt"),
        ("mydata_train.txt", "mydata_val.txt"),
        ("splits/train.txt", "splits/val.txt"),
        ("ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt"),
        ("Train.TXT", "Val.TXT"),
        ("train_file_list.txt", "val_file_list.txt"),
        ("training_set.list", "validation_set.list"),
    ],
)
def test_names_of_lists(tmp_path: Path, train: str, val: str) -> None:
    touch(tmp_path, PLAIN)
    for path, keys in ((train, PLAIN[:6]), (val, PLAIN[6:])):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("\n".join(keys))
    assert keys_of(layout_of(tmp_path)) == {"train": tuple(PLAIN[:6]), "val": tuple(PLAIN[6:])}


def test_what_a_list_lacks_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, SPACED)
    (tmp_path / "images/alone.jpg").touch()
    (tmp_path / "train.txt").write_text("\n".join([*SPACED[:6], "gone 1", "alone", "gone 2"]))
    (tmp_path / "val.txt").write_text("\n".join(SPACED[6:7]))
    layout = layout_of(tmp_path)
    assert layout.missing == ("train.txt: gone 1", "train.txt: gone 2")
    assert layout.unpaired_images == ("images/alone.jpg",)
    assert layout.unlisted == ("images/im 7.jpg",)


def test_lists_that_do_not_count_are_named_with_the_reason(tmp_path: Path) -> None:
    touch(tmp_path, PLAIN)
    (tmp_path / "val.txt").write_text("nothing\nof\nthis\n")
    (tmp_path / "test.txt").write_text("\n")
    (tmp_path / "splits.json").write_text('{"train": ["im_0"]}')
    layout = layout_of(tmp_path)
    assert layout.origin == "none" and [*layout.splits] == ["all"]
    assert layout.unused_lists == (
        "splits.json: names splits in a way that is not read",
        "val.txt: 0 of its 3 entries are names of pairs",
        "test.txt: is empty",
    )
    (tmp_path / "val.txt").write_text("\n".join(PLAIN))
    assert "val.txt: leaves no pair to train on" in layout_of(tmp_path).unused_lists
    (tmp_path / "val.txt").write_text("im_0\n")
    (tmp_path / "fold1_val.txt").write_text("im_1\n")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/val.txt").write_text("im_2\ngone\n")
    assert layout_of(tmp_path).other_lists == ("old/val.txt: val.txt counts",)
    (tmp_path / "train_fold1.txt").write_text("im_1\n")
    (tmp_path / "train_fold2.txt").write_text("im_2\n")
    assert [line for line in layout_of(tmp_path).other_lists if "several" in line] == [
        "train_fold1.txt: one of several lists of train",
        "train_fold2.txt: one of several lists of train",
    ]


def test_a_list_of_images_without_masks_is_named(tmp_path: Path) -> None:
    touch(tmp_path, PLAIN)
    for key in ("9", "10"):
        (tmp_path / f"images/{key}.jpg").touch()
    (tmp_path / "test.txt").write_text("9.jpg\n10.jpg\n\x1b[31m\n")
    layout = layout_of(tmp_path)
    assert layout.other_lists == ("test.txt: 2 of its images are in no pair",)
    assert layout.origin == "none"
    (tmp_path / "train.txt").write_text("\n".join(PLAIN) + "\n\x1b[31m")
    assert layout_of(tmp_path).missing == ("train.txt: ?[31m",)


def test_lists_within_the_folders_of_splits(tmp_path: Path) -> None:
    """train/ and test/ are folders, and a list takes val out of train/."""
    for split, keys in (("train", PLAIN[:6]), ("test", PLAIN[6:])):
        touch(tmp_path / split, keys)
    (tmp_path / "val.txt").write_text("\n".join(PLAIN[4:6]))
    layout = layout_of(tmp_path)
    assert keys_of(layout) == {
        "train": tuple(PLAIN[:4]),
        "val": tuple(PLAIN[4:6]),
        "test": tuple(PLAIN[6:]),
    }


UNLISTABLE = ["tab\there", "line\nbreak", "bell\a", "\u202ereversed"]
ODD = [
    "a b c",
    "100% sure",
    "[1] (copy)",
    "straße_äöü",
    "写真 1",
    "写真\u30002",
    "dots.in.the.name",
]
ODD += ["-dash", "#hash", "it's", "a,b", "a;b", "{key}", "x+y=z", "emoji😀", "UPPER", "trailing "]
ODD += ["name_mask_x", "img_label", "e\u0301 combining", "é", "e\u0301", "a*b", "q?r", " leading"]
ODD += ['"quoted"', "shot at 3\u202fPM", "nbsp\u00a0here", "👨\u200d👩\u200d👧", "a\\b", "x.jpg"]
ODD += ["x", "x.jpg y", "C:\\z", "# x", "1", "1 1", *UNLISTABLE]


@pytest.mark.parametrize("image", ["images/{}.jpg", "{}.jpg"])
def test_every_name_makes_the_round_or_is_named(tmp_path: Path, image: str) -> None:
    truth = {}
    for number, key in enumerate(ODD):
        truth[key] = mask(number, range(3), (40, 40))
        save(tmp_path / image.format(key), photo(number, (40, 40)), quality=95)
        save(tmp_path / f"masks/{key}.png", truth[key])
    diagnosis = examine(tmp_path)
    assert diagnosis.seed is not None
    diagnosis.write()
    dataset = Dataset.open(tmp_path)
    read = {}
    for name in ("train", "val"):
        split = dataset.split(name)
        assert split.missing == 0
        read |= {key: split.label(i) for i, key in enumerate(split.keys)}
    said = {*UNLISTABLE} if "/" in image else {*UNLISTABLE, "img_label"}  # it says: a mask
    assert {*read} == {*ODD} - said
    assert [*diagnosis.scan.layout.unpaired_masks] == ["masks/img_label.png"][: "/" not in image]
    assert all(np.array_equal(label, truth[key]) for key, label in read.items())
    assert len(diagnosis.scan.layout.odd_names) == 2 * len(UNLISTABLE)


@few
@given(st.lists(st.text(max_size=20), max_size=6), st.binary(max_size=60))
def test_any_list_is_read(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], more: bytes
) -> None:
    folder = touch(tmp_path_factory.mktemp("list"), ["a", "b c"])
    text = "\n".join(lines).encode("utf-8", "replace") + more
    (folder / "train.txt").write_bytes(text)
    try:
        keys, _ = read_by_dataset(folder, "train.txt")
        assert {*keys} <= {"a", "b c"}
    except InputError as error:
        assert "\n" not in str(error)
    assert {key for files in layout_of(folder).splits.values() for key in files.keys} == {
        "a",
        "b c",
    }


def test_entries_are_read_against_the_keys_alone() -> None:
    place = Place(Path("nowhere"), "img/{key}.jpg", "", {"a", "b"}.__contains__, lambda: ["a", "b"])
    named = place.named(["/x/img/a.jpg", "b 1", "c"])
    assert named.keys == {"a": "/x/img/a.jpg"} and named.missing == ["b 1", "c"]
