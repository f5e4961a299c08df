"""What strangers' damaged files come to: an answer or one line; no traceback, crash or hang.

A few examples by default; `pytest --hypothesis-profile thorough` tries 2,000 of each.
"""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from describing import describe, run_lengths, write_coco, write_labelme, write_panoptic, write_yolo
from doctor_folders import PALETTE, mask, photo, write_index
from hypothesis import given
from hypothesis import strategies as st
from mutation import a_quarter, mutated, read_or_refused
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from atrous.data.dataset import Dataset
from atrous.doctor import examine
from atrous.images.bands import COLORS, Bands
from atrous.images.pixels import pixel_size, read_pixels

SIZE = (24, 33)


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Fail where a library writes lines of its own."""
    yield
    assert "".join(capfd.readouterr()) == ""


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def heic(image: Image.Image) -> bytes:
    file = BytesIO()
    pillow_heif.from_pillow(image).save(file)
    return file.getvalue()


def raster(kind: type, bands: int, **options: object) -> bytes:
    """A GeoTIFF of noise, as GDAL writes it."""
    values = np.random.default_rng(1).integers(0, 255, (bands, *SIZE)).astype(kind)
    with MemoryFile() as file:
        place = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 1, 1)}
        size = {"height": SIZE[0], "width": SIZE[1], "count": bands, "dtype": values.dtype}
        with file.open(driver="GTiff", **size, **place, **options) as target:
            target.write(values)
        return file.read()


PHOTO = Image.fromarray(photo(0, SIZE))
TURNED = Image.Exif()
TURNED[0x0112] = 6
PHOTOS = {
    "a.jpg": encoded(PHOTO, "JPEG", exif=TURNED),
    "b.jpg": encoded(PHOTO.convert("CMYK"), "JPEG", progressive=True),
    "a.png": encoded(PHOTO.convert("P"), "PNG", exif=TURNED),
    "b.png": encoded(PHOTO.convert("LA"), "PNG"),
    "a.webp": encoded(PHOTO, "WEBP"),
    "a.gif": encoded(PHOTO, "GIF", save_all=True, append_images=[PHOTO]),
    "a.bmp": encoded(PHOTO, "BMP"),
    "a.ppm": encoded(PHOTO, "PPM"),
    "a.tif": encoded(PHOTO, "TIFF", compression="tiff_lzw"),
    "b.tif": encoded(PHOTO, "TIFF", compression="jpeg", exif=TURNED),
    "c.tif": encoded(PHOTO.convert("1"), "TIFF", compression="group4"),
    "a.avif": encoded(PHOTO, "AVIF"),
    "a.jp2": encoded(PHOTO, "JPEG2000"),
    "a.mpo": encoded(PHOTO, "MPO", save_all=True, append_images=[PHOTO]),
    "a.tga": encoded(PHOTO, "TGA"),
    "a.ico": encoded(PHOTO, "ICO"),
    "a.heic": heic(PHOTO),
    "four.tif": raster(np.uint8, 4),
    "deep.tif": raster(np.uint16, 5, compress="deflate", tiled=True, blockxsize=16, blockysize=16),
    "float.tif": raster(np.float32, 2, nodata=-1),
}
BANDS = {name: Bands((2,), (0, 300)) for name in ("deep.tif", "float.tif")}


@pytest.mark.slow
@pytest.mark.parametrize("name", PHOTOS)
@a_quarter
@given(data=st.data())
def test_photos(tmp_path: Path, name: str, data: st.DataObject) -> None:
    path = tmp_path / name
    path.write_bytes(data.draw(mutated(PHOTOS[name])))
    for bands in (COLORS, Bands((2,), (0, 300))):
        with read_or_refused():
            image, _ = read_pixels(path, bands)
            assert image.dtype == np.uint8
            assert image.shape == (*pixel_size(path), bands.channels)


def read_all(folder: Path) -> None:
    """Read all samples of all splits, as a training does."""
    dataset = Dataset.open(folder)
    for name in dataset.splits:
        split = dataset.split(name)
        for index in range(len(split)):
            with read_or_refused():
                sample = split[index]
                assert sample.label.shape == sample.image.shape[:2]


def read_and_examine(folder: Path) -> None:
    """Read a folder as its dataset.toml says, and as the doctor does with it and without it."""
    with read_or_refused():
        read_all(folder)
    with read_or_refused():
        examine(folder)
    (folder / "dataset.toml").rename(folder / "dataset.txt")
    with read_or_refused():
        examine(folder)
    (folder / "dataset.txt").rename(folder / "dataset.toml")


MASKS = {
    "index": encoded(Image.fromarray(mask(0)), "PNG"),
    "palette": encoded(Image.fromarray(mask(0)).convert("P"), "PNG"),
    "rgb": encoded(Image.fromarray(PALETTE[mask(0)]), "PNG"),
}


@pytest.mark.slow
@a_quarter
@given(st.data())
def test_masks(tmp_path: Path, data: st.DataObject) -> None:
    encoding = data.draw(st.sampled_from(sorted(MASKS)))
    write_index(tmp_path, 2)
    describe(tmp_path, f'encoding = "{encoding}"\nunknown = "ignore"')
    (tmp_path / "masks/001.png").write_bytes(data.draw(mutated(MASKS[encoding])))
    read_and_examine(tmp_path)


TOML = """\
name = "street"
licence = "CC0"
[labels]
encoding = "index"
ignore = [9]
map = { 0 = "sky", 1 = "road", 2 = 1, 4 = "car" }
unknown = "ignore"
classes = ["sky", { name = "road", color = "#804080" }, { name = "car", thing = true }]
[splits.train]
images = "images/{key}.png"
labels = "masks/{key}.png"
list = "train.txt"
[splits.val]
images = "images/{key}.png"
labels = "masks/{key}.png"
"""
LISTS = [
    "000\n001\n",
    "images/000.png masks/000.png\r\nimages/001.png masks/001.png\r\n",
    "image,mask\nC:\\data\\images\\000.png,C:\\data\\masks\\000.png\n",
]


@pytest.mark.slow
@a_quarter
@given(mutated(TOML.encode()))
def test_descriptions(tmp_path: Path, content: bytes) -> None:
    write_index(tmp_path, 2)
    (tmp_path / "train.txt").write_text(LISTS[0])
    (tmp_path / "dataset.toml").write_bytes(content)
    read_and_examine(tmp_path)


@pytest.mark.slow
@a_quarter
@given(st.sampled_from(LISTS).flatmap(lambda text: mutated(text.encode())))
def test_lists(tmp_path: Path, content: bytes) -> None:
    write_index(tmp_path, 2)
    (tmp_path / "dataset.toml").write_text(TOML)
    (tmp_path / "train.txt").write_bytes(content)
    read_and_examine(tmp_path)


def coco(folder: Path) -> Path:
    square = run_lengths(mask(0) == 1, False)
    outlines = [[1, 1, 9, 1, 9, 9], [5, 5, 20, 5, 20, 20, 5, 20]]
    write_coco(folder, (40, 56), [(1, square), (20, outlines)])
    return folder / "all.json"


def labelme(folder: Path) -> Path:
    points = [[1, 1], [9, 1], [9, 9]]
    shapes = [
        {"label": "sky", "points": points, "shape_type": "polygon"},
        {"label": "car", "points": points[:2], "shape_type": "rectangle"},
        {"label": "road", "points": points[:2], "shape_type": "circle"},
    ]
    write_labelme(folder, (40, 56), shapes)
    return folder / "shapes/a.json"


def yolo(folder: Path) -> Path:
    write_yolo(folder, (40, 56), "0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.2 0.2 0.4 0.2 0.4 0.4\n")
    return folder / "shapes/a.txt"


def panoptic(folder: Path) -> Path:
    ids = mask(0).astype(np.int64) * 700
    segments = [
        {"id": int(i), "category_id": 20, "area": int((ids == i).sum()), "bbox": [0, 0, 9, 9]}
        for i in np.unique(ids)[1:]
    ]
    write_panoptic(folder, ids, segments)
    return folder / "panoptic.json"


def names(folder: Path) -> Path:
    write_index(folder, 2)
    describe(folder, 'encoding = "index"\nunknown = "ignore"')
    (folder / "id2label.json").write_text('{"0": "sky", "1": "road", "2": "car", "3": "tree"}')
    return folder / "id2label.json"


@pytest.mark.slow
@pytest.mark.parametrize("write", [coco, labelme, yolo, panoptic, names])
@a_quarter
@given(data=st.data())
def test_annotations(tmp_path: Path, write: Callable[[Path], Path], data: st.DataObject) -> None:
    path = write(tmp_path)
    path.write_bytes(data.draw(mutated(path.read_bytes())))
    read_and_examine(tmp_path)


def test_the_unchanged_files_are_read(tmp_path: Path) -> None:
    """Else the tests above would be of files that are refused for another reason."""
    for name, content in PHOTOS.items():
        (tmp_path / name).write_bytes(content)
        assert read_pixels(tmp_path / name, BANDS.get(name, COLORS))[0].ndim == 3
    for number, write in enumerate([coco, labelme, yolo, panoptic, names]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder)
        Dataset.open(folder).split("train")[0]
        examine(folder)
