"""What all tests may ask for."""

from pathlib import Path

import numpy as np
import pytest
from color_bundle import write_color_bundle


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
