"""`atrous bench`: what it prints and what `auto` takes after it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.cli import main
from atrous.data.shapes import write_shapes
from atrous.infer.runtimes.open import installed_runtimes_of
from atrous.weights.cache import cache_folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep compiled networks and choices to this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return cache_folder()


def test_a_table_and_a_choice(
    tiny_bundle: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(tiny_bundle), "--rounds", "2", "--threads", "1"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80 + len(str(tiny_bundle))
    assert "paint (fp32), one photo of 480x360" in text
    assert all(name in text for name in installed_runtimes_of(tiny_bundle))
    assert "onnxruntime:directml" not in text
    assert "same labels: of all pixels, as onnxruntime in fp32 labels them" in text
    for step in ("decode", "network", "upsample and argmax", "encode and write"):
        assert f"  {step} " in text
    assert "<- fastest" in text
    assert "from now on" in text
    assert f"next: atrous segment PHOTO --model {tiny_bundle}" in text
    (choice,) = json.loads((own_cache / "runtimes.json").read_text()).values()
    assert f"auto takes {choice} " in text


def test_json_of_a_photo_and_one_runtime(
    tiny_bundle: Path, own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(photo)
    command = ["bench", str(tiny_bundle), "--photo", str(photo), "--size", "40", "50", "--json"]
    assert main([*command, "--runtime", "onnxruntime", "--rounds", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["size"] == [40, 50]
    assert [row["runtime"] for row in document["runtimes"]] == ["onnxruntime"]
    assert document["runtimes"][0]["agreement"] == 1
    assert document["steps"].keys() == {
        "decode",
        "network",
        "upsample and argmax",
        "encode and write",
    }
    assert not document["remembered"]
    assert not (own_cache / "runtimes.json").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--rounds", "0"], "invalid value 0 for --rounds. Must be >= 1."),
        (["--size", "0", "9"], "invalid value (0, 9) for --size. Must be >= 1."),
        (["--threads", "0"], "--threads 0: give a number from 1 to 1024"),
        (["--threads", "100000"], "--threads 100000: give a number from 1 to 1024"),
        (["--runtime", "onnxruntim"], "no such runtime. Did you mean onnxruntime?"),
        (["--photo", "nothing.jpg"], "nothing.jpg: no such file"),
    ],
)
def test_one_line_for_what_is_wrong(
    arguments: list[str], line: str, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(tiny_bundle), *arguments]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["bench", "segment photo.png --out ."])
def test_a_shipped_model_is_called_by_its_name(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save("photo.png")
    assert main([*command.split(), "--runtime", "torch:cuda"]) == 2
    fault = "error: camvid: torch:cuda takes run folders only; take onnxruntime"
    assert capsys.readouterr().err.splitlines() == [fault]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_other_commands_take_a_runtime(
    runtime: str, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(runtime)
    data = write_shapes(tmp_path / "shapes", num_train=1, num_val=1, size=(20, 30))
    photo = next((tmp_path / "shapes").rglob("*.png"))
    options = ["--runtime", runtime, "--threads", "1"]
    command = ["segment", str(photo), "--model", str(tiny_bundle), "--out", str(tmp_path)]
    assert main([*command, *options]) == 0
    assert f"paint (fp32, {runtime}, 1 thread)" in capsys.readouterr().out
    assert main(["evaluate", str(tiny_bundle), str(data), "--runtime", "torch"]) == 2
    assert "paint.onnx: torch takes run folders only" in capsys.readouterr().err
    assert main(["segment", str(photo), "--runtime", "tensorflow"]) == 2
    assert "--runtime tensorflow: no such runtime. There are: auto, " in capsys.readouterr().err


def test_openvino_that_is_not_installed(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # its import fails
    assert main(["bench", str(tiny_bundle), "--rounds", "1"]) == 0
    text = capsys.readouterr().out
    assert '  openvino:bf16: not installed: pip install "atrous[openvino]"' in text
    assert "auto takes onnxruntime from now on" in text
    assert main(["bench", str(tiny_bundle), "--runtime", "openvino"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert 'needs openvino, which is not installed: pip install "atrous[openvino]"' in error
