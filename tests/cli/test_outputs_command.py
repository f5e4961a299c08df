"""`atrous segment --write` and `atrous data export`."""

import json
from pathlib import Path

import numpy as np
import pytest
from color_bundle import TAXONOMY
from PIL import Image

from atrous.cli import main
from atrous.data.dataset import Dataset
from atrous.data.shapes import write_shapes
from atrous.images.label_maps import read_label
from atrous.images.photos import write_image


@pytest.fixture
def here(tmp_path: Path, paint: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photos a.png, b/a.bmp and b/a.png below in/."""
    for name in ("a.png", "b/a.bmp", "b/a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "in" / name, paint)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def error_of(call: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(call) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_write(here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["segment", "in", "--model", str(tiny_bundle), "--out", "out", "--write"]
    assert main([*call, "confidence", "polygons", "rle", "cutouts", "masks"]) == 0
    one = ["confidence.png", "polygons.geojson", "rle.json"]
    one += [f"{kind}/{name}.png" for kind in ("cutouts", "masks") for name in TAXONOMY.classes[:3]]
    stems = ("a", "b/a", "b/a.png")
    assert files_in(here / "out") == sorted(f"{stem}.{end}" for stem in stems for end in one)
    assert "  out/a.cutouts/  out/a.masks/\n" in capsys.readouterr().out
    assert "no photos in this folder" in error_of(["segment", "out"], capsys)
    assert main([*call, "polygons", "--tolerance", "2"]) == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--write", "svg"], "svg"),
        (["--tolerance", "1"], "--tolerance simplifies polygons; add --write polygons"),
        (["--write", "polygons", "--tolerance", "-1"], "tolerance"),
        (["clip.mp4", "--write", "masks"], "--write: videos have labels, overlay and json"),
    ],
)
def test_wrong_options(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], error: str
) -> None:
    assert error in error_of(["segment", "in", *options], capsys)
    assert files_in(here) == ["in/a.png", "in/b/a.bmp", "in/b/a.png"]


def test_export_a_data_set(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shapes(here / "shapes", 2, 1)
    assert main(["data", "export", "shapes", "--format", "coco", "--out", "out"]) == 0
    assert "train      2 images\n  val        1 image\nwrote out" in capsys.readouterr().out
    own, exported = Dataset.open("shapes"), Dataset.open("out")
    for name in ("train", "val"):
        for one, other in zip(own.split(name), exported.split(name), strict=True):
            assert one.key == other.key and np.array_equal(one.image, other.image)
            assert np.array_equal(one.label, other.label)


def test_export_predictions(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["segment", "in", "--model", str(tiny_bundle), "--out", "labels"]) == 0
    call = ["data", "export", "in", "--format", "labelme", "--out"]
    assert main([*call, "files", "--labels", "labels"]) == 0
    assert main([*call, "model", "--model", str(tiny_bundle)]) == 0
    for name in ("files", "model"):
        dataset = Dataset.open(name)
        assert dataset.taxonomy.classes == TAXONOMY.classes
        assert dataset.taxonomy.colors == TAXONOMY.colors
        split = dataset.split("photos")
        assert split.keys == ("a", "b/a", "b/a.png")
        for index, key in enumerate(split.keys):
            assert np.array_equal(split.label(index), read_label(here / f"labels/{key}.labels.png"))


def test_export_predictions_for_a_data_set(here: Path, tiny_bundle: Path) -> None:
    write_shapes(here / "shapes", 1, 2)
    assert main(["segment", "shapes/val", "--model", str(tiny_bundle), "--out", "labels"]) == 0
    call = ["data", "export", "shapes", "--split", "val", "--format", "yolo", "--out"]
    assert main([*call, "files", "--labels", "labels"]) == 0
    assert main([*call, "model", "--model", str(tiny_bundle)]) == 0
    for name, classes in (("files", "ground"), ("model", "red")):
        dataset = Dataset.open(name)
        assert dataset.taxonomy.classes[0] == classes
        labels = [read_label(here / f"labels/{key}.labels.png") for key in ("0000", "0001")]
        split = dataset.split("val")
        assert all(np.array_equal(split.label(i), label) for i, label in enumerate(labels))


def test_a_photo_that_cannot_be_read_is_left_out(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "in/bad.jpg").write_text("none")
    call = ["data", "export", "in", "--model", str(tiny_bundle), "--format", "cvat"]
    assert main([*call, "--out", "out"]) == 2
    printed = capsys.readouterr()
    assert "photos     3 images" in printed.out and "left out: in/bad.jpg: " in printed.err


def test_wrong_exports(here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shapes(here / "shapes", 1, 1)
    assert main(["segment", "in", "--model", str(tiny_bundle), "--out", "labels"]) == 0
    to_coco = ["--format", "coco", "--out", "out"]
    for source, options, error in (
        ("in", to_coco, "in: no dataset.toml in it; for photos, give --model or --labels"),
        ("nowhere", to_coco, "nowhere: no such file"),
        ("in", [*to_coco, "--labels", "in"], "a.labels.png: no such file; give the folder"),
        ("in", [*to_coco, "--split", "val"], "--split and --root go with a dataset.toml"),
        ("in", [*to_coco, "--labels", "x", "--model", "y"], "--labels and --model: give one"),
        ("in", ["--format", "cvat", "--out", "out", "--tolerance", "1"], "cvat gets masks"),
        ("shapes", [*to_coco, "--split", "test"], "no split 'test'; it has train, val"),
        ("shapes", ["--format", "svg", "--out", "out"], "svg"),
        ("shapes", ["--format", "coco", "--out", "in"], "in: exists already"),
    ):
        assert error in error_of(["data", "export", source, *options], capsys)
    (here / "labels/a.json").unlink()
    call = ["data", "export", "in", "--labels", "labels", *to_coco]
    assert "a.json: no such file; it names the classes" in error_of(call, capsys)
    (here / "labels/a.json").write_text(json.dumps({"classes": ["x"]}))
    assert "other classes than" in error_of(call, capsys)
    for name in ("labels/b/a.json", "labels/b/a.png.json"):
        (here / name).write_text(json.dumps({"classes": ["x"]}))
    assert "a.labels.png: holds 1, where train ids 0 to 0" in error_of(call, capsys)
    Image.new("L", (3, 3)).save(here / "labels/a.labels.png")
    assert "a.labels.png: another size than" in error_of(call, capsys)
    assert not (here / "out").exists()


def test_shards_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shapes(here / "shapes", 1, 1)
    assert main(["data", "pack", "shapes", "--out", "packed"]) == 0
    call = ["data", "export", "packed", "--format", "coco", "--out", "out"]
    assert "is packed; export the set that it was packed from" in error_of(call, capsys)
