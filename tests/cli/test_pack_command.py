"""`atrous data pack`, and a training from what it wrote."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from atrous.cli import main

TINY = [
    "--backbone", "mobilenetv3_small_050", "--no-pretrained", "--crop-size", "32", "48",
    "--batch-size", "2", "--num-steps", "4", "--num-workers", "0", "--aspp-channels", "8",
    "--decoder-channels", "8", "--atrous-rates", "2", "--warmup-steps", "1",
    "--checkpoint-every", "1", "--log-every", "1",
]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    main(["data", "shapes", "shapes", "--train", "6", "--val", "2"])
    return tmp_path


@pytest.mark.slow
def test_pack_train_kill_resume_evaluate(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    assert main(["data", "pack", "shapes", "--out", "shards"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "  train      6 samples in 1 shard",
        "  val        2 samples in 1 shard",
        "wrote shards",
        "next: atrous train --data shards",
    ]
    assert main(["train", "plain", "--data", "shards", "--out", "whole", *TINY]) == 0

    from atrous.train.training import Training

    def stop(self: object, loader: object) -> None:
        raise KeyboardInterrupt

    advance = Training.advance
    steps = [advance, advance, stop]
    monkeypatch.setattr(Training, "advance", lambda *args: steps.pop(0)(*args))
    assert main(["train", "plain", "--data", "shards", "--out", "cut", *TINY]) == 130
    monkeypatch.setattr(Training, "advance", advance)
    assert main(["train", "--out", "cut", "--resume"]) == 0
    whole, cut = (load_file(Path(run, "best.safetensors")) for run in ("whole", "cut"))
    assert all((whole[name] == cut[name]).all() for name in whole)

    capsys.readouterr()
    scores = []
    for data in ("shapes", "shards"):
        assert main(["evaluate", "whole", data, "--json"]) == 0
        scores.append(json.loads(capsys.readouterr().out)["confusion"])
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_some_splits_in_small_shards(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "shapes", "many", "--train", "80", "--val", "1"])
    capsys.readouterr()
    arguments = ["many", "--split", "train", "train", "--out", "a/b", "--shard-size-mb", "1"]
    assert main(["data", "pack", *arguments]) == 0
    assert "  train      80 samples in 3 shards" in capsys.readouterr().out
    assert len(list(Path("a/b").iterdir())) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shapes", "--out", "shapes"], "shapes: exists already; remove it"),
        (["shapes", "--out", "x", "--split", "tset"], "no split 'tset'; it has train, val"),
        (["shapes", "--out", "x", "--shard-size-mb", "0"], "invalid value 0 for --shard-size-mb"),
        (["nothing", "--out", "x"], "nothing: no such file"),
        (["shapes"], "--out"),
    ],
)
def test_mistakes_are_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    capsys.readouterr()
    assert main(["data", "pack", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ") and message in lines[-1]
    assert not Path("x").exists()
