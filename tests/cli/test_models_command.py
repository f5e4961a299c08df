"""`atrous models`: the list, and the card of one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from atrous.cli import main
from atrous.cli.models import models
from atrous.data.schema import builtin_names
from atrous.models.catalogue import BACKBONES, MODELS
from atrous.weights.hub import kept_bundle
from atrous.weights.published import GROUPS, PUBLISHED, group_of

ADE20K = "google/deeplabv3plus_mobilenetv2_ade20k"


def test_listing_fits_a_terminal(capsys):
    models()
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert all(name in text for name in [*MODELS, *BACKBONES, *PUBLISHED])


def test_json(capsys):
    models(json_output=True)
    listing = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in listing["models"]] == list(MODELS)
    assert [row["name"] for row in listing["backbones"]] == list(BACKBONES)
    assert listing["models"][0]["output_strides"] == [8, 16, 32]
    assert isinstance(listing["shipped"], list)
    assert [row["name"] for row in listing["published"]] == list(PUBLISHED)
    assert all(row["url"].startswith("https://") for row in listing["published"])
    assert {row["group"] for row in listing["published"]} <= {*GROUPS}


def test_each_published_model_stands_once_under_what_it_shows(capsys):
    models()
    lines = capsys.readouterr().out.splitlines()
    places = {group: lines.index(f"  {group}") for group in GROUPS}
    assert {data for sets in GROUPS.values() for data in sets} <= {*builtin_names()}
    for name, entry in PUBLISHED.items():
        (row,) = (i for i, line in enumerate(lines) if line.split()[:1] == [name])
        above = max((place, group) for group, place in places.items() if place < row)
        assert above[1] == group_of(entry.data)


def test_card_of_the_shipped_model(capsys):
    assert main(["models", "camvid"]) == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines() if "camvid.onnx" not in line) <= 80
    for part in (
        "camvid: ships with atrous",
        "research and education only",
        "mIoU 77.7 on camvid val, 101 images",
    ):
        assert part in text
    assert "11, with their IoU: sky 93.3, building 90.1" in text
    assert "atrous segment PHOTO --model camvid" in text


def test_card_of_a_published_model_before_and_after_it_is_fetched(tiny_bundle, capsys):
    assert main(["models", ADE20K]) == 0
    text = capsys.readouterr().out
    for part in ("not fetched yet", "151: unlabelled, wall, building", "mIoU 32.0", "Apache-2.0"):
        assert part in text
    bundle = kept_bundle(ADE20K)
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(tiny_bundle.read_bytes())
    try:
        assert main(["models", ADE20K, "--json"]) == 0
    finally:
        bundle.unlink()
    card = json.loads(capsys.readouterr().out)
    assert card["path"] == str(bundle) and card["bytes"] == tiny_bundle.stat().st_size
    assert card["classes"] == ["red", "green", "blue", "grey"]  # the file's own
    assert (card["data"], card["scores"]["miou"]) == ("ade20k151", 0.32)


def test_card_of_a_file(tiny_bundle, capsys):
    assert main(["models", str(tiny_bundle)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{tiny_bundle}: a bundle\n")
    assert "4: red, green, blue, grey" in text


def test_card_of_a_run(format1, capsys):
    assert main(["models", "trained/finished"]) == 0
    assert capsys.readouterr().out.startswith("trained/finished: a run folder\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("camvit", "camvit: no such model. Did you mean camvid?"),
        (ADE20K[7:], f"{ADE20K[7:]}: no such model. Did you mean {ADE20K}?"),
        ("zzz", "zzz: no such model. See: atrous models"),
        ("unet", "unet: a network without weights; atrous train --model unet"),
        ("mine.onnx", "mine.onnx: no such file. Check the name and the folder"),
        (".", ".: no run folder: it holds no run.json"),
        ("photo.png", "photo.png: onnxruntime cannot load it"),
    ],
)
def test_unknown_names_are_one_line(name, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(b"hello")
    assert main(["models", name]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message}") and printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.slow
@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_lists_without_torch(flag):
    code = (
        "import sys; from atrous.cli import main; code = main(['models', *sys.argv[1:]]);"
        "sys.exit(code or int('torch' in sys.modules or 'timm' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *flag], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
