"""Speed and memory, each model in each runtime that takes it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from atrous.errors import InputError
from atrous.evaluation.timing import measure, most_resident, peak_memory
from atrous.export.pipeline import bundles_by_runtime


def test_models_in_runtimes(tiny_bundle: Path, paint: np.ndarray, tmp_path: Path) -> None:
    done: dict[str, list[tuple[int, int]]] = {}

    @contextmanager
    def track(step: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda *counts: done.setdefault(step, []).append(counts)

    models = {"one": tiny_bundle, "two": tiny_bundle}
    runtimes = ("onnxruntime", "openvino", "torch")
    files = bundles_by_runtime(models, runtimes, tmp_path, track)
    speeds, missing = measure(files, paint, threads=1, rounds=3, track=track)
    had = {"onnxruntime", "openvino"} - missing.keys()
    assert all(each.keys() == had for each in speeds.values())  # torch takes no bundles
    calls = 3 * 2 * len(had)
    assert done["images timed"] == [(n + 1, calls) for n in range(calls)]
    speed = speeds["two"]["onnxruntime"]
    assert 0 < speed.seconds < 60
    assert speed.memory is None or 10e6 < speed.memory < 10e9


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_of_the_process_alone() -> None:
    """What the parent holds, or held, does not count; what was let go again does."""
    code = (
        "import numpy, subprocess, sys; held = numpy.ones(25_000_000)\n"
        "ask = 'import atrous.evaluation.timing as m; before = m.most_resident();"
        " del_me = bytearray(60_000_000); del del_me; print(before, m.most_resident())'\n"
        "subprocess.run([sys.executable, '-c', ask], check=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < 190e6 and after >= before + 50e6
    assert most_resident() > 10e6


def test_a_process_that_fails_is_reported(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"separate process.* onnxruntime cannot load it"):
        peak_memory(tmp_path / "no.onnx", "onnxruntime", 1, (8, 8))
