"""The table of findings, and those that only a folder with a dataset.toml has."""

import re
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from doctor_folders import mask, photo, save, write_images, write_index
from scipy.io import savemat

from atrous.data.dataset import Dataset
from atrous.doctor import Finding, examine

KINDS = tomllib.loads((resources.files("atrous.doctor") / "findings.toml").read_text("utf-8"))


def found(folder: Path, code: str) -> list[Finding]:
    return [finding for finding in examine(folder).findings if finding.code == code]


def test_the_documentation_explains_each_code() -> None:
    text = (Path(__file__).parents[2] / "docs/doctor.md").read_text("utf-8")
    table = text.partition("## Findings")[2].partition("**How blurred")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    explained = {code for row in rows for code in re.findall("`([a-z0-9-]+)`", row)}
    assert explained == {kind.get("code", name) for name, kind in KINDS.items()}


def test_a_described_split_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    write_index(tmp_path, 4)
    (tmp_path / "train.txt").write_text("images/000.png\nimages/001.png\nimages/elsewhere.png\n")
    (tmp_path / "dataset.toml").write_text(
        '[labels]\nencoding = "index"\nclasses = ["a", "b", "c", "d", "e"]\n'
        '[splits.train]\nimages = "images/{key}.png"\nlabels = "masks/{key}.png"\n'
        'list = "train.txt"\n'
        '[splits.val]\nimages = "photos/{key}.png"\nlabels = "masks/{key}.png"\n'
    )
    [split] = found(tmp_path, "unreadable-split")
    assert split.severity == "problem" and split.message == "splits that cannot be read: 1"
    assert "photos/{key}.png" in split.examples[0]
    [missing] = found(tmp_path, "missing-image")
    assert missing.severity == "note" and missing.count == 1
    assert missing.examples == ("train: 1 listed, 2 here",)


def test_instance_ids_of_a_described_folder_are_classes(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"images/{number}.png", photo(number))
        ids = np.full(photo(number).shape[:2], 1, np.uint16)
        ids[:9, :9], ids[20:, 20:] = 2003, 7
        save(tmp_path / f"masks/{number}.png", ids)
    (tmp_path / "dataset.toml").write_text(
        '[labels]\nencoding = "index"\ndivisor = 1000\nclasses = ["a", "b", "c"]\n'
        '[splits.train]\nimages = "images/{key}.png"\nlabels = "masks/{key}.png"\n'
    )
    diagnosis = examine(tmp_path)
    [stray] = [f for f in diagnosis.findings if f.code == "stray-id"]
    assert stray.count == 3 and stray.message == "3 masks with 1 id of no class: 7"
    assert diagnosis.pixels["train"][2] == 3 * 81


@pytest.mark.parametrize("variable", ["S", "LabelMap"])
def test_matlab_files_say_in_which_variable_the_masks_are(tmp_path: Path, variable: str) -> None:
    write_images(tmp_path, 4)
    (tmp_path / "masks").mkdir()
    for number in range(4):
        savemat(tmp_path / f"masks/{number:03}.mat", {variable: mask(number, (1, 2, 3))})
    diagnosis = examine(tmp_path)
    assert diagnosis.scan.labels.encoding == "mat" and len(diagnosis.classes) == 3
    diagnosis.write()
    split = Dataset.open(tmp_path).split("train")
    for place, key in enumerate(split.keys):
        assert np.array_equal(split.label(place), mask(int(key), (1, 2, 3)) - 1)
