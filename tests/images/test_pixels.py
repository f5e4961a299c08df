"""One reader for all: which bands are colours, what is transparency, and where there is no data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from geotiff import write_tiff
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from atrous.data.schema import Description
from atrous.decode import convert
from atrous.errors import InputError
from atrous.images import pixels, rasters
from atrous.images.bands import COLORS, Bands, likely_range
from atrous.images.photos import image_size, largest_of_16_bits
from atrous.images.pixels import (
    fourth_is_alpha,
    is_raster,
    may_be_tiff,
    pixel_size,
    read_pixels,
    where_data,
)
from atrous.run import RunData

UTM = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5.6e6, 1, 1)}
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def scene() -> np.ndarray:
    """(6, 9, 3), no value 0 or 255."""
    return np.random.default_rng(0).integers(1, 255, (6, 9, 3), dtype=np.uint8)


def with_fourth(scene: np.ndarray, fourth: Any) -> np.ndarray:
    return np.dstack([scene, np.broadcast_to(np.uint8(fourth), scene.shape[:2])])


PLACES: list[dict[str, Any]] = [{}, UTM]
"""Without and with coordinates: Pillow and rasterio read them."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("fourths", "is_alpha", "said"),
    [
        (([255], [255]), True, ""),
        (([255, 0], [255]), True, "0 or 255 in all of them"),
        (([255, 0], [255, 200]), False, "1.tif holds more than 0 and 255"),
        (([1], [255]), False, "0.tif holds more"),
        (([0], [0]), False, "0 in all of them"),
    ],
)
def test_a_fourth_band_is_transparency_if_all_files_say_so(
    scene: np.ndarray,
    tmp_path: Path,
    place: dict[str, Any],
    fourths: tuple[list[int], ...],
    is_alpha: bool,
    said: str,
) -> None:
    paths = []
    for number, values in enumerate(fourths):
        fourth = np.resize(np.repeat(values, 5), scene.shape[:2])
        paths.append(write_tiff(tmp_path / f"{number}.tif", with_fourth(scene, fourth), **place))
    paths += [tmp_path / "no.tif", write_tiff(tmp_path / "three.tif", scene, photometric="RGB")]
    decided, line = fourth_is_alpha(paths)
    assert (decided, said in line, bool(line)) == (is_alpha, True, bool(said))
    image, has_data = read_pixels(paths[0], Bands(alpha=decided))
    fourth = np.resize(np.repeat(fourths[0], 5), scene.shape[:2])
    expected = fourth > 0 if is_alpha else np.ones(scene.shape[:2], bool)
    assert np.array_equal(np.ones_like(expected) if has_data is None else has_data, expected)
    assert np.array_equal(image[expected], scene[expected])


def test_transparency_of_png_and_webp_stays_that(scene: np.ndarray, tmp_path: Path) -> None:
    for suffix in ("png", "webp"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(with_fourth(scene, 100)).save(path, lossless=True)
        assert fourth_is_alpha([path]) == (True, "")
        for alpha in (True, False):  # laid over white, whatever TIFFs of the set are
            image, has_data = read_pixels(path, Bands(alpha=alpha))
            assert has_data is None
            assert abs(image - (scene * (100 / 255) + 155)).max() <= 1


@pytest.mark.parametrize("place", PLACES)
def test_an_infrared_of_0_has_data(
    scene: np.ndarray, tmp_path: Path, place: dict[str, Any]
) -> None:
    path = write_tiff(tmp_path / "a.tif", with_fourth(scene, [0, 7, 9] * 3), **place)
    decided, _ = fourth_is_alpha([path])
    for numbers in ((), (1, 2, 3)):
        image, has_data = read_pixels(path, Bands(numbers, alpha=decided))
        assert np.array_equal(image, scene)
        assert has_data is None or has_data.all()
    image, has_data = read_pixels(path, Bands((4, 3, 2, 1), alpha=decided))
    assert np.array_equal(image, with_fourth(scene, [0, 7, 9] * 3)[..., ::-1])
    assert has_data is not None and has_data.all()
    transparent = write_tiff(tmp_path / "b.tif", with_fourth(scene, [0, 255, 255] * 3), **place)
    _, has_data = read_pixels(transparent, Bands((1, 2, 3)))
    assert has_data is not None and has_data.tolist() == [[False, True, True] * 3] * 6
    _, has_data = read_pixels(transparent, Bands((4, 3, 2, 1)))  # it is a band as others
    assert has_data is not None and has_data.all()


def test_nan_in_a_band_that_is_used_is_no_data(scene: np.ndarray, tmp_path: Path) -> None:
    values = scene.astype(np.float32)
    values[0, 0, 0] = values[1, 1, 2] = np.nan
    for profile in ({}, {"nodata": np.nan}, {"nodata": -9999}):
        path = write_tiff(tmp_path / "a.tif", values, **profile)
        image, has_data = read_pixels(path, Bands((1, 2), (0, 255)))
        assert has_data is not None and np.argwhere(~has_data).tolist() == [[0, 0]]
        assert np.array_equal(image[has_data], scene[..., :2][has_data])
        _, has_data = read_pixels(path, Bands((1, 3), (0, 255)))
        assert has_data is not None and np.argwhere(~has_data).tolist() == [[0, 0], [1, 1]]


def test_sixteen_bits_and_other_bands_are_read_as_said(scene: np.ndarray, tmp_path: Path) -> None:
    deep = np.dstack([scene, scene[..., 0]]).astype(np.uint16) * 12 + 100
    path = write_tiff(tmp_path / "a.tif", deep)
    image, _ = read_pixels(path, Bands((3, 2, 1, 4), (100, 100 + 12 * 255)))
    assert np.array_equal(image, np.dstack([scene[..., ::-1], scene[..., 0]]))
    assert read_pixels(path, Bands((2,), (100, 3160)))[0].shape == (6, 9, 1)
    assert pixel_size(path) == (6, 9)
    for bands, message in (
        (COLORS, "4 bands; say which are red, green and blue, such as --bands 3 2 1"),
        (Bands((1, 2, 3)), r"uint16 values; .* or range = \[\d+, \d+\] in dataset.toml"),
        (Bands((1, 2, 5), (0, 9)), "has no band 5; give --bands from 1 to 4, or bands in dataset"),
    ):
        with pytest.raises(InputError, match=rf"a\.tif: {message}"):
            read_pixels(path, bands)
    eight = write_tiff(tmp_path / "b.tif", scene, photometric="RGB")
    with pytest.raises(InputError, match=r"b\.tif: 8-bit values, where white is to be 10000"):
        read_pixels(eight, Bands(value_range=(0, 10000)))


@pytest.mark.parametrize(
    ("numbers", "value_range", "message"),
    [
        ([0, 1, 2], None, "count from 1"),
        ([10**400], None, "count from 1"),
        ([1] * 300, None, "300 bands"),
        ((), (9, 3), "range 9 3: give black, then white"),
        ((), (0, float("inf")), "range 0 inf: give black, then white"),
        ((), (float("nan"), 1), "range nan 1: give black, then white"),
    ],
)
def test_bands_that_cannot_be_are_refused(numbers: Any, value_range: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Bands(tuple(numbers), value_range)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("bands", value) for value in ([1, 2.0], "4321", [True, 1])),
        *(("range", value) for value in ([5], ["0", "1"], [0, 10**400], 255, [0, 1, 2])),
    ],
)
def test_bands_of_other_types_are_refused(field: str, value: Any) -> None:
    labels = {"encoding": "index", "classes": ["a"]}
    splits = {"train": {"images": "{key}.tif", "labels": "{key}.png"}}
    described = {"labels": labels, "splits": splits, field: value}
    for values, kind in (({field: value}, RunData), (described, Description)):
        with pytest.raises(InputError, match=f"file: {field}.*; do this"):
            convert(values, kind, "file", "do this")


def test_what_is_a_photo(scene: np.ndarray, tmp_path: Path) -> None:
    def tiff(name: str, image: np.ndarray, **profile: Any) -> bool:
        return is_raster(write_tiff(tmp_path / name, image, **profile))

    deep, real = scene.astype(np.uint16), scene.astype(np.float32)
    photos = (
        tiff("1.tif", scene, photometric="RGB"),
        tiff("2.tif", scene[..., :1]),
        tiff("3.tif", deep[..., :1]),
        tiff("4.tif", with_fourth(scene, 255)),
        tiff("5.tif", deep, photometric="RGB"),
    )
    assert not any(photos)
    others = (
        tiff("1.tif", scene, photometric="MINISBLACK"),
        tiff("2.tif", scene[..., :2]),
        tiff("3.tif", real[..., :1]),
        tiff("4.tif", with_fourth(scene, 255), photometric="MINISBLACK"),
        tiff("5.tif", deep),
        tiff("6.tif", scene.astype(np.int16)[..., :1]),
        tiff("7.tif", scene, nodata=0),
        tiff("8.tif", scene, **UTM),
    )
    assert all(others)
    assert [may_be_tiff(n) for n in ("a.TIF", "{key}.jp2", "x.img", "{key}")] == [1, 0, 1, 1]


def test_values_that_count_from_white_or_have_12_bits(scene: np.ndarray, tmp_path: Path) -> None:
    grey = scene[..., :1]
    for place in PLACES:
        path = write_tiff(tmp_path / "white.tif", grey, photometric="MINISWHITE", **place)
        image, _ = read_pixels(path, COLORS)
        assert np.array_equal(image, np.repeat(255 - grey, 3, 2))
    path = write_tiff(tmp_path / "twelve.tif", grey.astype(np.uint16) * 16, nbits=12)
    with pytest.raises(InputError, match=r"uint16 values; say which are black and white"):
        read_pixels(path, COLORS)
    image, _ = read_pixels(path, Bands(value_range=(0, 16 * 255)))
    assert np.array_equal(image, np.repeat(grey, 3, 2))


@pytest.mark.parametrize("bits", [1, 2, 4, 7])
def test_the_largest_of_few_bits_is_white(bits: int, tmp_path: Path) -> None:
    largest = 2**bits - 1
    grey = (np.arange(128, dtype=np.uint8) % (largest + 1)).reshape(8, 16, 1)
    for place in PLACES:
        path = write_tiff(tmp_path / "few.tif", grey, nbits=bits, **place)
        image, _ = read_pixels(path, COLORS)
        assert np.array_equal(image, np.repeat(np.rint(grey * (255 / largest)), 3, 2))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_nodata_value_counts_in_the_bands_that_are_used(
    scene: np.ndarray, tmp_path: Path, kind: type
) -> None:
    image = with_fourth(scene, 9).astype(kind)
    image[0, :, 3] = 0  # an infrared of 0, which GDAL declares as transparency
    image[1, :, 0] = 0  # dark in one band
    image[2, :, :3] = 0
    path = write_tiff(tmp_path / "a.tif", image, nodata=0, **UTM)
    for alpha in (True, False) if kind == np.uint16 else (False,):
        bands = Bands((1, 2, 3), (0, 255), alpha=alpha)
        pixels, has_data = read_pixels(path, bands)
        assert np.array_equal(has_data, np.arange(6)[:, None].repeat(9, 1) != 2)
        assert np.array_equal(pixels, image[..., :3])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("more", [(), (ColorInterp.nir,)])
def test_blue_green_red_is_turned_round(
    scene: np.ndarray, tmp_path: Path, place: dict[str, Any], more: tuple[ColorInterp, ...]
) -> None:
    backwards = scene[..., ::-1] if not more else with_fourth(scene[..., ::-1], 7)
    path = write_tiff(tmp_path / "bgr.tif", backwards, **place)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, *more)
    assert np.array_equal(read_pixels(path, COLORS)[0], scene)
    named = read_pixels(path, Bands((1, 2, 3)))[0]
    assert np.array_equal(named, scene[..., ::-1])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_counts_with_and_without_coordinates(
    scene: np.ndarray, tmp_path: Path, place: dict[str, Any], *, internal: bool
) -> None:
    expected = np.arange(9)[None].repeat(6, 0) > 2
    path = write_tiff(tmp_path / "masked.tif", scene, **place)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
        file.write_mask(expected)
    image, has_data = read_pixels(path, COLORS)
    assert np.array_equal(image, scene)
    assert np.array_equal(has_data, expected)
    assert path.with_name("masked.tif.msk").exists() != internal


def test_colors_and_no_data_that_are_told_beside_a_file(tmp_path: Path) -> None:
    indices = np.arange(54, dtype=np.uint8).reshape(6, 9, 1) % 3
    path = write_tiff(tmp_path / "indices.tif", indices)
    assert not is_raster(path)
    colors = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)
    rows = "".join(f'<Entry c1="{r}" c2="{g}" c3="{b}" c4="255"/>' for r, g, b in colors)
    path.with_name("indices.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>2</NoDataValue><ColorInterp>Palette'
        f"</ColorInterp><ColorTable>{rows}</ColorTable></PAMRasterBand></PAMDataset>"
    )
    image, has_data = read_pixels(path, COLORS)
    assert np.array_equal(image, colors[indices[..., 0]])
    assert np.array_equal(has_data, indices[..., 0] != 2)


@pytest.mark.parametrize(
    ("kind", "empty"),
    [("f4", -9999), ("f4", np.inf), ("f4", -3.4028235e38), ("i2", -32768), ("f8", -32767)],
)
def test_no_data_by_custom(scene: np.ndarray, tmp_path: Path, kind: str, empty: float) -> None:
    values = scene.astype(kind)
    values[2:4] = empty
    values[0, 0, 0] = -9999 if kind == "f4" else empty  # in one band alone it is a dark value
    path = write_tiff(tmp_path / "a.tif", values, **UTM)
    image, has_data = read_pixels(path, Bands(value_range=(0, 255)))
    expected = np.arange(6)[:, None].repeat(9, 1) // 2 != 1
    assert np.array_equal(has_data, expected)
    expected[0, 0] = False
    assert np.array_equal(image[expected], scene[expected])
    with pytest.raises(InputError, match=r"perhaps --range \d[\d.]* 2[\d.]* "):
        read_pixels(path, COLORS)


@pytest.mark.parametrize(("shift", "largest"), [(0, 4095), (4, 65535)])
def test_colors_of_16_bits_that_hold_12(tmp_path: Path, shift: int, largest: int) -> None:
    values = np.full((8, 8, 4), 4080 << shift, np.uint16)
    for count in (2, 3, 4):
        path = write_tiff(tmp_path / "a.png", values[..., :count], driver="PNG")
        assert largest_of_16_bits(path) == largest
    black = np.full((8, 8, 3), 0, np.uint16)
    assert largest_of_16_bits(write_tiff(tmp_path / "b.png", black, driver="PNG")) == 0


def test_a_range_that_is_proposed_can_be_given(tmp_path: Path) -> None:
    for value in (3060, 123456):
        low, high = likely_range(np.full(5, value))
        assert Bands(value_range=(low, high)).value_range == (low, high)


@pytest.mark.parametrize("compress", ["LERC", "ZSTD", "WEBP", "DEFLATE", "LZW", "LZMA"])
def test_compressions_that_pillow_does_not_know(
    scene: np.ndarray, tmp_path: Path, compress: str
) -> None:
    options = {"WEBP_LOSSLESS": True} if compress == "WEBP" else {}
    path = write_tiff(tmp_path / "a.tif", scene, photometric="RGB", compress=compress, **options)
    assert np.array_equal(read_pixels(path, COLORS)[0], scene)


@pytest.mark.parametrize("by", ["gdal", "pillow"])
@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
def test_jpeg_2000_of_either_maker(scene: np.ndarray, tmp_path: Path, suffix: str, by: str) -> None:
    image = scene.repeat(8, 0).repeat(8, 1)
    path = tmp_path / f"a{suffix}"
    if by == "pillow":
        Image.fromarray(image).save(path, format="JPEG2000")
    else:
        lossless = {"driver": "JP2OpenJPEG", "REVERSIBLE": "YES", "QUALITY": 100}
        write_tiff(path, image, **lossless)
    assert np.array_equal(read_pixels(path, COLORS)[0], image)
    assert not is_raster(path)


def test_content_without_a_file(scene: np.ndarray, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", scene.astype(np.uint16), nodata=5, **UTM)
    bands = Bands((3, 1), (0, 255))
    for read in (read_pixels, where_data):
        reader: Callable[..., Any] = read
        there, here = reader(path, bands), reader(Path("x"), bands, path.read_bytes())
        for one, other in zip(there, here, strict=True):
            assert np.array_equal(one, other)


def test_without_rasterio_plain_tiffs_are_read_and_others_named(
    scene: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "has_rasterio", lambda: False)
    monkeypatch.setattr(rasters, "has_rasterio", lambda: False)
    plain = write_tiff(tmp_path / "plain.tif", scene, photometric="RGB", **UTM)
    assert np.array_equal(read_pixels(plain, COLORS)[0], scene)
    assert pixel_size(plain) == image_size(plain) == (6, 9)
    for other in (
        write_tiff(tmp_path / "a.tif", scene, nodata=0, **UTM),
        write_tiff(tmp_path / "b.tif", scene.astype(np.float32)),
        write_tiff(tmp_path / "c.tif", with_fourth(scene, 9), **UTM),
    ):
        with pytest.raises(InputError, match=r'install what reads it: pip install "atrous\[geo\]"'):
            read_pixels(other, COLORS)


def test_a_text_that_is_called_an_image_leads_nowhere_else(
    scene: np.ndarray, tmp_path: Path
) -> None:
    """GDAL would read the file, or the host, that a VRT names."""
    write_tiff(tmp_path / "other.tif", scene)
    vrt = tmp_path / "other.vrt"
    rasterio.shutil.copy(tmp_path / "other.tif", vrt, driver="VRT")
    bands = Bands((1, 2, 3))
    assert read_pixels(vrt, bands)[0].shape[2] == 3
    (tmp_path / "photo.tif").write_bytes(vrt.read_bytes())
    with pytest.raises(InputError, match=r"photo.tif: not an image"):
        read_pixels(tmp_path / "photo.tif", bands)
