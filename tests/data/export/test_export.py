"""Labels in the formats of annotation tools: read back, no pixel is lost."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from cvat_sdk.masks import decode_mask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from atrous.data.dataset import Dataset
from atrous.data.export.folder import FORMATS, OUTLINED, Format, export
from atrous.data.export.label_studio import run_lengths
from atrous.data.export.labelled import Labelled
from atrous.data.schema import parse
from atrous.errors import InputError
from atrous.taxonomy import Taxonomy

IGNORED = 255
TAXONOMY = Taxonomy(
    name="odd",
    classes=("road", 'a "b" & <c>', "Baum: grün"),
    colors=((1, 2, 3), (0, 255, 0), (128, 64, 0)),
    things=frozenset({2}),
)
LABELS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: arrays(np.uint8, size, elements=st.sampled_from([0, 0, 0, 1, 2, IGNORED]))
)
"""Holes, corners that touch, single pixels, ignored ones."""
few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def labelled(folder: Path, key: str, labels: np.ndarray, suffix: str = ".png") -> Labelled:
    path = folder / f"{key.replace('/', '-')}{suffix}"
    Image.fromarray(np.zeros((*labels.shape, 3), np.uint8)).save(path)
    return Labelled(key, path, labels)


def by_atrous(folder: Path) -> dict[str, np.ndarray]:
    split = Dataset.open(folder).split("val")
    return {key: split.label(i) for i, key in enumerate(split.keys)}


def by_cvat(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for image in ElementTree.parse(folder / "annotations_val.xml").iter("image"):
        width, height = int(image.attrib["width"]), int(image.attrib["height"])
        label = np.full((height, width), IGNORED, np.uint8)
        for mask in image.iter("mask"):
            left, top, across, down = (
                int(mask.attrib[name]) for name in ("left", "top", "width", "height")
            )
            runs = [int(length) for length in mask.attrib["rle"].split(",")]
            box = [left, top, left + across - 1, top + down - 1]
            inside = decode_mask([*runs, *box], image_width=width, image_height=height)
            assert sum(runs) == across * down and (label[inside] == IGNORED).all()
            label[inside] = TAXONOMY.classes.index(mask.attrib["label"])
        found[image.attrib["name"].rpartition(".")[0]] = label
    return found


def by_label_studio(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for task in json.loads((folder / "tasks_val.json").read_text("utf-8")):
        path = unquote(task["data"]["image"].partition("?d=")[2])
        assert (folder / path).is_file()
        with Image.open(folder / path) as image:
            label = np.full((image.height, image.width), IGNORED, np.uint8)
        for result in task["predictions"][0]["result"]:
            assert (result["original_height"], result["original_width"]) == label.shape
            [name] = result["value"]["brushlabels"]
            inside = unpacked(result["value"]["rle"]).reshape(*label.shape, 4)[..., 3] > 0
            assert (label[inside] == IGNORED).all()
            label[inside] = TAXONOMY.classes.index(name)
        found[path.removeprefix("images/val/").rpartition(".")[0]] = label
    return found


def unpacked(content: list[int]) -> np.ndarray:
    """rle-pack's `decode`, from its TypeScript: a run, or values one by one, of 8 bits."""
    bits = "".join(f"{byte:08b}" for byte in content)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    number, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < number:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    return np.array(values, np.uint8)


READERS: dict[Format, Callable[[Path], dict[str, np.ndarray]]] = {
    **dict.fromkeys(OUTLINED, by_atrous),
    "label-studio": by_label_studio,
    "cvat": by_cvat,
}


@few
@given(first=LABELS, second=LABELS)
@pytest.mark.parametrize("form", FORMATS)
def test_no_pixel_is_lost(
    form: Format, tmp_path_factory: pytest.TempPathFactory, first: np.ndarray, second: np.ndarray
) -> None:
    folder = tmp_path_factory.mktemp("export")
    images = [labelled(folder, "ulm/1 ä", first), labelled(folder, "2", second, ".jpg")]
    assert export({"val": images}, TAXONOMY, folder / "out", form) == {"val": 2}
    read = READERS[form](folder / "out")
    assert read.keys() == {"ulm/1 ä", "2"}
    for image in images:
        assert np.array_equal(read[image.key], image.labels)
        copy = folder / "out/images/val" / image.name
        assert copy.read_bytes() == image.image.read_bytes()


@pytest.mark.parametrize("form", OUTLINED)
def test_the_folder_is_a_data_set(form: Format, tmp_path: Path) -> None:
    described = parse(
        'name = "mine"\nlicence = "CC0-1.0"\nsource = "here"\n[labels]\nencoding = "index"\n'
        'classes = ["x"]\n[splits.train]\nimages = "{key}.png"\nlabels = "{key}.gif"',
        "test",
    )
    labels = np.array([[0, 1, 2]], np.uint8)
    splits = {
        name: [labelled(tmp_path, "1", labels), labelled(tmp_path, "2", labels, ".jpg")]
        for name in ("train", "val")
    }
    export(splits, TAXONOMY, tmp_path / "out", form, described=described)
    dataset = Dataset.open(tmp_path / "out")
    assert (dataset.name, dataset.licence, dataset.source) == ("mine", "CC0-1.0", "here")
    assert (dataset.taxonomy.classes, dataset.taxonomy.colors, dataset.taxonomy.things) == (
        TAXONOMY.classes,
        TAXONOMY.colors,
        TAXONOMY.things,
    )
    for name in splits:
        assert [sample.key for sample in dataset.split(name)] == ["1", "2"]


def test_names_of_the_classes(tmp_path: Path) -> None:
    for form in FORMATS:
        images = [labelled(tmp_path, "1", np.zeros((2, 2), np.uint8))]
        export({"val": images}, TAXONOMY, tmp_path / form, form)
    table = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text("utf-8"))
    assert table == {
        "path": ".",
        "val": "images/val",
        "names": dict(enumerate(TAXONOMY.classes)),
    }
    labels = [*ElementTree.parse(tmp_path / "label-studio/labels.xml").iter("Label")]
    assert [label.attrib["value"] for label in labels] == list(TAXONOMY.classes)
    assert [label.attrib["background"] for label in labels] == ["#010203", "#00ff00", "#804000"]
    raw = json.loads((tmp_path / "cvat/labels.json").read_text("utf-8"))
    assert [entry["name"] for entry in raw] == list(TAXONOMY.classes)
    assert tomllib.loads((tmp_path / "coco/dataset.toml").read_text("utf-8"))["name"] == "odd"
    coco = json.loads((tmp_path / "coco/annotations/instances_val.json").read_text("utf-8"))
    assert [entry["name"] for entry in coco["categories"]] == list(TAXONOMY.classes)


def test_long_runs_of_label_studio() -> None:
    inside = np.zeros((300, 700), bool)
    inside[1, 3] = inside[2, 5:8] = inside[100:] = True
    assert np.array_equal(unpacked(run_lengths(inside)), np.repeat(inside.ravel(), 4) * 255)


def test_a_tolerance_leaves_fewer_vertices(tmp_path: Path) -> None:
    labels = np.tri(60, dtype=np.uint8)
    sizes = {}
    for tolerance in (0, 1.5):
        out = tmp_path / str(tolerance)
        export({"val": [labelled(tmp_path, "1", labels)]}, TAXONOMY, out, "labelme", tolerance)
        sizes[tolerance] = (out / "images/val/1.json").stat().st_size
        assert (by_atrous(out)["1"] == labels).mean() > 0.96
    assert sizes[1.5] < sizes[0] / 4


def test_an_existing_folder_stays_and_a_failure_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    image = labelled(tmp_path, "1", np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="exists already"):
        export({"val": [image]}, TAXONOMY, tmp_path / "full", "coco")
    image.image.unlink()
    with pytest.raises(OSError, match="No such file"):
        export({"val": [image]}, TAXONOMY, tmp_path / "out", "coco")
    with pytest.raises(InputError, match="no image to write"):
        export({"val": []}, TAXONOMY, tmp_path / "out", "coco")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_names_that_lead_out_of_the_folder(tmp_path: Path) -> None:
    image = labelled(tmp_path, "1", np.zeros((2, 2), np.uint8))
    for splits, error in (
        ({"../val": [image]}, "cannot name a folder"),
        ({"val": [image._replace(key="../1")]}, "cannot be a sample's key"),
    ):
        with pytest.raises(InputError, match=error):
            export(splits, TAXONOMY, tmp_path / "out", "coco")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png"]
