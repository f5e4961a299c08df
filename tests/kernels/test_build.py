"""The libraries that ship: what the sources give, and the same at each processor level."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from atrous import kernels
from atrous.infer import upsample
from atrous.infer.crf import CRFS, dense_crf
from atrous.kernels import LIBRARIES, in_threads, kernel

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from build_kernels import TARGETS, build

HERE = f"{sys.platform}-{platform.machine().replace('AMD64', 'x86_64').replace('arm64', 'aarch64')}"


@pytest.mark.slow
def test_sources_give_the_libraries_byte_for_byte(tmp_path: Path) -> None:
    build(tmp_path)
    assert sorted(path.stem for path in LIBRARIES.iterdir()) == sorted(TARGETS)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (LIBRARIES / path.name).read_bytes(), path.name


def test_libraries_need_no_other() -> None:
    """Neither a C library nor a path of the machine that built them."""
    for path in LIBRARIES.iterdir():
        library = path.read_bytes()
        assert len(library) < 1 << 18
        assert b"libc.so" not in library and b"msvcrt" not in library and b"/home" not in library


@pytest.mark.skipif(HERE not in TARGETS, reason="no library for this system")
def test_levels_of_this_processor_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ctypes.CDLL(str(LIBRARIES / f"{HERE}.bin"))
    levels = [level for level in (1, 3, 4) if level <= library.processor_level()]
    rng = np.random.default_rng(0)
    cases = [(rng.normal(size=(9, 11, 37)).astype(np.float32), (50, 190)), _photo_like(rng)]
    results = []
    for level in levels:
        monkeypatch.setattr(kernels, "kernel", lambda name: library[f"{name}_v{level}"])  # noqa: B023
        results.append([upsample.upsample_argmax_confidence(*case) for case in cases])
        for case, (labels, _) in zip(cases, results[-1], strict=True):
            assert np.array_equal(upsample.upsample_argmax(*case), labels)
    for other in results[1:]:
        for (labels, confidence), (same, close) in zip(results[0], other, strict=True):
            assert np.array_equal(labels, same)
            np.testing.assert_allclose(confidence, close, atol=3e-6)


@pytest.mark.skipif(HERE not in TARGETS, reason="no library for this system")
def test_levels_refine_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ctypes.CDLL(str(LIBRARIES / f"{HERE}.bin"))
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(19, 33, 47)).astype(np.float32)
    image = rng.integers(0, 256, (33, 47, 3), np.uint8)
    results = []
    for level in [level for level in (1, 3, 4) if level <= library.processor_level()]:
        monkeypatch.setattr(kernels, "kernel", lambda name: library[f"{name}_v{level}"])  # noqa: B023
        results.append(dense_crf(logits, image, CRFS["deeplab"]))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def _photo_like(rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int]]:
    """Logits (30, 40, 50) of three areas where one class leads by far, and a size."""
    logits = rng.normal(size=(30, 40, 50)).astype(np.float32)
    logits[3, :20] += 20
    logits[7, 20:, 25:] += 20
    logits[8, 20:, :25] += 20
    return logits, (160, 200)


def test_machine_without_a_library_has_no_kernel() -> None:
    """In a process of its own, since what was found is kept."""
    code = "import platform; platform.machine = lambda: 'riscv64'\n"
    code += "import numpy, atrous.kernels as k, atrous.infer.upsample as u\n"
    code += "assert k.kernel('upsample') is None\n"
    code += "print(u.upsample_argmax(numpy.eye(2, dtype='f4')[:, None], (1, 4)).tolist())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout == "[[0, 0, 1, 1]]\n", answer.stderr


@pytest.mark.skipif(HERE not in TARGETS, reason="no library for this system")
def test_kernel_is_there() -> None:
    assert kernel("upsample") is not None


def test_threads_run_at_the_same_time() -> None:
    together = Barrier(3, timeout=300)  # a hang fails
    in_threads(lambda _: together.wait(), range(3), 3)
    assert together.n_waiting == 0


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_each_item_once(threads: int) -> None:
    done: list[int] = []
    in_threads(done.append, range(100), threads)
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize("threads", [1, 3])
def test_error_in_a_thread_is_raised(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda item: 1 / (item - 5), range(10), threads)


def test_threads_within_threads_do_not_wait_for_each_other() -> None:
    done: list[int] = []
    in_threads(lambda _: in_threads(done.append, range(10), 2), range(10), 2)
    assert len(done) == 100
