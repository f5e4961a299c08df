"""Every encoding: pictures round trip, and strangers' bytes are read or refused."""

from pathlib import Path

import numpy as np
import pytest
from describing import (
    COCO_IDS,
    COLORS,
    LABELS,
    NUM_CLASSES,
    SIZES,
    describe,
    fault_of,
    few,
    photo,
    read,
    run_lengths,
    save,
    write_coco,
    write_labelme,
    write_panoptic,
    write_yolo,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.io import savemat

from atrous.data.dataset import Dataset
from atrous.errors import InputError


@few
@given(LABELS)
def test_index(tmp_path: Path, label: np.ndarray) -> None:
    describe(tmp_path, 'encoding = "index"')
    photo(tmp_path, label.shape)
    save(tmp_path / "masks/a.png", label)
    assert np.array_equal(read(tmp_path), label)


@few
@given(LABELS)
def test_index_of_16_bits_with_a_map(tmp_path: Path, label: np.ndarray) -> None:
    ids = np.zeros(256, np.uint16)
    ids[[0, 1, 2, 3, 255]] = [40000, 7, 65535, 300, 9]
    describe(
        tmp_path,
        'encoding = "index"\nignore = 9\nmap = { 40000 = 0, 7 = 1, 65535 = 2, 300 = 3 }',
    )
    photo(tmp_path, label.shape)
    save(tmp_path / "masks/a.png", ids[label])
    assert np.array_equal(read(tmp_path), label)


@few
@given(LABELS)
def test_palette(tmp_path: Path, label: np.ndarray) -> None:
    picture = Image.fromarray(label)
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    describe(tmp_path, 'encoding = "palette"')
    photo(tmp_path, label.shape)
    save(tmp_path / "masks/a.png", picture)
    assert np.array_equal(read(tmp_path), label)


@few
@given(LABELS, st.sampled_from(["RGB", "RGBA", "P"]))
def test_rgb(tmp_path: Path, label: np.ndarray, mode: str) -> None:
    palette = np.full((256, 3), 77, np.uint8)
    palette[:NUM_CLASSES] = COLORS
    picture = Image.fromarray(palette[label])
    if mode == "RGBA":
        picture.putalpha(Image.fromarray(label))  # transparency does not count
    if mode == "P":
        picture = Image.fromarray(label[:, ::-1].copy()[:, ::-1])
        picture.putpalette(palette.tobytes())
    describe(tmp_path, 'encoding = "rgb"\nignore = [[77, 77, 77]]')
    photo(tmp_path, label.shape)
    save(tmp_path / "masks/a.png", picture)
    assert np.array_equal(read(tmp_path), label)


def test_further_colors_of_a_class(tmp_path: Path) -> None:
    describe(tmp_path, 'encoding = "rgb"\nignore = ["#000000"]\nmap = { "#FF00ff" = 2 }')
    photo(tmp_path, (1, 3))
    save(tmp_path / "masks/a.png", np.array([[[255, 0, 255], [0, 0, 0], [0, 0, 255]]], np.uint8))
    assert read(tmp_path).tolist() == [[2, 255, 2]]


@few
@given(SIZES.flatmap(lambda size: arrays(np.uint8, (*size, 3))))
def test_unknown_colors_count_as_the_nearest(tmp_path: Path, colors: np.ndarray) -> None:
    describe(tmp_path, 'encoding = "rgb"\nignore = ["#4d4d4d"]\nunknown = "nearest"')
    photo(tmp_path, colors.shape[:2])
    save(tmp_path / "masks/a.png", colors)
    known = np.concatenate([COLORS, [[77, 77, 77]]]).astype(int)
    distance = np.square(colors[:, :, None].astype(int) - known).sum(-1)  # (H, W, 5)
    nearest = np.array([0, 1, 2, 3, 255])[distance.argmin(-1)]
    assert np.array_equal(read(tmp_path), nearest)


@few
@given(LABELS, st.sampled_from([1, 255]))
def test_binary_masks(tmp_path: Path, label: np.ndarray, white: int) -> None:
    """What is sky is in no mask; a class that is not in the image has no file."""
    describe(
        tmp_path,
        'encoding = "binary-masks"\nignore = ["unknown"]\nmap = { auto = 2 }\nbackground = "sky"',
        'labels = "masks/{class}/{key}.png"',
    )
    photo(tmp_path, label.shape)
    names = {1: "road", 2: "auto", 3: "tree", 255: "unknown"}
    for name in names.values():
        (tmp_path / f"masks/{name}/a.png").unlink(missing_ok=True)
    for i in np.unique([*np.unique(label), 1]).tolist():
        if i in names:
            save(tmp_path / f"masks/{names[i]}/a.png", (label == i) * np.uint8(white))
    assert np.array_equal(read(tmp_path), label)


def test_a_valid_mask_that_is_missing_is_said_before_any_is_read(tmp_path: Path) -> None:
    split = 'labels = "masks/{key}.png"\nvalid = "valid/{key}.gif"'
    describe(tmp_path, 'encoding = "index"', split)
    photo(tmp_path, (5, 7))
    save(tmp_path / "masks/a.png", np.zeros((5, 7), np.uint8))
    with pytest.raises(InputError, match=r"valid/a\.gif: no such file, and splits\.train\.valid"):
        Dataset.open(tmp_path).split("train")


def test_faults_of_binary_masks(tmp_path: Path) -> None:
    describe(tmp_path, 'encoding = "binary-masks"', 'labels = "masks/{key}.{class}.png"')
    photo(tmp_path, (5, 7))
    assert "'a' of split 'train' has no mask" in fault_of(tmp_path)
    save(tmp_path / "masks/a.car.png", np.ones((5, 7), np.uint8))
    assert (read(tmp_path) == 2).all()
    save(tmp_path / "masks/a.road.png", np.ones((5, 7), np.uint8))
    assert (read(tmp_path) == 2).all()  # the later class covers the earlier one
    save(tmp_path / "masks/a.tree.png", np.ones((7, 5), np.uint8))
    assert "a.tree.png: 5x7, but another mask of its image is 7x5" in fault_of(tmp_path)


@few
@given(LABELS)
def test_valid_masks(tmp_path: Path, label: np.ndarray) -> None:
    split = 'labels = "masks/{key}.png"\nvalid = "valid/{key}.gif"'
    describe(tmp_path, 'encoding = "index"', split)
    photo(tmp_path, label.shape)
    save(tmp_path / "masks/a.png", label % 4)
    save(tmp_path / "valid/a.gif", (label < 2) * np.uint8(255))
    assert np.array_equal(read(tmp_path), np.where(label < 2, label, 255))


def test_unknown_ids_are_named_or_ignored(tmp_path: Path) -> None:
    labels = 'labels = "masks/{key}.tif"'
    describe(tmp_path, 'encoding = "index"', labels)
    photo(tmp_path, (1, 4))
    save(tmp_path / "masks/a.tif", np.array([[1, 70000, -1, 9]], np.int32))
    assert "a.tif: id -1, 9, 70000 is neither a class nor ignored" in fault_of(tmp_path)
    describe(tmp_path, 'encoding = "index"\nunknown = "ignore"', labels)
    assert read(tmp_path).tolist() == [[1, 255, 255, 255]]


def test_negative_ids_are_no_data_where_the_description_says_so(tmp_path: Path) -> None:
    labels = 'labels = "masks/{key}.tif"'
    describe(tmp_path, 'encoding = "index"\nignore = [-1]', labels)
    photo(tmp_path, (1, 4))
    save(tmp_path / "masks/a.tif", np.array([[1, -9999, -1, 2]], np.int32))
    assert read(tmp_path).tolist() == [[1, 255, 255, 2]]
    save(tmp_path / "masks/a.tif", np.array([[1, 70000, -1, 9]], np.int32))
    assert "a.tif: id 9, 70000 is neither a class nor ignored" in fault_of(tmp_path)


@few
@given(SIZES.flatmap(lambda size: arrays(np.uint8, size)))
def test_unknown_ids_count_as_the_nearest(tmp_path: Path, ids: np.ndarray) -> None:
    text = "map = { 0 = 0, 90 = 1, 91 = 2, 255 = 3 }\nignore = [200]"
    describe(tmp_path, f'encoding = "index"\n{text}\nunknown = "nearest"')
    photo(tmp_path, ids.shape)
    save(tmp_path / "masks/a.png", ids)
    known = np.array([255, 200, 91, 90, 0])  # of two as near, the larger
    nearest = abs(ids[..., None].astype(int) - known).argmin(-1)
    assert np.array_equal(read(tmp_path), np.array([3, 255, 2, 1, 0])[nearest])


def test_transparent_pixels_have_a_class_where_the_description_says_so(tmp_path: Path) -> None:
    photo(tmp_path, (1, 3))
    pixels = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [0, 0, 255, 255]]], np.uint8)
    save(tmp_path / "masks/a.png", pixels)
    describe(tmp_path, 'encoding = "rgb"')
    assert read(tmp_path).tolist() == [[1, 1, 2]]  # only its colour counts
    describe(tmp_path, 'encoding = "rgb"\nmap = { transparent = 0 }')
    assert read(tmp_path).tolist() == [[1, 0, 2]]
    describe(tmp_path, 'encoding = "rgb"\nignore = ["transparent"]\nunknown = "nearest"')
    assert read(tmp_path).tolist() == [[1, 255, 2]]


def test_unknown_colors_are_named_or_ignored(tmp_path: Path) -> None:
    describe(tmp_path, 'encoding = "rgb"')
    photo(tmp_path, (1, 3))
    save(tmp_path / "masks/a.png", np.array([[[1, 2, 3], [200, 0, 0], [255, 0, 0]]], np.uint8))
    assert "a.png: id #ff0000, #010203 is neither a class nor ignored" in fault_of(tmp_path)
    describe(tmp_path, 'encoding = "rgb"\nunknown = "ignore"')
    assert read(tmp_path).tolist() == [[255, 1, 255]]


def test_divisor_takes_the_instance_off(tmp_path: Path) -> None:
    describe(tmp_path, 'encoding = "index"\ndivisor = 1000\nignore = [7]')
    photo(tmp_path, (1, 5))
    save(tmp_path / "masks/a.png", np.array([[0, 1, 1000, 2999, 7]], np.uint16))
    assert read(tmp_path).tolist() == [[0, 1, 1, 2, 255]]
    save(tmp_path / "masks/a.png", np.array([[0, 1, 1, 2, 7]], np.uint8))
    assert read(tmp_path).tolist() == [[0, 1, 1, 2, 255]]


def test_mask_that_lost_its_palette(tmp_path: Path) -> None:
    describe(tmp_path, 'encoding = "palette"')
    photo(tmp_path, (2, 2))
    save(tmp_path / "masks/a.png", np.zeros((2, 2), np.uint8))
    assert "a.png: no palette" in fault_of(tmp_path)


noise = st.tuples(st.integers(0, 2000), st.binary(max_size=12), st.booleans())


def spoil(path: Path, place: int, noise: bytes, cut: bool) -> None:
    content = path.read_bytes()
    place %= len(content) + 1
    path.write_bytes(content[:place] + noise + (b"" if cut else content[place + len(noise) :]))


def write_any(folder: Path, encoding: str) -> Path:
    """A small sample in some encoding; returns its label's file."""
    label = np.arange(35, dtype=np.uint8).reshape(5, 7) % 4
    corners = [[1, 1], [4, 1], [4, 3]]
    match encoding:
        case "index" | "palette" | "rgb":
            describe(folder, f'encoding = "{encoding}"')
            picture = Image.fromarray(label if encoding != "rgb" else COLORS[label])
            if encoding == "palette":
                picture.putpalette(COLORS.tobytes())
            photo(folder, (5, 7))
            save(folder / "masks/a.png", picture)
            return folder / "masks/a.png"
        case "binary-masks":
            describe(folder, 'encoding = "binary-masks"', 'labels = "{class}/{key}.png"')
            photo(folder, (5, 7))
            save(folder / "road/a.png", label)
            return folder / "road/a.png"
        case "mat" | "mat, packed":
            describe(folder, 'encoding = "mat"', 'labels = "masks/{key}.mat"')
            photo(folder, (5, 7))
            (folder / "masks").mkdir(exist_ok=True)
            savemat(folder / "masks/a.mat", {"T": 1, "S": label}, do_compression="," in encoding)
            return folder / "masks/a.mat"
        case "coco-json":
            masks = [(1, run_lengths(label == 1, True)), (4, [[1, 1, 4.5, 1, 4, 3]])]
            return write_coco(folder, (5, 7), masks) / "all.json"
        case "coco-panoptic":
            segments = [{"id": i, "category_id": COCO_IDS[i]} for i in range(1, 4)]
            write_panoptic(folder, label.astype(int), segments)
            return folder / "panoptic.json"
        case "labelme":
            shape = {"label": "car", "points": corners, "shape_type": "polygon"}
            return write_labelme(folder, (5, 7), [shape]) / "shapes/a.json"
    return write_yolo(folder, (5, 7), "0 0 0 0.5 0 1 1\n1 0.1 0.2 0.3 0.4 0.5 0.6") / "shapes/a.txt"


PICTURES = ["index", "palette", "rgb", "binary-masks"]
FILES = ["mat", "mat, packed", "coco-json", "coco-panoptic", "labelme", "yolo"]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", [*PICTURES, *FILES])
def test_strangers_bytes_are_read_or_refused(tmp_path: Path, encoding: str) -> None:
    whole = write_any(tmp_path, encoding)
    content = whole.read_bytes()
    assert read(tmp_path).shape == (5, 7)

    @settings(max_examples=60, deadline=None)
    @given(noise)
    def spoiled(change: tuple[int, bytes, bool]) -> None:
        whole.write_bytes(content)
        spoil(whole, *change)
        try:
            assert read(tmp_path).ndim == 2
        except InputError as error:
            assert "\n" not in str(error)

    spoiled()
    for broken in (b"", b"hello", content[: len(content) // 2], bytes(300)):
        whole.write_bytes(broken)
        if encoding != "yolo" or broken not in (b"", content[: len(content) // 2]):
            assert str(tmp_path) in fault_of(tmp_path)


def test_an_empty_map_holds_no_id(tmp_path: Path) -> None:
    describe(tmp_path, 'encoding = "index"\nmap = {}')
    photo(tmp_path, (2, 2))
    save(tmp_path / "masks/a.png", np.array([[0, 1], [2, 0]], np.uint8))
    assert "id 0, 1, 2 is neither a class nor ignored" in fault_of(tmp_path)
