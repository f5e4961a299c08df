import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from doctor_folders import PALETTE, mask, resized, save, write_index, write_rgb
from PIL import Image
from pillow_heif import from_pillow

from atrous.cli import main
from atrous.data.dataset import Dataset
from atrous.data.schema import EncodingName
from atrous.doctor.diagnosis import ENCODINGS
from atrous.images import photos as images


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """RGB masks: three of them blurred, one too small."""
    folder = write_rgb(tmp_path / "my_data", 12)
    for number in (1, 4, 7):
        save(folder / f"masks/{number:03}.png", resized(PALETTE[mask(number)]))
    save(folder / "masks/009.png", PALETTE[mask(9)][:-8])
    return folder


def test_the_report_is_narrow_and_tells_all(stranger: Path, capsys) -> None:
    assert main(["data", "doctor", str(stranger)]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "12 images, 12 masks, paired by name: images/*.png <-> masks/*.png"
    assert max(map(len, lines[:-1])) <= 80
    text = " ".join(out.split())
    for part in (
        "encoding RGB colours",
        "splits train 9, val 2 (proposed:",
        "problems 1 mask not of the image's size -> ",
        "masks/009.png is 56x32, images/009.png 56x40",
        "3 masks with blurred edges, resized or compressed; ",
        "notes 5 colours that stand for classes",
    ):
        assert part in text
    assert lines[-1].endswith(f"atrous data doctor {stranger} --write")
    assert not (stranger / "dataset.toml").exists()


def test_write_says_what_it_wrote_and_left_out(stranger: Path, capsys) -> None:
    assert main(["data", "doctor", str(stranger), "--write", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["splits"] == {"train": 9, "val": 2} and document["left_out"] == 1
    assert [Path(path).name for path in document["written"]] == [
        "dataset.toml",
        "dataset.train.txt",
        "dataset.val.txt",
    ]
    assert {f["code"] for f in document["findings"] if f["severity"] == "problem"} == {
        "size-mismatch",
        "interpolated",
    }
    assert document["toml"] == (stranger / "dataset.toml").read_text()
    assert sum(1 for name in ("train", "val") for _ in Dataset.open(stranger).split(name)) == 11


def test_write_does_not_overwrite(stranger: Path, capsys) -> None:
    (stranger / "dataset.toml").write_text("mine")
    assert main(["data", "doctor", str(stranger), "--write"]) == 2
    error = capsys.readouterr().err
    assert "dataset.toml: exists already; remove it" in error and error.count("\n") == 1
    assert (stranger / "dataset.toml").read_text() == "mine"


def test_a_described_folder_is_checked(tmp_path: Path, capsys) -> None:
    write_index(tmp_path)
    assert main(["data", "doctor", str(tmp_path), "--write"]) == 0
    assert f"next: atrous train --data {tmp_path}" in capsys.readouterr().out
    assert main(["data", "doctor", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "problems   none" in out and "--write" not in out
    assert "(from dataset.toml)" in out


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_of_nothing_is_one_line(tmp_path: Path, capsys, name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["data", "doctor", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / name}: no ") and error.count("\n") == 1


def test_the_doctor_needs_neither_torch_nor_the_data_extra(tmp_path: Path) -> None:
    write_index(tmp_path)
    code = (
        "import sys; from atrous.cli import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'scipy', 'pycocotools', 'yaml'} & set(sys.modules); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "data", "doctor", str(tmp_path), "--html"]
    subprocess.run([*command, str(tmp_path / "page.html")], check=True, capture_output=True)
    assert (tmp_path / "page.html").is_file()


def test_write_without_a_usable_pair_prints_the_findings(tmp_path: Path, capsys) -> None:
    folder = write_index(tmp_path, 3)
    for number in range(3):
        (folder / f"masks/{number:03}.png").write_bytes(b"no mask")
    before = sorted(folder.rglob("*"))
    assert main(["data", "doctor", str(folder), "--write"]) == 2
    out, error = capsys.readouterr()
    assert "3 masks cannot be read" in out and "masks/000.png" in out
    assert error.count("\n") == 1 and "no pair can be used, so nothing is written" in error
    assert main(["data", "doctor", str(folder), "--write", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["written"] == []
    assert sorted(folder.rglob("*")) == before


def test_no_training_is_proposed_where_there_is_one_class(tmp_path: Path, capsys) -> None:
    write_index(tmp_path, 5)
    for number in range(5):
        save(tmp_path / f"masks/{number:03}.png", mask(number, (0,)))
    assert main(["data", "doctor", str(tmp_path), "--write"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("next: give it a second class")
    assert "atrous train" not in out


def test_a_missing_extra_is_what_to_install(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_index(tmp_path, 5)
    for path in sorted((tmp_path / "images").iterdir()):
        from_pillow(Image.open(path)).save(path.with_suffix(".heic"))
        path.unlink()
    monkeypatch.setattr(images, "can_read_heif", lambda: False)
    assert main(["data", "doctor", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "5 images cannot be read -> install what reads them; " in text
    assert 'pip install "atrous[heif]"' in text


def test_every_encoding_has_words() -> None:
    assert ENCODINGS.keys() == set(get_args(EncodingName))
