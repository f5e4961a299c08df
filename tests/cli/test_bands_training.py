"""Four bands, from dataset.toml through a training and its bundle to labels of a GeoTIFF."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from safetensors.torch import load_file

from atrous.cli import main
from atrous.images.label_maps import write_label
from atrous.infer.segmenter import load
from atrous.taxonomy import Taxonomy

TWO = Taxonomy(name="two", classes=("land", "water"), colors=((1, 2, 3), (4, 5, 6)))
RANGE = [100.0, 3160.0]
SMALL = "--model fcn8s --backbone resnet10t --crop-size 48 64 --batch-size 2 --num-workers 0"
SHORT = "--warmup-steps 2 --no-pretrained"


def write_set(folder: Path, top: str, count: int = 4) -> Path:
    """Land and water, which only infrared, the last of four bands of 16 bits, tells apart."""
    rng = np.random.default_rng(0)
    for split, number in ((s, n) for s in ("train", "val") for n in range(count)):
        label = np.zeros((48, 64), np.uint8)
        label[:, 10 + 10 * number :] = 1
        image = rng.integers(60, 90, (4, 48, 64))
        image[3] += 120 * (label == 0)
        path = folder / split / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=48,
            width=64,
            count=4,
            dtype="uint16",
            crs="EPSG:32633",
            transform=from_origin(5e5, 5.6e6, 1, 1),
        ) as file:
            file.write((image * 12 + 100).astype(np.uint16))
        write_label(folder / f"{split}-labels" / f"{number}.png", label, TWO)
    (folder / "dataset.toml").write_text(
        f'name = "two"\n{top}\n[labels]\nencoding = "index"\nclasses = ["land", "water"]\n'
        '[splits.train]\nimages = "train/{key}.tif"\nlabels = "train-labels/{key}.png"\n'
        '[splits.val]\nimages = "val/{key}.tif"\nlabels = "val-labels/{key}.png"\n'
    )
    return folder


def train(data: Path, out: Path, *options: str) -> int:
    call = ["train", "plain", "--data", str(data), "--out", str(out)]
    return main([*call, *SMALL.split(), *SHORT.split(), *options])


@pytest.mark.slow
def test_four_bands_from_training_to_a_geotiff(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_set(tmp_path / "data", f"bands = [4, 3, 2, 1]\nrange = {RANGE}")
    run, bundle = tmp_path / "run", tmp_path / "four.onnx"
    assert train(data, run, "--num-steps", "12", "--base-lr", "0.005") == 0
    err = capsys.readouterr().err
    assert "bands: 4 of no known color, 3 of no known color, " in err
    assert "black 100, white 3160; no jitter of saturation and hue" in err
    assert main(["export", str(run), "--out", str(bundle)]) == 0
    assert "labels equal to torch fp32 on 100.0 %" in capsys.readouterr().out
    reading = load(bundle, runtime="onnxruntime").metadata.reading
    assert (reading.numbers, reading.value_range) == ((4, 3, 2, 1), tuple(RANGE))
    tile, found = data / "val" / "2.tif", []
    for name, model in (("torch", run), ("onnxruntime", bundle), ("openvino", bundle)):
        out = tmp_path / name
        call = ["segment", str(tile), "--model", str(model), "--out", str(out), "--runtime", name]
        assert main(call) == 0
        with rasterio.open(out / "2.labels.tif") as labels:
            assert labels.crs == "EPSG:32633"
            found.append(labels.read(1))
        assert (out / "2.overlay.jpg").is_file()
    assert np.array_equal(found[0], found[1])
    assert (found[0] == found[2]).mean() > 0.99
    truth = np.zeros((48, 64), np.uint8)
    truth[:, 30:] = 1
    assert (found[0] == truth).mean() > 0.9
    photo = load(run, runtime="torch")(tile)  # as Python users call it
    assert np.array_equal(photo.labels, found[0])
    assert photo.image.shape == (48, 64, 3)


def test_a_start_from_three_bands_is_spread_and_a_resume_keeps_its_bands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three = write_set(tmp_path / "three", f"bands = [3, 2, 1]\nrange = {RANGE}", count=2)
    assert train(three, tmp_path / "first", "--num-steps", "1") == 0
    data = write_set(tmp_path / "data", f"bands = [4, 3, 2, 1]\nrange = {RANGE}", count=2)
    start = ["--num-steps", "1", "--base-lr", "1e-12", "--init", str(tmp_path / "first")]
    assert train(data, tmp_path / "second", *start) == 0
    before, after = (load_file(tmp_path / r / "best.safetensors") for r in ("first", "second"))
    stem = next(name for name, weight in before.items() if weight.shape[1:2] == (3,))
    mean = before[stem].mean(1, keepdim=True) * 3 / 4
    assert after[stem].shape[1] == 4
    assert torch.allclose(after[stem], mean.expand_as(after[stem]), atol=1e-6)
    again = [*start, "--resume"]
    text = (data / "dataset.toml").read_text()
    for old, new, message in (
        ("[4, 3, 2, 1]", "[1, 2, 3, 4]", "bands 1 2 3 4 and range 100.0 3160.0; "),
        ("3160", "255", "bands 4 3 2 1 and range 100.0 255"),
    ):
        (data / "dataset.toml").write_text(text.replace(old, new))
        capsys.readouterr()
        assert train(data, tmp_path / "second", *again) == 2
        started = "was started on images of bands 4 3 2 1 and range 100.0 3160.0, not "
        assert started + message in capsys.readouterr().err
