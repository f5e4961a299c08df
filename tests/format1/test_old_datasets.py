"""A dataset.toml of format 1 means what it meant: names, classes and labels of each sample."""

import json
import shutil
import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from file_server import file_server

from atrous.cli import main
from atrous.data.dataset import Dataset
from atrous.data.fetch.archives import Archive
from atrous.data.schema import ClassEntry, Description, Labels, Manual, SplitFiles

HERE = Path(__file__).parent
DATASETS = HERE / "datasets"

TOP = {"name", "licence", "source", "labels", "splits", "archives", "manual"}
BANDS = {"bands", "range", "alpha"}
LABELS = {"encoding", "classes", "ignore", "map", "unknown"}
OF_ENCODINGS = {"divisor", "variable", "background", "foreground"}
ENCODINGS = {
    *("index", "palette", "rgb", "mat", "coco-json", "coco-panoptic", "polygons", "binary-masks"),
}
"""Each is a folder of `datasets`, too."""
UNKNOWN = {"error", "ignore", "nearest"}
CLASS = {"name", "color", "thing", "group"}
SPLIT = {"images", "labels", "list", "valid", "annotations", "shards"}
ARCHIVE = {"url", "size", "sha256", "md5", "splits", "into", "only", "strip", "nested"}
MANUAL = {"page", "text"}


@pytest.mark.parametrize(
    "folder", [path.parent.name for path in sorted(DATASETS.glob("*/expected.json"))]
)
def test_a_description_means_what_it_meant(folder: str) -> None:
    dataset = Dataset.open(DATASETS / folder)
    expected = json.loads((DATASETS / folder / "expected.json").read_text("utf-8"))
    taxonomy = dataset.taxonomy
    assert expected == {
        "name": dataset.name,
        "licence": dataset.licence,
        "source": dataset.source,
        "classes": list(taxonomy.classes),
        "colors": [list(color) for color in taxonomy.colors],
        "things": sorted(taxonomy.things),
        "groups": list(taxonomy.groups),
        "labels": {name: labels_of(dataset, name) for name in dataset.splits},
    }


def labels_of(dataset: Dataset, split: str) -> dict[str, list[list[int]]]:
    """The label of each key, in the order of the split."""
    samples = dataset.split(split)
    for index, sample in enumerate(samples):
        assert np.array_equal(sample.label, samples.label(index))
    return {key: samples.label(index).tolist() for index, key in enumerate(samples.keys)}


def test_images_of_bands_are_scaled_as_they_were() -> None:
    image = Dataset.open(DATASETS / "bands").split("train")[0].image
    assert image.tolist() == [[[0, 0], [242, 13], [255, 26]], [[255, 38], [255, 51], [255, 64]]]


def test_entries_of_a_list_whose_image_is_missing_are_counted() -> None:
    assert Dataset.open(DATASETS / "index").split("train").missing == 1
    assert Dataset.open(DATASETS / "coco-json").split("train").missing == 1


def test_instance_ids_are_panoptic_truth() -> None:
    truth = Dataset.open(DATASETS / "index-divisor").split("train").panoptic(0)
    segments = {segment["id"]: segment["category_id"] for segment in truth.segments}
    by_class = [[segments.get(i, 255) for i in row] for row in truth.ids.tolist()]
    assert by_class == [[0, 1, 2], [255, 1, 0]]
    assert len(segments) == 4  # the two cars are two segments


@pytest.mark.parametrize("splits", [["train"], ["val"], ["train", "val"]])
def test_archives_are_fetched_and_unpacked(
    tmp_path: Path, splits: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    here = DATASETS / "archives"
    root = tmp_path / "root"
    with file_server() as server:
        server.files = {f"/{path.name}": path.read_bytes() for path in here.glob("*.zip")}
        call = ["data", "fetch", str(here), "--root", str(root), "--yes", "--mirror", server.url]
        assert main([*call, "--split", *splits]) == 0
        assert main([*call, "--split", *splits]) == 0
    assert f"all of it is in {root}" in capsys.readouterr().out
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.*") if path.is_file()}
    wanted = {f"{kind}/{split}/a.png" for split in splits for kind in ("images", "masks")}
    assert {path for path in found if not path.startswith(".atrous")} == wanted
    dataset = Dataset.open(here, root)
    assert dataset.taxonomy.classes == Dataset.open("camvid", root).taxonomy.classes
    assert labels_of(dataset, splits[0]) == {"a": [[0, 1, 2], [255, 1, 0]]}


def test_what_was_fetched_is_not_fetched_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the record in the folder says; the addresses lead nowhere."""
    (tmp_path / ".atrous").mkdir()
    shutil.copy(HERE / "files/fetched.json", tmp_path / ".atrous/fetched.json")
    call = ["data", "fetch", str(DATASETS / "archives"), "--root", str(tmp_path), "--yes"]
    assert main(call) == 0
    assert f"all of it is in {tmp_path}" in capsys.readouterr().out


def test_packed_samples_are_read(tmp_path: Path) -> None:
    shutil.copytree(HERE / "files", tmp_path, dirs_exist_ok=True)
    packed, plain = (Dataset.open(tmp_path / name) for name in ("shards", "paint"))
    assert packed.taxonomy == plain.taxonomy
    assert (packed.name, packed.licence, packed.source) == (plain.name, plain.licence, plain.source)
    truth = {sample.key: sample for sample in plain.split("val")}
    samples = list(packed.split("val"))
    assert len(samples) == len(truth) == 2
    for sample in samples:
        assert np.array_equal(sample.image, truth[sample.key].image)
        assert np.array_equal(sample.label, truth[sample.key].label)


def test_each_field_is_in_one_of_these_files() -> None:
    """A field of format 1 that no file here has could be dropped unnoticed."""
    tables = [tomllib.loads(path.read_text("utf-8")) for path in HERE.rglob("dataset.toml")]
    labels = [table["labels"] for table in tables]
    classes = [entry for one in labels for entry in one["classes"] if isinstance(entry, dict)]
    splits = [split for table in tables for split in table["splits"].values()]
    archives = [archive for table in tables for archive in table.get("archives", [])]

    def keys(of: list[dict]) -> set[str]:
        return {key for table in of for key in table}

    assert keys(tables) == TOP | BANDS
    assert keys(labels) == LABELS | OF_ENCODINGS
    assert {one["encoding"] for one in labels} == ENCODINGS
    assert {one["unknown"] for one in labels if "unknown" in one} == UNKNOWN
    assert keys(classes) == CLASS
    assert keys(splits) == SPLIT
    assert keys(archives) == ARCHIVE
    assert keys([table["manual"] for table in tables if "manual" in table]) == MANUAL


def test_a_field_that_is_added_asks_for_a_file_above() -> None:
    def fields(kind: type) -> set[str]:
        return {field.encode_name for field in msgspec.structs.fields(kind)}

    assert fields(Description) == TOP | BANDS
    assert fields(Labels) == LABELS | OF_ENCODINGS
    assert fields(ClassEntry) == CLASS
    assert fields(SplitFiles) == SPLIT
    assert fields(Archive) == ARCHIVE
    assert fields(Manual) == MANUAL
