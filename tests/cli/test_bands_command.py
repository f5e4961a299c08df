"""Files of more than three bands, from `evaluate` to `segment`: the same pixels to both."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from color_bundle import TAXONOMY, write_color_bundle
from geotiff import write_tiff
from rasterio.transform import from_origin

from atrous.cli import main
from atrous.images.label_maps import write_label
from atrous.images.photos import write_image
from atrous.metrics import Confusion

PLACE = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5.6e6, 1, 1)}
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def tiles(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images (32, 48, 3) of stripes in the bundle's colours, and their labels."""
    stripes = np.arange(count * 3, dtype=np.uint8).reshape(count, 1, 3) * 2 % 3
    labels = stripes.repeat(32, 1).repeat(16, 2)
    return [(np.array(TAXONOMY.colors, np.uint8)[label], label) for label in labels]


def write_set(folder: Path, images: list[np.ndarray], top: str = "", **profile: Any) -> Path:
    for number, (image, (_, label)) in enumerate(zip(images, tiles(len(images)), strict=True)):
        write_tiff(folder / f"val/{number}.tif", image, **profile)
        write_label(folder / f"truth/{number}.png", label, TAXONOMY)
    (folder / "dataset.toml").write_text(
        f'name = "paint"\n{top}\n[labels]\nencoding = "index"\n'
        f"classes = {json.dumps(TAXONOMY.classes)}\n"
        '[splits.val]\nimages = "val/{key}.tif"\nlabels = "truth/{key}.png"\n'
    )
    return folder


def miou(data: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> tuple[float, str]:
    capsys.readouterr()
    assert main(["evaluate", str(model), str(data), "--json"]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out)["miou"], printed.err


def labels_in(folder: Path, count: int) -> list[np.ndarray]:
    files = [next(folder.glob(f"{number}.labels.*")) for number in range(count)]
    return [rasterio.open(file).read(1) for file in files]


@pytest.mark.parametrize("profile", [{}, PLACE])
def test_an_infrared_band_is_no_transparency_to_evaluate_or_segment(
    tmp_path: Path,
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    profile: dict[str, Any],
) -> None:
    infrared = [np.full((32, 48), 255), np.full((32, 48), 0), np.full((32, 48), 77)]
    images = [
        np.dstack([a, b]).astype(np.uint8) for (a, _), b in zip(tiles(3), infrared, strict=True)
    ]
    data = write_set(tmp_path / "data", images, **profile)
    score, err = miou(data, tiny_bundle, capsys)
    assert score == 1
    assert "fourth band of the TIFFs: no transparency, because 2.tif holds more" in err
    call = ["segment", str(data / "val"), "--model", str(tiny_bundle), "--out"]
    for options in ([], ["--bands", "1", "2", "3"]):
        assert main([*call, str(tmp_path / "out"), *options]) == 0
        assert "fourth band of the TIFFs: no transparency" in capsys.readouterr().err
        for found, (_, label) in zip(labels_in(tmp_path / "out", 3), tiles(3), strict=True):
            assert np.array_equal(found, label)


@pytest.mark.parametrize("profile", [{}, PLACE])
def test_transparency_of_0_is_scored_by_nobody(
    tmp_path: Path,
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    profile: dict[str, Any],
) -> None:
    opaque = np.full((32, 48), 255)
    opaque[8:16] = 0
    images = [np.dstack([a, opaque]).astype(np.uint8) for a, _ in tiles(2)]
    images[0][8:16, :, :3] = 90  # grey, which would be wrong, as it is within 4 pixels of it
    data = write_set(tmp_path / "data", images, **profile)
    score, err = miou(data, tiny_bundle, capsys)
    assert "transparency, because it is 0 or 255 in all of them" in err
    out = tmp_path / "out"
    assert main(["segment", str(data / "val"), "--model", str(tiny_bundle), "--out", str(out)]) == 0
    confusion = Confusion(len(TAXONOMY.classes))
    for found, (_, label) in zip(labels_in(out, 2), tiles(2), strict=True):
        expected = np.where(opaque > 0, label, 255)
        assert np.array_equal(found == 255, expected == 255)
        assert np.array_equal(found[20:], expected[20:])
        confusion.update(found, expected.astype(np.uint8), "")
    assert score == confusion.scores().miou
    if not profile:  # the same truth counts where predictions are files
        capsys.readouterr()
        assert main(["evaluate", str(data), "--predictions", str(out), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["miou"] == score


def test_bands_and_range_of_a_bundle_are_its_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle takes band 5 first, and looks at the others: blue, green and red turned round."""
    model = write_color_bundle(
        tmp_path / "four.onnx", bands=(5, 3, 2, 1), value_range=(100.0, 3160.0)
    )
    deep = [np.dstack([a[..., ::-1], a[..., :2]]).astype(np.uint16) * 12 + 100 for a, _ in tiles(2)]
    said = "bands = [5, 3, 2, 1]\nrange = [100, 3160]"
    data = write_set(tmp_path / "data", deep, said, nodata=0, **PLACE)
    assert miou(data, model, capsys)[0] == 1
    out = str(tmp_path / "out")
    call = ["segment", str(data / "val"), "--model", str(model), "--out", out]
    assert main(call) == 0
    for found, (_, label) in zip(labels_in(tmp_path / "out", 2), tiles(2), strict=True):
        assert np.array_equal(found, label)
    assert main([*call, "--flip", "--scales", "1", "2"]) == 0
    for found, (_, label) in zip(labels_in(tmp_path / "out", 2), tiles(2), strict=True):
        assert (found == label).mean() > 0.9
    other = write_color_bundle(
        tmp_path / "other.onnx", bands=(4, 3, 2, 1), bands_of=4, value_range=(100.0, 3160.0)
    )
    capsys.readouterr()
    assert main(["segment", str(data / "val"), "--model", str(other), "--out", out]) == 2
    assert (
        "0.tif: 5 bands, where the model was trained on files of 4; say which the model takes, "
        "such as --bands 4 3 2 1"
    ) in capsys.readouterr().err
    call[3] = str(other)
    assert main([*call, "--bands", "5", "3", "2", "1"]) == 0
    for found, (_, label) in zip(labels_in(tmp_path / "out", 2), tiles(2), strict=True):
        assert np.array_equal(found, label)
    for options, message in (
        (["--bands", "3", "2", "1"], "3 bands; say which are the model's 4, such as --bands 4 3"),
        (["--bands", "9", "3", "2", "1"], "0.tif: has no band 9; give --bands from 1 to 5"),
    ):
        capsys.readouterr()
        assert main([*call, *options]) == 2
        assert message in capsys.readouterr().err
    (data / "dataset.toml").write_text(
        (data / "dataset.toml").read_text().replace("bands = [5, 3, 2, 1]", "bands = [3, 2, 1]")
    )
    assert main(["evaluate", str(model), str(data)]) == 2
    err = capsys.readouterr().err
    assert "0: 3 bands, where four takes 4; give images of these, or bands in" in err


def test_a_photo_has_too_few_bands_for_such_a_model(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_color_bundle(tmp_path / "four.onnx", bands=(4, 3, 2, 1))
    write_tiff(tmp_path / "a.tif", tiles(1)[0][0], photometric="RGB")
    assert main(["segment", str(tmp_path / "a.tif"), "--model", str(model)]) == 2
    assert "a.tif: has no band 4; give --bands from 1 to 3" in capsys.readouterr().err


def test_a_photo_has_too_few_bands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the line says to do must be possible."""
    model = write_color_bundle(tmp_path / "four.onnx", bands=(4, 3, 2, 1), bands_of=4)
    write_image(tmp_path / "photo.png", np.zeros((8, 9, 3), np.uint8))
    photo, out = str(tmp_path / "photo.png"), str(tmp_path / "out")
    assert main(["segment", photo, "--model", str(model), "--out", out]) == 2
    assert capsys.readouterr().err == (
        f"error: {photo}: 3 bands, where the model was trained on files of 4; give files that "
        "have them all\n"
    )
