import os
import pickle
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atrous.data import dataset as dataset_module
from atrous.data.dataset import Dataset, Split, builtin_names
from atrous.data.encodings.masks import lookup_table, to_train_ids
from atrous.data.fetch.archives import Archive
from atrous.data.search import find_split
from atrous.data.shapes import write_shapes
from atrous.errors import InputError

HEAD = """
[labels]
encoding = "index"
ignore = [9]
classes = ["sky", {{ name = "car", color = [1, 2, 3], thing = true }}]
{more}
[splits.train]
images = "images/{{key}}.png"
labels = "masks/{{key}}.png"
"""


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, "a" and "b", of classes 0 and 1, with 9 and 255 ignored."""
    (tmp_path / "dataset.toml").write_text(HEAD.format(more=""))
    mask = np.array([[0, 1, 9], [1, 0, 255]], np.uint8)
    for key in "ba":
        save(tmp_path / f"images/{key}.png", np.zeros((2, 3, 3), np.uint8))
        save(tmp_path / f"masks/{key}.png", mask)
    return tmp_path


def test_reads_images_and_train_ids(folder: Path) -> None:
    dataset = Dataset.open(folder)
    split = dataset.split("train")
    assert split.keys == ("a", "b") and [sample.key for sample in split] == ["a", "b"]
    assert dataset.name == folder.name
    assert dataset.taxonomy.classes == ("sky", "car") and dataset.taxonomy.things == {1}
    assert dataset.taxonomy.colors[1] == (1, 2, 3)
    assert split[0].image.shape == (2, 3, 3)
    assert split[0].label.tolist() == [[0, 1, 255], [1, 0, 255]]
    assert split[0].label.dtype == np.uint8


def test_map_sends_dataset_ids_to_train_ids(folder: Path) -> None:
    (folder / "dataset.toml").write_text(HEAD.format(more="map = { 7 = 1, 300 = 0 }"))
    save(folder / "masks/a.png", np.array([[7, 300, 9], [7, 7, 255]], np.uint16))
    assert Dataset.open(folder).split("train")[0].label.tolist() == [[1, 0, 255], [1, 1, 255]]


@pytest.mark.parametrize(
    "lines", ["b\n", "/SegNet/CamVid/images/b.png /SegNet/CamVid/masks/b.png\n\n", "images/b.png\n"]
)
def test_list_file_as_published(folder: Path, lines: str) -> None:
    with (folder / "dataset.toml").open("a") as file:
        file.write('list = "train.txt"\n')
    (folder / "train.txt").write_text(lines)
    assert Dataset.open(folder / "dataset.toml").split("train").keys == ("b",)


@pytest.mark.parametrize(
    "line", ["/images/a.png /masks/a.png", "/VOC/2012/images/a.png", "a", "a.png"]
)
def test_list_files_may_name_paths_from_an_inner_folder(tmp_path: Path, line: str) -> None:
    text = HEAD.format(more="").replace('"images/', '"kit/2012/images/')
    (tmp_path / "dataset.toml").write_text(f'{text}list = "train.txt"\n')
    (tmp_path / "train.txt").write_text(f"{line}\n/elsewhere/a.png\n")
    save(tmp_path / "kit/2012/images/a.png", np.zeros((2, 3, 3), np.uint8))
    save(tmp_path / "masks/a.png", np.zeros((2, 3), np.uint8))
    split = Dataset.open(tmp_path).split("train")
    assert split.keys == ("a",) and split.missing == 1


def test_builtin_camvid_reads_the_published_layout(tmp_path: Path) -> None:
    assert "camvid" in builtin_names()
    save(tmp_path / "train/0001TP_1.png", np.zeros((4, 4, 3), np.uint8))
    save(tmp_path / "trainannot/0001TP_1.png", np.full((4, 4), 11, np.uint8))
    name = "0001TP_1.png"
    (tmp_path / "train.txt").write_text(
        f"/SegNet/CamVid/train/{name} /SegNet/CamVid/trainannot/{name}\n"
    )
    dataset = Dataset.open("camvid", tmp_path)
    assert dataset.taxonomy.num_classes == 11
    assert (dataset.split("train")[0].label == 255).all()
    with pytest.raises(InputError, match="--root"):
        Dataset.open("camvid")


def change(folder: Path, fault: str) -> None:
    masks, description = folder / "masks/a.png", folder / "dataset.toml"
    match fault:
        case "unknown id":
            save(masks, np.array([[0, 1, 37], [1, 0, 40]], np.uint8))
        case "colours":
            save(masks, np.zeros((2, 3, 3), np.uint8))
        case "size":
            save(masks, np.zeros((5, 3), np.uint8))
        case "no mask":
            masks.unlink()
        case "no images":
            for path in (folder / "images").iterdir():
                path.unlink()
        case "truncated":
            masks.write_bytes(masks.read_bytes()[:-30])
        case "text":
            masks.write_text("not a picture")
        case "no key":
            description.write_text(description.read_text().replace("{key}", "x"))
        case "no classes":
            description.write_text(description.read_text().replace("classes", "klasses"))
        case "encoding":
            description.write_text(description.read_text().replace('"index"', '"xyz"'))
        case "not toml":
            description.write_text("name = ")
        case "bad map":
            description.write_text(HEAD.format(more="map = { 7 = 2 }"))
        case "bytes":
            description.write_bytes(b"\xff\xfe\x00")
        case "gone":
            description.unlink()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unknown id", r"a\.png: id 37, 40 is neither a class nor ignored"),
        ("colours", r"a\.png: .*RGB"),
        ("size", r"a\.png: 3x5, but its image a\.png is 3x2"),
        ("no mask", r"a\.png: no such file, so 'a' of split 'train' has no mask"),
        ("no images", r"no file matches"),
        ("truncated", r"a\.png"),
        ("text", r"a\.png"),
        ("no key", r"no \{key\}"),
        ("no classes", r"dataset\.toml: labels: unknown 'klasses'\. Did you mean classes\?"),
        ("encoding", r"encoding: unknown 'xyz'\. There are: binary-masks, coco-json,"),
        ("not toml", r"dataset\.toml: not TOML"),
        ("bad map", r"sends '7' to 2"),
        ("bytes", r"dataset\.toml: not UTF-8 text"),
        ("gone", r"dataset\.toml: no such file\. `atrous data doctor .+ --write` makes one"),
    ],
)
def test_each_fault_is_one_line(folder: Path, fault: str, message: str) -> None:
    change(folder, fault)
    with pytest.raises(InputError, match=message) as error:
        list(Dataset.open(folder).split("train"))
    assert "\n" not in str(error.value)


def test_unknown_split_names_those_there_are(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no split 'test'; it has train"):
        Dataset.open(folder).split("test")


@given(st.text(max_size=200))
def test_any_text_is_a_dataset_or_one_line(tmp_path_factory: pytest.TempPathFactory, text: str):
    path = tmp_path_factory.mktemp("toml") / "dataset.toml"
    path.write_text(text, "utf-8")
    try:
        Dataset.open(path)
    except InputError as error:
        assert "\n" not in str(error)


@given(
    st.dictionaries(st.integers(0, 65535), st.integers(0, 254), max_size=20),
    st.lists(st.integers(-2, 70000), max_size=40),
    st.sampled_from([-1, 255]),
)
def test_table_equals_looking_each_id_up(
    mapping: dict[int, int], ids: list[int], unknown: int
) -> None:
    table = lookup_table(mapping, [0], unknown)
    expected = [mapping.get(i, 255 if i == 0 else unknown) for i in ids]
    array = np.array(ids, np.int64).reshape(1, -1)
    if -1 in expected:
        with pytest.raises(InputError):
            to_train_ids(array, table, Path("x.png"))
    else:
        assert to_train_ids(array, table, Path("x.png")).tolist() == [expected]


def rewrite(folder: Path, old: str, new: str) -> None:
    path = folder / "dataset.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ignore = [9]", "ignore = [1]", "labels.ignore names 1, which is a class"),
        (
            '"index"\nignore = [9]',
            '"rgb"\nignore = ["#010203"]\nmap = { "#000000" = 0 }',
            "#010203",
        ),
        ('"index"\nignore = [9]', '"polygons"\nignore = ["car"]', "ignore names 'car', which is a"),
        ('"index"\nignore = [9]', '"rgb"\nmap = { "#010203" = 0 }', "stands for two classes"),
        ("ignore = [9]", "ignore = [-2]", "-2 is no id"),
        ("ignore = [9]", 'ignore = ["#000000"]', "'#000000' is no id"),
        ("ignore = [9]", "ignored = [9]", r"labels: unknown 'ignored'. Did you mean ignore\?"),
        (
            "ignore = [9]",
            'background = "sky"',
            "labels: background goes with coco-json or .*, not with index",
        ),
        (
            "ignore = [9]",
            'unknown = "near"',
            r"labels.unknown: unknown 'near'. Did you mean nearest\?",
        ),
        ('"index"\nignore = [9]', '"binary-masks"', r"splits.train: labels has no \{class\} in it"),
        (
            "ignore = [9]",
            "foreground = 2",
            "labels: foreground goes with binary-masks, not with index",
        ),
        (
            '"index"\nignore = [9]',
            '"binary-masks"\nforeground = 0',
            "labels.foreground: expected int >= 1",
        ),
        ("[splits.train]", "[splits.train]\nvalid = 'x.png'", r"train: valid has no \{key\} in it"),
        ("ignore = [9]", "divisor = 1", "labels.divisor: expected int >= 2"),
        ("ignore = [9]", f"divisor = {10**20}", "labels.divisor: expected int <= 65536"),
        ("ignore = [9]", "divisor = true", "labels.divisor: expected int .*, got bool"),
        ("ignore = [9]", "map = { 2 = true }", r"labels.map\[.*\]: expected int, got bool"),
        ("ignore = [9]", "map = { 2 = 255.0 }", r"labels.map\[.*\]: expected int, got float"),
        ("ignore = [9]", "map = { 2 = 0, 02 = 1 }", "'02' is no id"),
        ("ignore = [9]", "map = [[2, 0]]", "labels.map: expected object, got array"),
        ('"index"', '"mat"\nvariable = ["S"]', "labels.variable: expected str, got array"),
        (
            '"index"\nignore = [9]',
            '"rgb"\nmap = { "#000000" = 0 }\nignore = [0, 0, 0]',
            "0 is no colour",
        ),
        ("ignore = [9]", "map = { x = 1 }", "'x' is no id"),
        ("ignore = [9]", "map = { 70000 = 1 }", "'70000' is no id"),
        ("ignore = [9]", 'map = { 1 = "sky" }', r"labels.map\[.*\]: expected int, got str"),
        ("ignore = [9]", "map = 3", "labels.map: expected object, got int"),
        ('"index"', '"rgb"', "class 'sky' has no color"),
        ('"index"', '["index"]', "labels.encoding: expected str, got array"),
        ("[1, 2, 3]", "[1, 2, 300]", "is no colour"),
        ("[1, 2, 3]", '"#12345"', "is no colour"),
        ("[1, 2, 3]", '[1, 2, 3], group = "things"', "1 groups for 2 classes"),
        ('"sky", {', "7, {", r"labels.classes\[0\]: expected str . object, got int"),
        ('"sky", {', '["#ff0000"], {', r"labels.classes\[0\]: expected str . object, got array"),
        ('"sky", {', '"", {', "the name of a class is '', where printable"),
        ('"sky", {', '"s\\u001bky", {', "the name of a class is .*, where printable"),
        ('"sky", {', "{ thing = true }, {", r"labels.classes\[0\]: name is missing"),
        ("[1, 2, 3]", "5", r"labels.classes\[1\].color: expected str . array . null, got int"),
        ("[1, 2, 3]", "[1, 2, true]", r"classes\[1\].color\[2\]: expected int, got bool"),
        (
            "thing = true",
            "things = true",
            r"labels.classes\[1\]: unknown 'things'. Did you mean thing\?",
        ),
        ("thing = true", "thing = 1", r"labels.classes\[1\].thing: expected bool, got int"),
        (
            "thing = true",
            "group = ['stuff']",
            r"labels.classes\[1\].group: expected str . null, got array",
        ),
        ("classes = [", "classes = 3 # [", "labels.classes: expected str . array, got int"),
        ("classes = [", "classes = {} # [", "labels.classes: expected str . array, got object"),
        (
            "[labels]",
            "license = 'MIT'\n[labels]",
            r"toml: unknown 'license'. Did you mean licence\?",
        ),
        ("[labels]", "licence = ['MIT']\n[labels]", "licence: expected str, got array"),
        ("[labels]", "name = 1.5\n[labels]", "name: expected str, got float"),
        ("[labels]", "source = 1979-05-27\n[labels]", "source: expected str, got date"),
        ("[labels]", "archives = 7\n[labels]", "archives: expected array, got int"),
        ("[labels]", "[[labels]]", "labels: expected object, got array"),
        ("[splits.train]", "[[splits.train]]", "splits.train: expected object, got array"),
        ("[splits.train]", '[splits."tr\\u001bain"]', "the name of a split is"),
        ('"sky", {', '"car", {', "named twice"),
        ("classes = [", 'classes = "nowhere" # [', "no built-in set. There are: ade20k"),
        ('labels = "masks/{key}.png"', 'valid = "{key}"', "splits.train: labels is missing"),
        ('labels = "masks/{key}.png"', "labels = 7", "splits.train: labels: expected str, got int"),
        (
            "[splits.train]",
            "[splits.train]\nlists = 'x'",
            r"splits.train: unknown 'lists'. Did you mean list\?",
        ),
        ("images/{key}.png", "{key}/{key}.png", "more than once"),
        ("images/{key}.png", "{key}\\n.png", "where a path"),
        ("images/{key}.png", "i" * 300 + "{key}", "train: images: expected str of length <= 255"),
        ("[splits.train]", "[split.train]", r"unknown 'split'. Did you mean splits\?"),
        (
            "[splits.train]",
            "archives = 7\n[splits.train]",
            "labels: unknown 'archives'. There are: encoding, ",
        ),
        ("ignore = [9]", "ignore = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)
def test_each_fault_of_a_description_is_one_line(
    folder: Path, old: str, new: str, message: str
) -> None:
    rewrite(folder, old, new)
    with pytest.raises(InputError, match=message) as error:
        Dataset.open(folder)
    assert str(error.value).startswith(f"{folder}") and str(error.value).isprintable()
    assert len(str(error.value)) < len(str(folder)) + 300


FIELDS = {
    **dict.fromkeys(["name", "licence", "source", "labels", "splits", "archives"], ()),
    **dict.fromkeys(["encoding", "classes", "ignore", "map", "unknown", "divisor"], ("labels",)),
    **dict.fromkeys(["variable", "background", "foreground"], ("labels",)),
    **dict.fromkeys(["train", "images"], ("splits",)),
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("encoding", ["index", "rgb", "mat", "polygons", "binary-masks"])
def test_any_value_of_any_field_is_read_or_refused(folder: Path, field: str, encoding: str) -> None:
    values = ["0", "-1", "1.5", "nan", "true", '""', '"\\u001b"', "[]", "[[]]", "[{}]", "{}"]
    values += ["{ a = 1 }", "{ 0 = {} }", "1979-05-27", f"{10**30}", f'"{"x" * 5000}"', "[0, [0]]"]
    for value in values:
        table = tomllib.loads(HEAD.format(more="").replace('"index"', f'"{encoding}"'))
        place = table
        for part in FIELDS[field]:
            place = place[part]
        place[field] = tomllib.loads(f"x = {value}")["x"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tomllib, "loads", lambda _, table=table: table)
            try:
                Dataset.open(folder)
            except InputError as error:
                text = str(error).removeprefix(str(folder))
                assert text.isprintable() and len(text) < 400


@pytest.mark.parametrize("index", [slice(0, 2), "a", 0.0])
def test_samples_are_counted_by_integers(folder: Path, index: Any) -> None:
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        Dataset.open(folder).split("train")[index]


def test_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder; --root"):
        Dataset.open("camvid", tmp_path / "nowhere").split("val")


def test_folders_behind_links_are_read_and_circles_are_not(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        save(
            tmp_path / "far" / part / "1.png",
            np.zeros((2, 3), np.uint8),
        )
        (tmp_path / part).mkdir()
        (tmp_path / part / "ulm").symlink_to(tmp_path / "far" / part)
    (tmp_path / "far/images/again").symlink_to(tmp_path / "images")
    (tmp_path / "dataset.toml").write_text(HEAD.format(more=""))
    split = Dataset.open(tmp_path).split("train")
    assert split.keys == ("ulm/1",) and split[0].key == "ulm/1"


def test_folders_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    dataset = Dataset.open(folder)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="images: Permission"):
        patch.setattr(os, "scandir", refuse)
        dataset.split("train")
    stat = Path.stat
    monkeypatch.setattr(
        Path, "stat", lambda p, **k: refuse(p) if p.parent.name == "masks" else stat(p, **k)
    )
    with pytest.raises(InputError, match=r"masks/a\.png: Permission denied"):
        dataset.split("train")


def test_classes_and_groups_of_a_built_in_set(folder: Path) -> None:
    rewrite(folder, "ignore = [9]\nclasses = [", 'classes = "camvid" # [')
    assert Dataset.open(folder).taxonomy.classes == Dataset.open("camvid", "x").taxonomy.classes
    rewrite(folder, '"camvid" # [', '[{ name = "road", group = "stuff/ground" }] # [')
    assert Dataset.open(folder).taxonomy.groups == ("stuff/ground",)


def test_archives_are_part_of_the_description(folder: Path) -> None:
    with (folder / "dataset.toml").open("a") as file:
        file.write('[[archives]]\nurl = "https://x/a.zip"\nsize = 5\n')
    description = Dataset.open(folder).description
    assert description.archives == (Archive(url="https://x/a.zip", size=5),)


def test_keys_lead_through_folders(tmp_path: Path) -> None:
    """As in Cityscapes: a folder for each city, and a suffix of its own on images and masks."""
    (tmp_path / "dataset.toml").write_text(
        HEAD.format(more="")
        .replace("images/{key}.png", "left/train/{key}_left.png")
        .replace("masks/{key}.png", "fine/train/{key}_fine.png")
    )
    for key in ("ulm/1", "ulm/2", "bonn/1", "top", "[a]/b c"):
        save(tmp_path / f"left/train/{key}_left.png", np.zeros((2, 3, 3), np.uint8))
        save(tmp_path / f"fine/train/{key}_fine.png", np.zeros((2, 3), np.uint8))
    for other in ("ulm/1_right.png", "ulm/._1_left.png", "_left.png"):
        save(tmp_path / "left/train" / other, np.zeros((2, 3, 3), np.uint8))
    split = Dataset.open(tmp_path).split("train")
    assert split.keys == ("[a]/b c", "bonn/1", "top", "ulm/1", "ulm/2")
    assert [sample.key for sample in split] == list(split.keys)
    rewrite(tmp_path, "left/train/{key}", f"{tmp_path}/left/train/ulm/{{key}}")
    rewrite(tmp_path, "fine/train/{key}", "fine/train/ulm/{key}")
    assert Dataset.open(tmp_path).split("train").keys == ("1", "2")


def test_the_files_of_tiffs_are_searched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To tell what a fourth band is, the split is searched for before it is asked for."""
    (tmp_path / "dataset.toml").write_text(HEAD.format(more="").replace("{key}.png", "{key}.tif"))
    save(tmp_path / "images/a.tif", np.zeros((2, 3, 3), np.uint8))
    save(tmp_path / "masks/a.tif", np.zeros((2, 3), np.uint8))
    searched = []

    def find(name: str, *arguments: Any) -> Split:
        searched.append(name)
        return find_split(name, *arguments)

    monkeypatch.setattr(dataset_module, "find_split", find)
    dataset = Dataset.open(tmp_path)
    assert dataset.split("train").keys == ("a",) and searched == ["train"]
    save(tmp_path / "images/b.tif", np.zeros((2, 3, 3), np.uint8))
    save(tmp_path / "masks/b.tif", np.zeros((2, 3), np.uint8))
    assert dataset.split("train").keys == ("a", "b")  # asked again, it is searched for again


def test_a_key_may_stand_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text(
        HEAD.format(more="")
        .replace("images/{key}.png", "case_{key}/image.png")
        .replace("masks/{key}.png", "case_{key}/mask_{key}.png")
    )
    save(tmp_path / "case_7/image.png", np.zeros((2, 3, 3), np.uint8))
    save(tmp_path / "case_7/mask_7.png", np.zeros((2, 3), np.uint8))
    assert [sample.key for sample in Dataset.open(tmp_path).split("train")] == ["7"]


def test_partial_copy_leaves_out_what_is_not_there(folder: Path) -> None:
    with (folder / "dataset.toml").open("a") as file:
        file.write('list = "train.txt"\n')
    lines = [
        "gone",
        "/far/images/b.png 1",
        "b",
        "images/other.png",
        "b" * 5000,
        "/" * 9999,
        "a.png",
    ]
    (folder / "train.txt").write_text("\ufeff" + "\r\n".join(lines), "utf-8")
    split = Dataset.open(folder).split("train")
    assert split.keys == ("b", "a") and split.missing == 4
    (folder / "train.txt").write_text("x\ny")
    with pytest.raises(InputError, match=r"train\.txt: lists no image .*\(2 are not\)"):
        Dataset.open(folder).split("train")
    (folder / "train.txt").write_text("\n")
    with pytest.raises(InputError, match=r"train\.txt: lists no image, so split 'train' is empty"):
        Dataset.open(folder).split("train")
    (folder / "train.txt").unlink()
    with pytest.raises(InputError, match=r"train\.txt: no such file"):
        Dataset.open(folder).split("train")
    (folder / "train.txt").mkdir()
    with pytest.raises(InputError, match=r"train\.txt: no file, but a folder"):
        Dataset.open(folder).split("train")


def test_listed_names_may_hold_spaces(folder: Path) -> None:
    with (folder / "dataset.toml").open("a") as file:
        file.write('list = "train.txt"\n')
    for side in ("images", "masks"):
        (folder / side / "a.png").rename(folder / side / "my photo.png")
    (folder / "train.txt").write_text("my photo\nimages/my photo.png\nb.png b\n")
    assert Dataset.open(folder).split("train").keys == ("my photo", "b")


def test_label_needs_no_image(folder: Path) -> None:
    split = pickle.loads(pickle.dumps(Dataset.open(folder).split("train")))
    (folder / "images/a.png").write_bytes(b"damaged")
    assert split.label(0).tolist() == [[0, 1, 255], [1, 0, 255]]
    with pytest.raises(InputError, match=r"images/a\.png"):
        split[0]


def test_shapes_are_the_same_for_a_seed_and_have_every_class(tmp_path: Path) -> None:
    first = Dataset.open(write_shapes(tmp_path / "a", 6, 2)).split("train")
    again = Dataset.open(write_shapes(tmp_path / "b", 6, 2)).split("train")
    other = Dataset.open(write_shapes(tmp_path / "c", 6, 2, seed=1)).split("train")
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].image, other[0].image)
    assert set(np.unique([sample.label for sample in first])) == {0, 1, 2, 3, 255}
