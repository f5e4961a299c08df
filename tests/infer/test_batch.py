"""Many files at once, as a Python user labels them."""

from pathlib import Path

import numpy as np
from geotiff import write_tiff
from rasterio.transform import from_origin

from atrous.errors import InputError
from atrous.images.bands import Bands
from atrous.images.photos import write_image
from atrous.infer.batch import find_inputs, segment_images
from atrous.infer.segmenter import load


def test_inputs_are_sorted_by_kind_and_no_two_share_a_name(tmp_path: Path, paint: np.ndarray):
    for name in ("in/a.png", "in/a.jpg", "in/deep/a.png", "a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / name, paint)
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 2, 2)}
    write_tiff(tmp_path / "in/field.tif", paint, **place)
    paths = [str(tmp_path / name) for name in ("in", "a.png", "a.png", "in/gone.png")]
    inputs = find_inputs([*paths, "clip.mp4", "rtsp://host/a"], Path("out"))
    assert {path.relative_to(tmp_path).as_posix(): str(t) for path, t in inputs.photos.items()} == {
        "in/a.jpg": "out/a",
        "in/a.png": "out/a.png",
        "in/deep/a.png": "out/deep/a",
        "a.png": "out/a.png-2",
        "in/gone.png": "out/gone",
    }
    assert [str(target) for target in inputs.rasters.values()] == ["out/field"]
    assert {name: str(target) for name, target in inputs.videos.items()} == {
        "clip.mp4": "out/clip",
        "rtsp://host/a": "out/a-2",
    }
    assert len(inputs) == 8


def test_images_are_saved_and_errors_are_results(
    tmp_path: Path, paint: np.ndarray, tiny_bundle: Path
):
    write_image(tmp_path / "a.png", paint)
    (tmp_path / "b.png").write_text("no photo")
    lines: list[str] = []
    inputs = find_inputs([str(tmp_path / name) for name in ("a.png", "b.png")], tmp_path / "out")
    segmenter = load(tiny_bundle, threads=1)
    good, bad = segment_images(segmenter, inputs, notify=lines.append)
    assert not isinstance(good.result, InputError)
    assert good.result.coverage()["red"] == np.float64(16 / 41)
    assert [path.name for path in good.files] == ["a.labels.png", "a.overlay.jpg", "a.json"]
    assert all(path.exists() for path in good.files)
    assert bad.source == tmp_path / "b.png"
    assert isinstance(bad.result, InputError)
    assert (bad.files, lines) == ([], [])


def test_all_images_are_rasters_where_bands_are_named(
    tmp_path: Path, paint: np.ndarray, tiny_bundle: Path
):
    write_image(tmp_path / "a.png", paint)
    inputs = find_inputs([str(tmp_path / "a.png")], tmp_path)
    (saved,) = segment_images(load(tiny_bundle, threads=1), inputs, Bands((3, 2, 1)))
    assert not isinstance(saved.result, InputError)
    assert saved.files[0].name == "a.labels.tif"
    assert saved.result.coverage()["blue"] == np.float64(16 / 41)
