"""`--crf` of `atrous segment` and `atrous evaluate`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.cli import main
from atrous.images.label_maps import read_label, write_label
from atrous.images.photos import write_image
from atrous.infer.segmenter import load
from atrous.taxonomy import Taxonomy

STREET = Path(__file__).parents[2] / "docs" / "demo" / "street.jpg"
TAXONOMY = Taxonomy(name="paint", classes=("red", "green", "blue", "grey"), colors=((0, 0, 0),) * 4)


@pytest.fixture
def here(tmp_path: Path, paint: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of one photo, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "val" / "a.png", paint)
    write_label(tmp_path / "truth" / "a.png", paint.argmax(2).astype(np.uint8), TAXONOMY)
    classes = ", ".join(f'"{name}"' for name in TAXONOMY.classes)
    (tmp_path / "dataset.toml").write_text(
        f'name = "paint"\nlicence = "CC0"\n[labels]\nencoding = "index"\nclasses = [{classes}]\n'
        '[splits.val]\nimages = "val/{key}.png"\nlabels = "truth/{key}.png"\n'
    )
    return tmp_path


def test_segment(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Image.open(STREET) as photo:
        photo.resize((160, 120)).save(here / "street.png")
    call = ["segment", "street.png", "--runtime", "onnxruntime", "--json"]
    assert main(call) == 0
    plain = read_label(here / "street.labels.png")
    capsys.readouterr()
    assert main([*call, "--crf", "kazuto"]) == 0
    document = json.loads(capsys.readouterr().out)["images"][0]
    assert document["model"].startswith("camvid, kazuto CRF (int8, onnxruntime, ")
    refined = read_label(here / "street.labels.png")
    model = load("camvid", runtime="onnxruntime", crf="kazuto")
    assert np.array_equal(refined, model("street.png").labels)
    assert 0.8 < (refined == plain).mean() < 1


def test_evaluate(here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["evaluate", str(tiny_bundle), ".", "--crf", "deeplab", "--calibration"]
    assert main([*call, "--against", str(tiny_bundle), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"].startswith("paint, deeplab CRF (")
    assert document["against"]["model"].startswith("paint, deeplab CRF (")
    assert document["pacc"] == 1 and document["ece"] == pytest.approx(0, abs=1e-4)


def test_what_cannot_be_refined(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(tiny_bundle)]
    for call, line in (
        (["segment", "val/a.png", *model, "--crf", "x"], "--crf x: no such parameters; take "),
        (["evaluate", ".", "--predictions", "truth", "--crf", "kazuto"], "need a MODEL"),
        (["segment", "val/a.png", *model, "--crf", "kazuto", "--range", "0", "9"], "a raster, and"),
    ):
        assert main(call) == 2
        error = capsys.readouterr().err
        assert line in error and error.count("\n") == 1
