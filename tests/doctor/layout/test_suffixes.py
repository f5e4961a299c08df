"""Images and masks of several suffixes are read as one split, wherever they are not ambiguous."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from doctor_folders import mask, photo, save

from atrous.data.dataset import Dataset
from atrous.data.shards.pack import pack
from atrous.doctor import Diagnosis, examine
from atrous.errors import InputError

COUNT = 8
SIZE = (40, 40)


def write(folder: Path, image: Callable[[int], str], label: Callable[[int], str]) -> Path:
    for number in range(COUNT):
        save(folder / image(number), photo(number, SIZE))
        save(folder / label(number), mask(number, range(3), SIZE))
    return folder


def check(folder: Path, count: int = COUNT) -> Diagnosis:
    """Examine a folder, write its dataset.toml and compare every label with the truth."""
    diagnosis = examine(folder)
    diagnosis.write()
    dataset = Dataset.open(folder)
    splits = [dataset.split(name) for name in ("train", "val")]
    samples = [sample for split in splits for sample in split]
    assert len({sample.key for sample in samples}) == count
    for sample in samples:
        number = int(sample.key.split("/")[-1])
        assert np.array_equal(sample.label, mask(number, range(3), SIZE))
    return diagnosis


def cycle(pattern: str, *suffixes: str) -> Callable[[int], str]:
    return lambda number: pattern.format(number, suffixes[number % len(suffixes)])


@pytest.mark.parametrize(
    ("image", "label", "images", "labels"),
    [
        (
            cycle("images/{}.{}", "png", "jpg", "JPG", "webp"),
            "masks/{}.png",
            "images/{key}.{JPG,jpg,png,webp}",
            "masks/{key}.png",
        ),
        (
            "images/{}.png",
            cycle("masks/{}.{}", "png", "tif", "bmp"),
            "images/{key}.png",
            "masks/{key}.{bmp,png,tif}",
        ),
        (
            cycle("images/{}.{}", "png", "jpg"),
            cycle("masks/{}.{}.png", "png", "jpg"),
            "images/{key}.{jpg,png}",
            "masks/{key}.{jpg.png,png.png}",
        ),
        (cycle("{}.{}", "png", "jpg"), "{}_mask.png", "{key}.{jpg,png}", "{key}_mask.png"),
        (cycle("{}.{}", "jpeg", "jpg"), "{}.png", "{key}.{jpeg,jpg}", "{key}.png"),
        (
            lambda n: f"images/{'ab'[n % 2]}/{n}.{('png', 'jpg')[n % 2]}",
            lambda n: f"masks/{'ab'[n % 2]}/{n}.png",
            "images/{key}.{jpg,png}",
            "masks/{key}.png",
        ),
    ],
)
def test_mixed_suffixes(
    tmp_path: Path, image: object, label: object, images: str, labels: str
) -> None:
    write(tmp_path, *(p if callable(p) else p.format for p in (image, label)))
    diagnosis = check(tmp_path)
    for files in diagnosis.splits.values():
        assert (files.images, files.labels) == (images, labels)
    assert diagnosis.scan.layout.same_key == () and diagnosis.left_out == 0
    again = examine(tmp_path)  # as its dataset.toml describes it
    assert again.described and len(again.scan.pairs) == COUNT


def test_lists_and_shards_of_mixed_suffixes(tmp_path: Path) -> None:
    image = cycle("images/{}.{}", "png", "jpg", "jpeg")
    write(tmp_path / "set", image, "masks/{}.png".format)
    (tmp_path / "set/valid.txt").write_text("0.png\n2.jpeg\n4\n")
    diagnosis = check(tmp_path / "set")
    assert diagnosis.splits["val"].keys == ("0", "2", "4")
    pack(Dataset.open(tmp_path / "set"), ["val"], tmp_path / "shards", 1 << 20)
    packed = Dataset.open(tmp_path / "shards").split("val")
    for sample in packed:
        assert np.array_equal(sample.label, mask(int(sample.key), range(3), SIZE))
    assert sorted(packed.keys) == ["0", "2", "4"]


def test_binary_masks_of_mixed_suffixes(tmp_path: Path) -> None:
    """The masks of one image may differ in their suffixes, from class to class."""
    truth = {}
    for number in range(COUNT):
        label = mask(number, range(3), SIZE)
        truth[str(number)] = label
        save(tmp_path / f"images/{number}.{('png', 'jpg')[number % 2]}", photo(number, SIZE))
        for i, name in enumerate(("car", "tree"), 1):
            suffix = ("png", "bmp", "PNG")[(number + i) % 3]
            save(tmp_path / f"masks/{name}/{number}.{suffix}", np.uint8(255) * (label == i))
    diagnosis = examine(tmp_path)
    diagnosis.write()
    dataset = Dataset.open(tmp_path)
    order = [("background", "car", "tree").index(name) for name in dataset.taxonomy.classes]
    for name in ("train", "val"):
        split = dataset.split(name)
        assert split.labels == "masks/{class}/{key}.{PNG,bmp,png}"
        for i, key in enumerate(split.keys):
            assert np.array_equal(np.array(order)[split.label(i)], truth[key])


def test_two_images_of_one_key(tmp_path: Path) -> None:
    """The doctor leaves both out and names them; a data set that has both is refused."""
    write(tmp_path, cycle("images/{}.{}", "png", "jpg"), "masks/{}.png".format)
    save(tmp_path / "images/4.jpg", photo(9, SIZE))
    diagnosis = check(tmp_path, COUNT - 1)
    assert diagnosis.scan.layout.same_key == ("images/4.jpg = images/4.png",)
    (finding,) = (f for f in diagnosis.findings if f.code == "same-key")
    assert finding.severity == "problem"
    toml = (tmp_path / "dataset.toml").read_text()
    (tmp_path / "dataset.toml").write_text(toml.replace("list =", "# list ="))
    with pytest.raises(InputError, match=r"images/4\.jpg: images/4\.png has the same key '4'"):
        Dataset.open(tmp_path).split("train")


def test_each_image_in_two_suffixes(tmp_path: Path) -> None:
    write(tmp_path, "images/{}.png".format, "masks/{}.png".format)
    for number in range(COUNT):
        save(tmp_path / f"images/{number}.jpg", photo(number, SIZE))
    diagnosis = check(tmp_path)
    assert diagnosis.scan.layout.same_key[0] == "images/0.jpg = images/0.png"
    assert len(diagnosis.scan.layout.same_key) == COUNT and diagnosis.scan.layout.elsewhere == ()


def test_images_of_unknown_suffixes_are_named(tmp_path: Path) -> None:
    write(tmp_path, "images/{}.jpg".format, "masks/{}.png".format)
    shutil.copy(tmp_path / "images/1.jpg", tmp_path / "images/20.xyz")
    shutil.copy(tmp_path / "images/1.jpg", tmp_path / "images/21")
    (tmp_path / "images/22.dcm").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "images/notes.md").write_text("# 1")
    diagnosis = examine(tmp_path)
    assert diagnosis.scan.layout.unread == ("images/20.xyz", "images/21", "images/22.dcm")
    (finding,) = (f for f in diagnosis.findings if f.code == "unread-image")
    assert finding.message == "3 files passed over: images in a format that is not read"
    shutil.rmtree(tmp_path / "masks")
    for number in range(COUNT):
        (tmp_path / f"images/{number}.jpg").unlink()
    with pytest.raises(InputError, match=r"no images in it; .*: images/20\.xyz, images/21, im"):
        examine(tmp_path)


def test_linked_folders_are_read_and_circles_end(tmp_path: Path) -> None:
    write(tmp_path / "real", "images/{}.jpg".format, "masks/{}.png".format)
    links = tmp_path / "links"
    (links / "masks").mkdir(parents=True)
    (links / "images").symlink_to(tmp_path / "real/images")
    for number in range(COUNT):
        (links / f"masks/{number}.png").symlink_to(tmp_path / f"real/masks/{number}.png")
    (links / "loop").symlink_to(links)
    assert check(links).scan.layout.elsewhere == ()


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"no images in it; .* links that lead nowhere: images"):
        examine(tmp_path)
