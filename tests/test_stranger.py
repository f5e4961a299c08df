"""A folder that no one has prepared: doctor, training, evaluation and packing, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from atrous.cli import main
from atrous.data.dataset import Dataset

SIZE = (64, 48)  # width, height
COLORS = {"sky": (70, 130, 180), "road": (128, 64, 128), "car": (0, 0, 142)}
SMALL = [
    "--backbone", "resnet18", "--no-pretrained", "--num-steps", "4", "--crop-size", "32", "48",
    "--batch-size", "2", "--num-workers", "0", "--aspp-channels", "8", "--decoder-channels", "8",
    "--atrous-rates", "2", "--warmup-steps", "1",
]  # fmt: skip


def write_stranger(folder: Path, count: int = 20) -> None:
    """Photos and masks in colours; every fourth mask was made larger with interpolation."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        resized = index % 4 == 0
        width, height = (side // 2 if resized else side for side in SIZE)
        mask = Image.new("RGB", (width, height), COLORS["sky"])
        pen = ImageDraw.Draw(mask)
        pen.rectangle((0, height // 2, width, height), COLORS["road"])
        x, y = int(rng.integers(2, width // 2)), height // 2 - 2
        pen.rectangle((x, y, x + width // 3, y + height // 3), COLORS["car"])
        mask = mask.resize(SIZE, Image.Resampling.BILINEAR)
        noise = rng.normal(0, 20, (SIZE[1], SIZE[0], 3))
        photo = np.clip(np.asarray(mask) + noise, 0, 255).astype(np.uint8)
        mask.save(folder / f"masks/{index:03}.png")
        Image.fromarray(photo).save(folder / f"images/{index:03}.jpg")


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_stranger(Path("photos"))
    return Path("photos")


@pytest.mark.slow
def test_doctor_train_evaluate_pack(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "doctor", "photos", "--write"]) == 0
    dataset = Dataset.open(stranger)
    assert sorted(dataset.taxonomy.colors) == sorted(COLORS.values())
    assert dataset.encoding.name == "rgb"
    assert sum(len(dataset.split(name)) for name in dataset.splits) == 20
    for name in dataset.splits:
        for sample in dataset.split(name):
            assert (sample.label < 3).all()  # no edge stays without a class
            truth = np.asarray(Image.open(stranger / f"masks/{Path(sample.key).stem}.png"))
            for train_id, color in enumerate(dataset.taxonomy.colors):
                assert (sample.label[(truth == color).all(2)] == train_id).all()

    assert main(["train", "--data", "photos", "--out", "runs/mine", *SMALL]) == 0
    capsys.readouterr()
    assert main(["evaluate", "runs/mine", "photos", "--json"]) == 0
    of_files = json.loads(capsys.readouterr().out)
    assert of_files["images"] == len(dataset.split("val"))

    assert main(["data", "pack", "photos", "--out", "shards"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "runs/mine", "shards", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["confusion"] == of_files["confusion"]


def test_a_bad_validation_mask_is_told_of_at_the_start(
    stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "doctor", "photos", "--write"]) == 0
    dataset = Dataset.open(stranger)
    for key in dataset.split("val").keys:
        (stranger / f"masks/{Path(key).stem}.png").write_text("not a picture")
    capsys.readouterr()
    assert main(["train", "--data", "photos", "--out", "runs/mine", *SMALL]) == 2
    assert "not an image" in capsys.readouterr().err.splitlines()[-1]
    assert not Path("runs/mine").exists()


def test_without_a_description_the_doctor_is_named(
    stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", "photos", *SMALL]) == 2
    assert "atrous data doctor photos --write" in capsys.readouterr().err.splitlines()[-1]
