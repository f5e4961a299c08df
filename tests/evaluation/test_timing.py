"""Runtimes measured beside each other, and the runtime that `auto` remembers."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from atrous.errors import InputError
from atrous.evaluation.timing import Timing, fastest, time_runtimes
from atrous.infer import runtime_selection
from atrous.infer.runtime_selection import default_runtime, remember, remembered
from atrous.infer.runtimes.open import OF_BUNDLES, open_runtime


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep compiled networks and choices to this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "atrous"


def timing_of(name: str, seconds: float, agreement: float) -> Timing:
    return Timing(
        runtime=name,
        precision="fp32",
        seconds=seconds,
        start=0.1,
        agreement=agreement,
        same_labels=1,
    )


def test_the_fastest_must_agree() -> None:
    plain, wrong = timing_of("onnxruntime", 3, 1), timing_of("openvino:bf16", 1, 0.985)
    assert fastest([plain, wrong]) is plain
    assert fastest([plain, wrong, timing_of("openvino", 2, 0.991)]).runtime == "openvino"


def test_timings_in_turn(tiny_bundle: Path, paint: np.ndarray) -> None:
    done = []
    timings, missing = time_runtimes(
        tiny_bundle,
        OF_BUNDLES,
        paint,
        threads=1,
        rounds=3,
        progress=lambda *counts: done.append(counts),
    )
    assert {t.runtime for t in timings} | missing.keys() == set(OF_BUNDLES)
    assert timings[0].runtime == "onnxruntime"
    assert all(t.agreement == t.same_labels == 1 and 0 < t.seconds < t.start < 60 for t in timings)
    assert done == [(n + 1, 3 * len(timings)) for n in range(3 * len(timings))]


def test_a_runtime_that_cannot_be_had(tiny_bundle: Path, paint: np.ndarray) -> None:
    def run(*names: str) -> tuple[list[Timing], dict[str, str]]:
        return time_runtimes(
            tiny_bundle, names, paint, threads=1, rounds=1, progress=lambda done, total: None
        )

    timings, missing = run("onnxruntime", "torch")
    assert [t.runtime for t in timings] == ["onnxruntime"]
    assert "torch takes run folders only" in missing["torch"]
    with pytest.raises(InputError, match="torch takes run folders only"):
        run("torch", "onnxruntime")


def test_auto_takes_what_is_remembered(tiny_bundle: Path, tmp_path: Path, own_cache: Path) -> None:
    pytest.importorskip("openvino")
    assert remembered(tiny_bundle, 1) is None
    assert open_runtime(tiny_bundle, 1).name == "onnxruntime"
    assert remember(tiny_bundle, 1, "openvino")
    assert open_runtime(tiny_bundle, 1).name == "openvino"
    assert open_runtime(tiny_bundle, 2).name == "onnxruntime"  # measured with one thread
    assert open_runtime(tiny_bundle, 1, "onnxruntime").name == "onnxruntime"
    other = tmp_path / "paint.onnx"
    model = onnx.load(tiny_bundle)
    bias = numpy_helper.to_array(model.graph.initializer[1]) + 1
    model.graph.initializer[1].CopyFrom(
        numpy_helper.from_array(bias, model.graph.initializer[1].name)
    )
    onnx.save(model, other)
    assert open_runtime(other, 1).name == "onnxruntime"
    assert remember(other, 1, "onnxruntime")
    assert len(json.loads((own_cache / "runtimes.json").read_text())) == 2
    assert open_runtime(tiny_bundle, 1).name == "openvino"


def test_auto_takes_the_gpu_for_runs(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for found, runtime in ((True, "torch:cuda"), (False, "torch")):
        monkeypatch.setattr("torch.cuda.is_available", lambda found=found: found)
        assert default_runtime(tmp_path) == runtime
        assert default_runtime(tiny_bundle) == "onnxruntime"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert default_runtime(tmp_path) == "torch"


def test_a_choice_holds_for_one_gpu(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    remember(tiny_bundle, 1, "onnxruntime:cuda")
    for change in (
        lambda: monkeypatch.setattr(runtime_selection, "_gpus", lambda: ["NVIDIA Something"]),
        lambda: monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ""),
    ):
        change()
        assert remembered(tiny_bundle, 1) is None
        remember(tiny_bundle, 1, "onnxruntime")
    assert runtime_selection.processor().endswith(", NVIDIA Something")


@pytest.mark.parametrize(
    "damage", [lambda text: "", lambda text: "[1]", lambda text: text.replace('openvino"', '7"')]
)
def test_a_damaged_choice_is_none(damage, tiny_bundle: Path, own_cache: Path) -> None:
    remember(tiny_bundle, 1, "openvino")
    file = own_cache / "runtimes.json"
    file.write_text(damage(file.read_text()))
    assert open_runtime(tiny_bundle, 1).name == "onnxruntime"
    assert remember(tiny_bundle, 1, "onnxruntime")
    assert remembered(tiny_bundle, 1) == "onnxruntime"


def test_a_choice_that_cannot_be_written(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert not remember(tiny_bundle, 1, "openvino")
    assert remembered(tiny_bundle, 1) is None
