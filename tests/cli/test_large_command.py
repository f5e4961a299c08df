"""`atrous segment` with rasters, tiles, flips and scales; `atrous evaluate` with the latter."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from color_bundle import TAXONOMY
from rasterio.transform import from_origin

from atrous.cli import main
from atrous.images.label_maps import read_label, write_label
from atrous.images.photos import write_image

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def here(tmp_path: Path, paint: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photo.png and field.tif, which has coordinates, in it."""
    write_image(tmp_path / "photo.png", paint)
    write_geotiff(tmp_path / "field.tif", paint)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_geotiff(path: Path, image: np.ndarray) -> None:
    height, width, count = image.shape
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 1, 1)}
    shape = {"height": height, "width": width, "count": count, "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as file:
        file.write(image.transpose(2, 0, 1))


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_photos_and_rasters_side_by_side(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["segment", ".", "--model", str(tiny_bundle), "--out", "out"]
    assert main(call) == 0
    names = ["field.json", "field.labels.tif", "field.overlay.jpg"]
    names += ["photo.json", "photo.labels.png", "photo.overlay.jpg"]
    assert files_in(here / "out") == names
    printed = capsys.readouterr().out
    assert "field.tif  41x30  paint (fp32, onnxruntime, " in printed
    assert printed.count("  red     39.0 %") == 2
    assert "2 of 2 photos segmented" in printed
    with rasterio.open(here / "out" / "field.labels.tif") as labels:
        assert np.array_equal(labels.read(1), read_label(here / "out" / "photo.labels.png"))
    assert main(["segment", "out", "--model", str(tiny_bundle)]) == 2  # nothing of our own


def test_a_raster_in_json(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bad.tif").write_bytes((here / "field.tif").read_bytes()[:1500])
    call = ["segment", "bad.tif", "field.tif", "--model", str(tiny_bundle), "--json"]
    assert main(call) == 2
    document = json.loads(capsys.readouterr().out)
    (image,) = document["images"]
    assert (image["pixels"]["red"], image["square_metres"]["red"]) == (16 * 30, 16 * 30)
    assert image["files"][0] == "field.labels.tif"
    (error,) = document["errors"]
    assert error.startswith("bad.tif: cannot be read (")
    assert "bad.labels.tif" not in files_in(here)


def test_bands_and_range(here: Path, tiny_bundle: Path, paint: np.ndarray) -> None:
    write_geotiff(here / "deep.tif", paint[..., ::-1].astype(np.uint16) * 4)
    call = ["segment", "deep.tif", "--model", str(tiny_bundle)]
    assert main(call) == 2
    assert main([*call, "--bands", "3", "2", "1", "--range", "0", "1020"]) == 0
    with rasterio.open(here / "deep.labels.tif") as labels:
        assert labels.read(1)[5].tolist() == [0] * 16 + [1] * 12 + [2] * 13


def test_tiles_flips_and_scales(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    image[:, :150, 0] = 255
    write_image(here / "large.png", image)
    call = ["segment", "large.png", "--model", str(tiny_bundle)]
    assert main([*call, "--out", "a", "--tile", "0"]) == 0
    assert main([*call, "--out", "b", "--tile", "128", "--flip", "--scales", "1", "1.5"]) == 0
    assert "  paint with flip and scales 1 1.5 (fp32, " in capsys.readouterr().out
    plain, tiled = (read_label(here / folder / "large.labels.png") for folder in "ab")
    assert (plain == tiled).mean() > 0.98
    for option, value in (("--tile", "100"), ("--scales", "0")):
        assert main([*call, option, value]) == 2
        assert capsys.readouterr().err.startswith(f"error: {option} {value}: give ")


def test_evaluate_with_flips_and_scales(
    here: Path, tiny_bundle: Path, paint: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.zeros((30, 41), np.uint8)
    label[:, 16:28], label[:, 28:] = 1, 2
    write_image(here / "val" / "a.png", paint)
    write_label(here / "truth" / "a.png", label, TAXONOMY)
    pairs = zip(TAXONOMY.classes, map(list, TAXONOMY.colors), strict=True)
    classes = ", ".join(f'{{ name = "{name}", color = {color} }}' for name, color in pairs)
    (here / "dataset.toml").write_text(
        'name = "paint"\nlicence = "CC0"\n[labels]\nencoding = "index"\n'
        f"classes = [{classes}]\n"
        '[splits.val]\nimages = "val/{key}.png"\nlabels = "truth/{key}.png"\n'
    )
    call = ["evaluate", str(tiny_bundle), ".", "--json"]
    assert main([*call, "--flip", "--scales", "1", "2", "--against", str(tiny_bundle)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"].startswith("paint with flip and scales 1 2 (")
    assert document["against"]["model"] == document["model"]
    assert main(["evaluate", ".", "--predictions", "truth", "--flip"]) == 2
    assert "--flip, --scales and --crf need a MODEL" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits")
@pytest.mark.parametrize(("limit", "failed"), [(1000, "labels.tif"), (30_000, "overlay.jpg")])
def test_a_full_disk_leaves_no_file(here: Path, tiny_bundle: Path, limit: int, failed: str) -> None:
    """A limit on the size of files stands in for the disk: the write fails in its midst."""
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    noise = np.random.default_rng(0).integers(0, 3, (200, 200))
    write_geotiff(here / "field.tif", colors[noise])
    script = (
        "import resource, sys; from atrous.cli import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); sys.exit(main())"
    )
    call = ["segment", "field.tif", "--model", str(tiny_bundle), "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-c", script, *call], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: out/field.{failed}: ")
    assert files_in(here / "out") == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGKILL", -9)])
def test_an_end_in_its_midst_leaves_no_half_file(
    here: Path, tiny_bundle: Path, sent: str, code: int
) -> None:
    write_geotiff(here / "field.tif", np.zeros((6000, 6000, 3), np.uint8))
    call = ["segment", "field.tif", "--model", str(tiny_bundle), "--out", "out", "--tile", "128"]
    process = subprocess.Popen(
        [sys.executable, "-m", "atrous", *call],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in background
    )
    while not list(here.glob("out/.field.labels*")) and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.Signals[sent])
    _, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (code, b"")
    assert not list(here.glob("out/field*"))
