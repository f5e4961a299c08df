"""Which file is the prediction of which sample; what is passed over is named."""

from pathlib import Path

import numpy as np
import pytest

from atrous.data.encodings.masks import Encoding, lookup_table
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.evaluation.predictions import find_predictions


def split_of(*keys: str, images: str = "images/{key}.jpg", folder: Path = Path("set")) -> Split:
    encoding = Encoding(name="index", table=lookup_table({0: 0}, []))
    return Split(folder, images, "masks/{key}.png", keys, encoding)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path, samples: Split | Shards, indices: range | None = None) -> list[str]:
    indices = range(len(samples)) if indices is None else indices
    paths = find_predictions(folder, samples, indices).paths
    assert list(paths) == list(indices)
    return [path.relative_to(folder).as_posix() for path in paths.values()]


def test_nested_or_flat(tmp_path: Path) -> None:
    samples = split_of("bonn/a", "bonn/b", "jena/a")
    touch(tmp_path, "bonn/a.png", "b.labels.png", "jena/a.labels.png", "a.png")
    assert found(tmp_path, samples) == ["bonn/a.png", "b.labels.png", "jena/a.labels.png"]
    (tmp_path / "jena/a.labels.png").unlink()  # a.png could be that of bonn/a as well
    with pytest.raises(
        InputError, match=r"no prediction of jena/a; looked for jena/a\.labels\.png"
    ):
        found(tmp_path, samples)
    assert found(tmp_path, samples, range(1)) == ["bonn/a.png"]
    with pytest.raises(InputError, match="nowhere: no folder"):
        found(tmp_path / "nowhere", samples)


@pytest.mark.parametrize(
    ("images", "name"),
    [
        ("images/{key}.jpg", "a.labels.tif"),
        ("images/{key}.jpg", "a.TIF"),
        ("images/{key}.jpg", "a.tiff"),
        ("images/{key}.jpg", "a.bmp"),
        ("images/{key}.jpg", "images/a.labels.png"),  # of `segment` on the folder of the set
        ("images/val/{key}_left.jpg", "a_left.labels.png"),
        ("images/val/{key}_left.jpg", "val/a_left.labels.png"),
        ("images/val/{key}_left.jpg", "a.png"),
        ("images/{key}", "a.labels.png"),
        ("{key}/image.png", "a/image.labels.png"),
        ("{key}/image.png", "a.png"),
    ],
)
def test_the_names_of_segment_and_of_others(tmp_path: Path, images: str, name: str) -> None:
    keys = ("a.jpg", "b.jpg") if images == "images/{key}" else ("a", "b")
    touch(tmp_path, name)
    assert found(tmp_path, split_of(*keys, images=images), range(1)) == [name]


def test_linked_folders_are_looked_into(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.png", "files/b.png")
    (tmp_path / "files/bonn").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/circle").symlink_to(tmp_path / "files")
    samples = split_of("bonn/a", "b")
    assert found(tmp_path / "files", samples) == ["bonn/a.png", "b.png"]


def test_what_segment_wrote_goes_before_the_photo_beside_it(tmp_path: Path) -> None:
    samples = split_of("a", "b", images="{key}.png", folder=tmp_path)
    touch(tmp_path, "a.png", "b.png", "a.labels.png", "a.overlay.jpg", "a.json")
    assert found(tmp_path, samples, range(1)) == ["a.labels.png"]
    with pytest.raises(InputError, match="no prediction of b"):  # b.png is the photo itself
        found(tmp_path, samples)


def test_two_photos_of_one_stem(tmp_path: Path) -> None:
    """`atrous segment` keeps the suffix of the second in the name of its labels."""
    touch(tmp_path, "a.labels.png", "a.png.labels.png")
    assert found(tmp_path, split_of("a", images="{key}.png")) == ["a.png.labels.png"]
    assert found(tmp_path, split_of("a", images="{key}.jpg")) == ["a.labels.png"]


def test_two_predictions_of_one_image_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.labels.png", "a.labels.tif")
    with pytest.raises(InputError, match=r"a\.labels\.png and a\.labels\.tif could both be"):
        found(tmp_path, split_of("a"))


def test_shards_are_found_by_their_keys(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.png", "b.png")
    samples = Shards((), ("x/a", "x/b"), np.zeros(2, np.int32), np.zeros((2, 2, 2), np.int64), 2)
    assert found(tmp_path, samples) == ["x/a.png", "b.png"]


def test_the_rest_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.labels.png", "a.overlay.jpg", "a.json", "b.labels.png", "b.json", "x0.png")
    samples = split_of("a", "b")
    passed_over = find_predictions(tmp_path, samples, range(1)).passed_over
    assert passed_over == "x0.png, 1 .jpg, 2 .json"  # and not b's, which another part scores
    touch(tmp_path, *(f"y{i}.png" for i in range(9)))
    passed_over = find_predictions(tmp_path, samples, range(2)).passed_over
    assert passed_over == "x0.png, y0.png, y1.png, y2.png, y3.png, 5 more such, 1 .jpg, 2 .json"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a_pred.png", r"there is a_pred\.png: rename it"),
        ("epoch_3/a.png", r"there is epoch_3/a\.png: rename it, or give the folder"),
        ("a.jpg", r"there is a\.jpg, a kind that changes class numbers: save it as PNG"),
        ("a.npy", r"there is a\.npy: save it as PNG"),
        ("data.png", "its name must be the key"),
    ],
)
def test_what_is_near_is_named(tmp_path: Path, name: str, message: str) -> None:
    touch(tmp_path, name)
    with pytest.raises(InputError, match=message):
        found(tmp_path, split_of("a"))
