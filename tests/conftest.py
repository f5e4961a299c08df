"""What all tests may ask for."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from color_bundle import write_color_bundle
from hypothesis import settings

# `pytest --hypothesis-profile thorough`, once by hand: 8,000 examples, or 2,000 of slow tests.
settings.register_profile("ci", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=8000)
settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own, away from what a developer measured with `atrous bench`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
