"""TIFFs of other bands and values: what the doctor proposes, and that it is read so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from doctor_folders import mask, photo, save
from geotiff import write_tiff

from atrous.cli import main
from atrous.data.dataset import Dataset
from atrous.doctor import examine
from atrous.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write_folder(folder: Path, change: Any, **profile: Any) -> Path:
    for number in range(5):
        image = change(np.asarray(photo(number)), number)
        write_tiff(folder / f"images/{number}.tif", image, **profile)
        save(folder / f"masks/{number}.png", mask(number))
    return folder


def with_infrared(image: np.ndarray, number: int) -> np.ndarray:
    return np.dstack([image, image[..., 0] // 2 + number])


def with_transparency(image: np.ndarray, number: int) -> np.ndarray:
    opaque = np.full(image.shape[:2], 255, np.uint8)
    opaque[: number + 1] = 0
    return np.dstack([image, opaque])


COLORS = (None, None, None)
FOUR = [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "profile", "said"),
    [
        (lambda image, _: image, {"photometric": "RGB"}, COLORS),
        (lambda image, _: image[..., :1], {}, COLORS),
        (lambda image, _: image.astype(np.uint16) * 257, {"photometric": "RGB"}, COLORS),
        (with_transparency, {}, COLORS),
        (with_infrared, {}, (FOUR, None, False)),
        (with_infrared, {"photometric": "MINISBLACK"}, (FOUR, None, None)),
        (lambda image, _: image[..., :2], {}, ([1, 2], None, None)),
        (lambda i, n: with_infrared(i, n).astype(np.uint16) * 40, {}, (FOUR, [0, 10200], None)),
        (lambda i, _: i.astype(np.uint16) * 12, {"photometric": "RGB"}, (None, [0, 3060], None)),
        (lambda i, _: i.astype(np.int16) - 300, {}, (None, [-300, -45], None)),
        (lambda i, _: i.astype(np.float32) / 255, {}, (None, [0, 1], None)),
        (lambda i, _: i[..., :1].astype(np.float32) / 255, {}, (None, [0, 1], None)),
        (lambda i, _: np.dstack([i, i, i[..., :2]]), {}, ([*range(1, 9)], None, None)),
    ],
)
def test_bands_and_range_are_proposed_where_they_are_needed(
    tmp_path: Path, change: Any, profile: dict[str, Any], said: tuple[Any, Any, Any]
) -> None:
    folder = write_folder(tmp_path / "set", change, **profile)
    diagnosis = examine(folder)
    assert [f.code for f in diagnosis.findings if f.severity == "problem"] == []
    bands, value_range, alpha = said
    found = [f for f in diagnosis.findings if f.code == "bands"]
    assert bool(found) == (said != COLORS)
    diagnosis.write()
    dataset = Dataset.open(folder)
    assert dataset.bands.numbers == tuple(bands or ())
    assert dataset.description.alpha == alpha
    if value_range is None:
        assert dataset.bands.value_range is None
    else:
        size = value_range[1] - value_range[0]
        assert dataset.bands.value_range is not None
        assert abs(np.subtract(dataset.bands.value_range, value_range)).max() < size / 5
        assert "a guess by what nearly all values lie between" in found[0].message
    for name in dataset.splits:
        for sample in dataset.split(name):
            truth = mask(int(sample.key))
            seen = sample.label != 255
            assert np.array_equal(sample.label[seen], truth[seen])
            assert sample.image.shape == (*truth.shape, len(bands or "rgb"))
            assert sample.image.max() > 150
    assert [f.code for f in examine(folder).findings if f.severity == "problem"] == []


def test_a_file_of_fewer_bands_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "set", with_infrared)
    examine(folder).write()
    write_tiff(folder / "images/2.tif", np.asarray(photo(2)), photometric="RGB")
    (problem,) = [f for f in examine(folder).findings if f.severity == "problem"]
    assert problem.examples == (
        "images/2.tif: has no band 4; give --bands from 1 to 3, or bands in dataset.toml",
    )
    (folder / "dataset.toml").write_text(
        (folder / "dataset.toml").read_text().replace("[1, 2, 3, 4]", "[0, 1]")
    )
    assert main(["data", "doctor", str(folder)]) == 2
    assert "dataset.toml: bands 0 1: their numbers count from 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bands = 4", "bands: expected array, got int"),
        ("bands = ['a']", r"bands\[0\]: expected int, got str"),
        ("range = [5, 5]", "range 5 5: give black, then white"),
        ("range = [0, nan]", "range 0 nan: give black, then white"),
        ("alpha = 'no'", "alpha: expected bool"),
        ("alpha = 1", "alpha: expected bool"),
    ],
)
def test_what_a_dataset_toml_says_of_bands_is_checked(
    tmp_path: Path, line: str, message: str
) -> None:
    (tmp_path / "dataset.toml").write_text(
        f'{line}\n[labels]\nencoding = "index"\nclasses = ["a", "b"]\n'
        '[splits.train]\nimages = "i/{key}.tif"\nlabels = "m/{key}.png"\n'
    )
    with pytest.raises(InputError, match=f"dataset.toml: {message}"):
        Dataset.open(tmp_path)


def test_alpha_may_be_said(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", with_transparency)
    examine(folder).write()
    text = (folder / "dataset.toml").read_text()
    assert (Dataset.open(folder).split("train").label(0) == 255).any()
    (folder / "dataset.toml").write_text("alpha = false\n" + text)
    assert not (Dataset.open(folder).split("train").label(0) == 255).any()


def test_shards_keep_bands_and_range(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", lambda i, n: with_infrared(i, n).astype(np.int16) * 9)
    examine(folder).write()
    out = str(tmp_path / "shards")
    assert main(["data", "pack", str(folder), "--out", out]) == 0
    whole, packed = Dataset.open(folder), Dataset.open(out)
    assert packed.bands == whole.bands
    for name in whole.splits:
        samples = {sample.key: sample for sample in packed.split(name)}
        for sample in whole.split(name):
            assert np.array_equal(samples[sample.key].image, sample.image)
            assert np.array_equal(samples[sample.key].label, sample.label)


GRID = Affine(2, 0, 5e5, 0, -2, 5.6e6)


@pytest.mark.parametrize(
    ("grid", "is_apart"),
    [
        (GRID, False),
        (Affine(2, 0, 5e5 + 0.4, 0, -2, 5.6e6 - 0.4), False),
        (None, False),
        (Affine(2, 0, 5e5, 0, -2, 5.6e6 - 6), True),
        (Affine(4, 0, 5e5, 0, -4, 5.6e6), True),
        (Affine(2, 0, 5e5, 0, 2, 5.6e6 - 96), True),
        (Affine(1e-4, 0, 15, 0, -1e-4, 50), True),
    ],
)
def test_masks_of_other_coordinates_are_told(
    tmp_path: Path, grid: Affine | None, *, is_apart: bool
) -> None:
    for number in range(5):
        image, label = np.asarray(photo(number)), np.asarray(mask(number))
        write_tiff(tmp_path / f"images/{number}.tif", image, transform=GRID)
        place = {"transform": grid} if grid and number else {}
        write_tiff(tmp_path / f"masks/{number}.tif", label[..., None], **place)
    found = [f for f in examine(tmp_path).findings if f.code == "other-coordinates"]
    assert [f.count for f in found] == [4] * is_apart
    assert all("masks/1.tif (images/1.tif)" in f.examples for f in found)


def test_no_data_by_custom_is_not_black(tmp_path: Path) -> None:
    def change(image: np.ndarray, number: int) -> np.ndarray:
        values = (image / 255).astype(np.float32)
        values[: number + 1] = -9999
        return values

    examine(write_folder(tmp_path, change)).write()
    dataset = Dataset.open(tmp_path)
    assert dataset.bands.value_range == (0, 1)
    for sample in dataset.split("train"):
        number = int(sample.key)
        assert (sample.label[: number + 1] == 255).all()
        assert np.array_equal(sample.image[number + 1 :], photo(number)[number + 1 :])


@pytest.mark.parametrize(("bits", "said"), [(12, (0.0, 4100.0)), (16, None)])
def test_a_png_of_12_bits_is_not_black(tmp_path: Path, bits: int, said: Any) -> None:
    for number in range(5):
        grey = photo(number)[..., 0].astype(np.uint16) << (bits - 8)
        save(tmp_path / f"images/{number}.png", grey)
        save(tmp_path / f"masks/{number}.png", mask(number))
    examine(tmp_path).write()
    dataset = Dataset.open(tmp_path)
    assert dataset.bands.value_range == said
    image = dataset.split("train")[0].image
    assert image.max() > 250 and image.shape[2] == 3
