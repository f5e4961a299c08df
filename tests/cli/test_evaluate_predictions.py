"""`atrous evaluate --predictions` and `--against`: what other programs write, and what we write."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.cli import main
from atrous.images.photos import write_image
from atrous.infer.segmenter import load

CLASSES = ("red", "green", "blue", "grey")
DESCRIPTION = """\
name = "paint"
[labels]
encoding = "index"
classes = [{classes}]
[splits.val]
images = "{images}"
labels = "masks/{{key}}.png"
"""


def describe(folder: Path, images: str = "images/{key}.png", classes: tuple = CLASSES) -> Path:
    names = ", ".join(f'"{name}"' for name in classes)
    (folder / "dataset.toml").write_text(DESCRIPTION.format(classes=names, images=images))
    return folder


@pytest.fixture
def data(tmp_path: Path, paint: np.ndarray, tiny_bundle: Path) -> Path:
    """Three photos of several sizes; the bundle is right but for some pixels, some are ignored."""
    folder = tmp_path / "data"
    for number in range(3):
        image = np.roll(paint, 5 * number, axis=1)[: 30 - number]
        label = load(tiny_bundle).predict(image).copy()
        label[0], label[1, : 5 * number + 5] = 255, 3
        write_image(folder / f"images/{number}.png", image)
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(label).save(folder / f"masks/{number}.png")
    return describe(folder)


def scored(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[dict, str]:
    """The JSON of a call that must succeed, and its standard error."""
    code = main(["evaluate", *map(str, arguments), "--json"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return json.loads(shown.out), shown.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a call that must be refused."""
    assert main(["evaluate", *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1
    return shown.err


def labels_of(bundle: Path, data: Path) -> dict[str, np.ndarray]:
    segmenter = load(bundle)
    return {path.stem: segmenter(path).labels for path in sorted((data / "images").iterdir())}


@pytest.mark.parametrize("where", ["images", "."])
def test_what_segment_wrote_scores_as_the_model_does(
    data: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    """Overlays and JSON beside the labels are passed over; so are labels of other photos."""
    write_image(data / "images/other.png", np.zeros((8, 8, 3), np.uint8))
    describe(data)
    (data / "list.txt").write_text("0\n1\n2\n")
    toml = data / "dataset.toml"
    toml.write_text(toml.read_text() + 'list = "list.txt"\n')
    out = data.parent / "seen"
    command = ["segment", str(data / where), "--model", str(tiny_bundle), "--out", str(out)]
    assert main(command) == 0
    capsys.readouterr()
    model, _ = scored(capsys, tiny_bundle, data)
    files, said = scored(capsys, data, "--predictions", out)
    assert files["confusion"] == model["confusion"] and 0 < files["miou"] < 1
    nested = "" if where == "images" else "images/"
    masks = "" if where == "images" else "masks/0.labels.png, masks/1.labels.png, "
    assert said.startswith(f"{out}: passed over {nested}other.labels.png, {masks}")
    assert f"{4 if where == 'images' else 7} .json" in said and said.count("\n") == 1


def test_labels_of_a_raster_score_as_those_of_a_photo(
    data: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rasterio = pytest.importorskip("rasterio")
    for path in sorted((data / "images").iterdir()):
        pixels = np.array(Image.open(path)).transpose(2, 0, 1)
        profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
        size = {"height": pixels.shape[1], "width": pixels.shape[2]}
        place = rasterio.transform.from_origin(5e5, 5e6, 1, 1)
        with rasterio.open(path.with_suffix(".tif"), "w", **profile, **size, transform=place) as f:
            f.write(pixels)
    model, _ = scored(capsys, tiny_bundle, data)
    out = data.parent / "seen"
    rasters = [str(data / f"images/{i}.tif") for i in range(3)]
    assert main(["segment", *rasters, "--model", str(tiny_bundle), "--out", str(out)]) == 0
    assert (out / "0.labels.tif").exists()
    capsys.readouterr()
    files, said = scored(capsys, data, "--predictions", out)
    assert files["confusion"] == model["confusion"]
    assert said == f"{out}: passed over 3 .jpg, 3 .json\n"


def test_labels_by_a_model_of_other_classes_are_refused(
    data: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = data.parent / "seen"
    main(["segment", str(data / "images"), "--model", str(tiny_bundle), "--out", str(out)])
    capsys.readouterr()
    describe(data, classes=("green", "red", "blue", "grey"))
    assert "0.json" in (line := refused(capsys, data, "--predictions", out))
    assert "in another order" in line
    for file in out.glob("*.json"):  # a note of another program says nothing of classes
        file.write_text("[1, 2]")
    scored(capsys, data, "--predictions", out)


RIGHT = {
    "png": lambda a, p: Image.fromarray(a).save(p.with_suffix(".png")),
    "upper": lambda a, p: Image.fromarray(a).save(p.with_suffix(".PNG")),
    "tif": lambda a, p: Image.fromarray(a).save(p.with_suffix(".tif")),
    "bmp": lambda a, p: Image.fromarray(a).save(p.with_suffix(".bmp")),
    "16 bits": lambda a, p: Image.fromarray(a.astype(np.uint16)).save(p.with_suffix(".png")),
    "32 bits": lambda a, p: Image.fromarray(a.astype(np.int32)).save(p.with_suffix(".tif")),
    "palette": lambda a, p: with_palette(a).save(p.with_suffix(".png")),
    "2 bits": lambda a, p: with_palette(a).save(p.with_suffix(".png"), bits=2),
    "nested": lambda a, p: save(a, p.parent / f"images/{p.name}.png"),
    "beside extra files": lambda a, p: [save(a, p.with_suffix(".png")), save(a, f"{p}_copy.png")],
}


def save(array: np.ndarray, path: Path | str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def with_palette(array: np.ndarray) -> Image.Image:
    image = Image.fromarray(array).convert("P")
    image.putpalette([v for i in range(4) for v in (i * 70, 255 - i * 7, i)])
    return image


@pytest.mark.parametrize("kind", RIGHT)
def test_files_of_other_programs_are_read_right(
    data: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    model, _ = scored(capsys, tiny_bundle, data)
    folder = data.parent / "files"
    folder.mkdir()
    for key, labels in labels_of(tiny_bundle, data).items():
        RIGHT[kind](labels, folder / key)
    files, said = scored(capsys, data, "--predictions", folder)
    assert files["confusion"] == model["confusion"]
    assert said == (
        f"{folder}: passed over 0_copy.png, 1_copy.png, 2_copy.png\n" if "extra" in kind else ""
    )


def resized(array: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(array).resize((20, 15), Image.Resampling.NEAREST))


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (resized, "{}.png", "0.png: 20x15, but its truth is 41x30; predict at the size"),
        (lambda a: a[::-1, :-1], "{}.png", "0.png: 40x30, but its truth is 41x30"),
        (lambda a: np.stack([a] * 3, -1), "{}.png", "RGB colours where class indices were"),
        (lambda a: a * 50, "{}.png", "0.png: holds 50, 100, where train ids 0 to 3 can be"),
        (lambda a: a * 255, "{}.png", "holds 254, 255, where train ids 0 to 3 can be"),
        (lambda a: a + 2, "{}.png", "0.png: holds 4, where train ids 0 to 3 can be"),
        (lambda a: np.where(a, a, 255), "{}.png", "holds 255 (ignored) where the truth is a class"),
        (lambda a: a, "{}_pred.png", "no prediction of 0; looked for"),
        (lambda a: a, "{}_pred.png", "there is 0_pred.png: rename it"),
        (lambda a: a, "{}.jpg", "there is 0.jpg, a kind that changes class numbers"),
        (lambda a: a, "epoch1/{}.png", "there is epoch1/0.png"),
        (lambda a: a, "x{}.png", "no prediction of 0"),
    ],
)
def test_files_that_cannot_be_right_are_refused(
    data: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], change, name, message
) -> None:
    folder = data.parent / "files"
    for key, labels in labels_of(tiny_bundle, data).items():
        save(np.ascontiguousarray(change(labels)).astype(np.uint8), folder / name.format(key))
    assert message in refused(capsys, data, "--predictions", folder)


def test_a_split_without_labels_has_no_score(
    data: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (data / "masks").iterdir():
        Image.fromarray(np.full_like(np.asarray(Image.open(path)), 255)).save(path)
    assert "no mask of split val holds a class" in refused(capsys, tiny_bundle, data)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--scales", "0.5"], "paint with scales 0.5 (fp32, onnxruntime, 1 thread)"),
        (["--flip"], "paint with flip (fp32, onnxruntime, 1 thread)"),
        (["--crf", "deeplab"], "paint, deeplab CRF (fp32, onnxruntime, 1 thread)"),
        (["--runtime", "openvino"], "paint (fp32, openvino, 1 thread)"),
    ],
)
def test_both_models_see_the_images_alike(
    data: Path,
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    named: str,
) -> None:
    plain, _ = scored(capsys, tiny_bundle, data, "--threads", 1)
    command = [tiny_bundle, data, "--against", tiny_bundle, "--threads", 1, *options]
    document, _ = scored(capsys, *command)
    assert document["model"] == document["against"]["model"] == named
    assert document["against"]["miou"] == document["miou"]
    assert document["against"]["difference"] == 0 and document["against"]["p_value"] == 1
    if "--scales" in options:  # or the test would show nothing
        assert document["miou"] != plain["miou"]


def test_a_missing_panoptic_result_is_named(data: Path, tmp_path: Path, capsys) -> None:
    missing = tmp_path / "result.json"
    assert f"{missing}: no such file" in refused(capsys, data, "--predictions", missing)
