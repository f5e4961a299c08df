"""What all tests may ask for."""

import lzma
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from color_bundle import write_color_bundle
from hypothesis import HealthCheck, settings

# Read when torch and sympy are loaded. Threads that wait in a busy loop take the processors of
# other tests; sympy forgets, by default, most of what an export asks it again.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("SYMPY_CACHE_SIZE", "200000")

# On a busy machine any example may take long.
# `pytest --hypothesis-profile thorough`, once by hand: 8,000 examples, or 2,000 of slow tests.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", UNHURRIED, derandomize=True)  # the same examples each time
settings.register_profile("thorough", UNHURRIED, max_examples=8000)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write tests/recorded/outputs anew")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own, away from what a developer measured with `atrous bench`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Begin each test with one thread of torch: a run folder that was opened changes the number."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle file, paint.onnx, of classes red, green, blue and grey at stride 4."""
    return write_color_bundle(tmp_path_factory.mktemp("bundle") / "paint.onnx")


@pytest.fixture
def paint() -> np.ndarray:
    """A photo (30, 41, 3): red at the left, green in the middle, blue at the right."""
    image = np.zeros((30, 41, 3), np.uint8)
    image[:, :16, 0] = 255
    image[:, 16:28, 1] = 255
    image[:, 28:, 2] = 255
    return image


@pytest.fixture
def format1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of format 1, as a user finds them in the current folder: a copy, unpacked."""
    folder = tmp_path / "files"
    shutil.copytree(Path(__file__).parent / "format1" / "files", folder)
    for packed in folder.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    monkeypatch.chdir(folder)
    return folder
