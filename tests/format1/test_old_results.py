"""What else of format 1 a user keeps: predictions, counts, panoptic results, measured runtimes."""

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import atrous
from atrous.cli import main

PAINT = [[4555, 52, 33], [5, 527, 7], [5, 2, 702]]


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_saved_counts_are_scored(format1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = evaluated(capsys, "paint", "--merge", "counts.npz")
    assert scores["confusion"] == PAINT and scores["images"] == 2
    assert scores["miou"] == 0.9351736921337747
    assert scores["model"] == "paint (int8, onnxruntime, 2 threads)"
    assert scores["interval"] == [0.9006732903883248, 0.9569354803298484]


def test_saved_counts_are_compared_with(format1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["paint", "--predictions", "predictions", "--against", "counts.npz"]
    document = evaluated(capsys, *call)
    assert document["miou"] == document["against"]["miou"] == 0.9351736921337747
    assert document["against"]["model"] == "paint (int8, onnxruntime, 2 threads)"


def test_saved_labels_are_scored(format1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluated(capsys, "paint", "--predictions", "predictions")["confusion"] == PAINT


def test_saved_labels_of_other_classes_are_refused(
    format1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the JSON beside them."""
    beside = Path("predictions/0.json")
    beside.write_text(beside.read_text().replace('"red"', '"pink"'))
    assert main(["evaluate", "paint", "--predictions", "predictions"]) == 2
    assert "lacks red and also has pink" in capsys.readouterr().err


def test_a_panoptic_result_is_scored(format1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = evaluated(capsys, "panoptic", "--predictions", "panoptic/result.json")
    assert (scores["protocol"], scores["images"], scores["missing"]) == ("panopticapi", 2, 1)
    assert (scores["pq"], scores["sq"], scores["rq"]) == pytest.approx((127 / 180, 563 / 720, 0.9))
    cat = scores["per_class"]["cat"]
    assert (cat["tp"], cat["fp"], cat["fn"]) == (2, 0, 1)


def test_shards_are_scored(format1: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed, plain = (
        evaluated(capsys, "bundles/paint.onnx", data, "--runtime", "onnxruntime")
        for data in ("shards", "paint")
    )
    assert packed["confusion"] == plain["confusion"]


def test_a_measured_runtime_is_remembered(format1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By processor, threads, libraries and the file's hash, beside what others wrote there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(format1 / "cache"))

    def installed(library: str) -> str:
        try:
            return f"{library} {version(library)}"
        except PackageNotFoundError:
            return f"{library} none"

    cpus = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in cpus.splitlines() if "model name" in line]
    processor = next(iter(names), platform.processor() or platform.machine())
    digest = hashlib.sha256(Path("bundles/paint.onnx").read_bytes()).hexdigest()
    libraries = map(installed, ("onnxruntime", "openvino", "torch"))
    key = ", ".join([processor, "1 threads", *libraries, digest])
    cache = format1 / "cache/atrous/runtimes.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(json.dumps({"another machine": "onnxruntime", key: "openvino"}))
    description = atrous.load("bundles/paint.onnx", threads=1).description
    assert description == "paint (int8, openvino, 1 thread)"
