"""Rasters from disk to disk: what is kept, what is left out, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from color_bundle import TAXONOMY
from geotiff import write_tiff
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin

from atrous.errors import InputError
from atrous.images import pixels
from atrous.images.bands import Bands
from atrous.images.photos import write_image
from atrous.images.pixels import is_raster
from atrous.infer.raster import segment as large
from atrous.infer.raster.segment import segment_raster
from atrous.infer.segmenter import Segmenter, load

UTM = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 0.5, 0.5)}


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    return load(tiny_bundle, threads=2, calls=2, tile=128)


@pytest.fixture
def field() -> np.ndarray:
    """An image (300, 413, 3): red, with a blue rectangle across the borders of tiles."""
    image = np.zeros((300, 413, 3), np.uint8)
    image[..., 0] = 255
    image[80:220, 100:320] = [0, 0, 255]
    return image


def test_a_geotiff_keeps_its_coordinates(
    segmenter: Segmenter, field: np.ndarray, tmp_path: Path
) -> None:
    path = write_tiff(tmp_path / "field.tif", field, **UTM)
    result, files = segment_raster(segmenter, path, tmp_path / "out" / "field")
    assert [file.name for file in files] == ["field.labels.tif", "field.overlay.jpg", "field.json"]
    assert sorted((tmp_path / "out").iterdir()) == sorted(files)
    with rasterio.open(files[0]) as labels:
        assert (labels.crs, labels.transform) == (UTM["crs"], UTM["transform"])
        assert (labels.dtypes, labels.nodata) == (("uint8",), 255)
        assert labels.colormap(1)[2][:3] == TAXONOMY.colors[2]
        assert (labels.profile["tiled"], labels.compression.value) == (True, "DEFLATE")
        assert np.array_equal(labels.read(1), segmenter.predict(field))
    counts = np.bincount(segmenter.predict(field).ravel(), minlength=4)
    assert result.counts.tolist() == counts.tolist()
    document = json.loads(files[2].read_text("utf-8"))
    assert document == result.to_dict()
    assert document["pixels"]["red"] == counts[0] > counts[2] > 140 * 200
    assert document["square_metres"]["red"] == counts[0] / 4
    assert (document["crs"], document["size"]) == ("EPSG:32632", [300, 413])
    with Image.open(files[1]) as overlay:
        assert overlay.height >= 300
        assert np.abs(np.subtract(overlay.getpixel((5, 5)), (255, 0, 0))).max() < 8


@pytest.mark.parametrize(
    ("crs", "metres"), [("EPSG:2263", 0.3048006096), ("EPSG:4326", None), ("EPSG:3857", None)]
)
def test_areas_are_told_where_they_are_true(
    segmenter: Segmenter, tmp_path: Path, crs: str, metres: float | None
) -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    transform = Affine(2, 1.5, 10, 1, -2.25, 20)
    path = write_tiff(tmp_path / "a.tif", image, crs=crs, transform=transform)
    document = segment_raster(segmenter, path, tmp_path / "a")[0].to_dict()
    if metres is None:
        assert "square_metres" not in document
    else:
        (area,) = document["square_metres"].values()
        assert area == pytest.approx(40 * 50 * 6 * metres**2, rel=1e-6)


def test_control_points_are_kept(segmenter: Segmenter, tmp_path: Path) -> None:
    corners = [(0, 0), (0, 50), (40, 0), (40, 50)]
    points = [GroundControlPoint(row, col, 9 + col, 50 - row, 0) for row, col in corners]
    image = np.zeros((40, 50, 3), np.uint8)
    path = write_tiff(tmp_path / "a.tif", image, gcps=points, crs="EPSG:4326")
    assert is_raster(path)
    _, files = segment_raster(segmenter, path, tmp_path / "a")
    with rasterio.open(files[0]) as labels:
        kept, crs = labels.gcps
    assert [(p.row, p.col, p.x, p.y) for p in kept] == [(p.row, p.col, p.x, p.y) for p in points]
    assert crs == "EPSG:4326"


def test_pixels_without_data_have_no_class(
    segmenter: Segmenter, field: np.ndarray, tmp_path: Path
) -> None:
    alpha = np.full((300, 413, 1), 255, np.uint8)
    alpha[:, 350:] = 0
    path = write_tiff(tmp_path / "a.tif", np.concatenate([field, alpha], 2), photometric="rgb")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*file.colorinterp[:3], ColorInterp.alpha]
    result, files = segment_raster(segmenter, path, tmp_path / "a")
    with rasterio.open(files[0]) as labels:
        assert (labels.read(1) == 255).all(axis=0).tolist() == [x >= 350 for x in range(413)]
    assert result.counts.sum() == 300 * 350
    assert sum(result.coverage().values()) == pytest.approx(1)
    assert result.to_dict()["pixels_without_data"] == 300 * 63


def test_nothing_but_nodata(segmenter: Segmenter, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((200, 200, 3), np.uint8), nodata=0)
    result, _ = segment_raster(segmenter, path, tmp_path / "a")
    assert (result.coverage(), result.counts.sum()) == ({}, 0)


def test_sixteen_bits_and_many_bands_need_a_word(
    segmenter: Segmenter, field: np.ndarray, tmp_path: Path
) -> None:
    bands = np.concatenate([field[..., ::-1].astype(np.uint16) * 12, field[..., :2]], 2)
    path = write_tiff(tmp_path / "a.tif", bands)
    assert is_raster(path)
    with pytest.raises(InputError, match=r"a\.tif: 5 bands; say which .* --bands 3 2 1"):
        segment_raster(segmenter, path, tmp_path / "a")
    with pytest.raises(InputError, match=r"a\.tif: uint16 values; say .* --range 0 3060 "):
        segment_raster(segmenter, path, tmp_path / "a", bands=Bands((3, 2, 1)))
    bands, _ = segmenter.reading([path], (3, 2, 1), (0, 3060))
    assert bands == Bands((3, 2, 1), (0, 3060))
    _, files = segment_raster(segmenter, path, tmp_path / "a", bands=bands)
    with rasterio.open(files[0]) as labels:
        assert np.array_equal(labels.read(1), segmenter.predict(field))
    with pytest.raises(InputError, match=r"a\.tif: has no band 9"):
        segment_raster(segmenter, path, tmp_path / "a", bands=Bands((1, 2, 9)))
    with pytest.raises(InputError, match="2 bands; say which are red, green and blue"):
        segmenter.reading([path], (1, 2))
    for black, white in ((5, 5), (5, 2), (0, np.inf), (np.nan, 1)):
        with pytest.raises(InputError, match=f"range {black:g} {white:g}: "):
            segmenter.reading([path], (1,), (black, white))


def test_complex_values_are_refused(segmenter: Segmenter, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.ones((9, 9, 1), np.complex64))
    with pytest.raises(InputError, match=r"a\.tif: complex values are no colours"):
        segment_raster(segmenter, path, tmp_path / "a")


def test_one_band_is_grey_and_not_a_number_is_no_data(segmenter: Segmenter, tmp_path: Path) -> None:
    heights = np.full((50, 60, 1), 5.0, np.float32)
    heights[:10] = np.nan
    path = write_tiff(tmp_path / "a.tif", heights, nodata=np.nan)
    bands = Bands(value_range=(0, 10))
    result, _ = segment_raster(segmenter, path, tmp_path / "a", bands=bands)
    assert dict(result.coverage()) == {"grey": 1}
    assert result.counts.sum() == 40 * 60


def test_a_palette_counts_by_its_colors(segmenter: Segmenter, tmp_path: Path) -> None:
    indices = np.repeat(np.arange(2, dtype=np.uint8), 20)[None, :, None].repeat(40, 0)
    path = write_tiff(tmp_path / "a.tif", indices, photometric="palette", **UTM)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (0, 0, 255), 1: (255, 0, 0)})
    result, files = segment_raster(segmenter, path, tmp_path / "a")
    assert result.counts.tolist() == [800, 0, 800, 0]
    with rasterio.open(files[0]) as labels:
        assert (labels.read(1)[0, [0, -1]] == [2, 0]).all()
    with pytest.raises(InputError, match=r"a\.tif: colours by a palette; leave bands out"):
        segment_raster(segmenter, path, tmp_path / "a", bands=Bands((1, 1, 1)))


def test_what_is_a_raster(
    field: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write_tiff(tmp_path / "plain.tif", field)
    big = write_tiff(tmp_path / "big.tif", field, BIGTIFF="YES", **UTM)
    write_image(tmp_path / "photo.jpg", field)
    (tmp_path / "bad.tif").write_bytes(b"II*\0hello")
    photos = [plain, tmp_path / "photo.jpg", tmp_path / "bad.tif", tmp_path / "none.tif"]
    assert is_raster(big)
    assert not any(map(is_raster, photos))
    monkeypatch.setattr(pixels, "MAX_PIXELS", 300 * 413 - 1)
    assert [is_raster(path) for path in photos] == [True, True, False, False]


def test_a_photo_too_large_for_pillow(
    segmenter: Segmenter, field: np.ndarray, tmp_path: Path
) -> None:
    write_image(tmp_path / "photo.jpg", field)
    _, files = segment_raster(segmenter, tmp_path / "photo.jpg", tmp_path / "photo")
    with rasterio.open(files[0]) as labels:
        assert (labels.read(1) == segmenter.predict(field)).mean() > 0.98  # JPEG's own colours
    turned = Image.fromarray(field)
    turned.getexif()[274] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    with pytest.raises(InputError, match=r"turned\.jpg: turned by EXIF"):
        segment_raster(segmenter, tmp_path / "turned.jpg", tmp_path / "turned")


def test_damage_is_one_line_and_leaves_nothing(
    segmenter: Segmenter, field: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_tiff(tmp_path / "field.tif", field, **UTM)
    path.write_bytes(path.read_bytes()[:200_000])
    (tmp_path / "text.tif").write_text("hello")
    for damaged in (path, tmp_path / "text.tif"):
        message = rf"{damaged.name}: (cannot be read \([^\n]*\)|not an image, [^\n]*); "
        with pytest.raises(InputError, match=message) as e:
            segment_raster(segmenter, damaged, tmp_path / "out" / "a")
        assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    assert capfd.readouterr().err == ""


def test_an_interrupt_leaves_nothing(
    segmenter: Segmenter, field: np.ndarray, tmp_path: Path
) -> None:
    path = write_tiff(tmp_path / "field.tif", field, **UTM)

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_raster(segmenter, path, tmp_path / "out" / "a", progress=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


def test_without_tiles_a_large_raster_is_refused(
    tiny_bundle: Path, field: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiff(tmp_path / "field.tif", field, **UTM)
    whole = load(tiny_bundle, threads=1, tile=0)
    result, _ = segment_raster(whole, path, tmp_path / "a")
    assert result.counts.sum() == field[..., 0].size
    monkeypatch.setattr(large, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match=r"field\.tif: 413x300 pixels at once; leave --tile 0 out"):
        segment_raster(whole, path, tmp_path / "a")
