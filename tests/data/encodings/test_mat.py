"""MATLAB's files, as scipy writes them and as strangers spoil them."""

import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from describing import IGNORED, LABELS, describe, fault_of, few, photo, read
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from atrous.data.dataset import Dataset
from atrous.errors import InputError


@few
@given(
    LABELS,
    st.sampled_from(["u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]),
    st.booleans(),
)
def test_mat(tmp_path: Path, label: np.ndarray, kind: str, compressed: bool) -> None:
    describe(
        tmp_path,
        'encoding = "mat"\nvariable = "mask"\nignore = 0\nmap = { 1 = 0, 2 = 1, 3 = 2, 4 = 3 }',
        'labels = "masks/{key}.mat"',
    )
    photo(tmp_path, label.shape)
    (tmp_path / "masks").mkdir(exist_ok=True)
    ids = np.where(label == IGNORED, 0, label + 1).astype(kind)
    others = {"names": np.array(["x", "yz"], object), "s": {"mask": 1}, "c": "text"}
    variables = {**others, "mask": ids}
    savemat(tmp_path / "masks/a.mat", variables, do_compression=compressed)
    assert np.array_equal(read(tmp_path), label)


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    describe(tmp_path, 'encoding = "mat"', 'labels = "masks/{key}.mat"')
    photo(tmp_path, (5, 7))
    (tmp_path / "masks").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"T": np.ones((5, 7))}, "no variable 'S'.*'T'"),
        ({"S": np.full((5, 7), 0.5)}, "no ids"),
        ({"S": np.full((5, 7), np.nan)}, "no ids"),
        ({"S": np.ones((5, 7, 2))}, "no matrix of integers"),
        ({"S": np.ones((5, 7), complex)}, "no matrix of integers"),
        ({"S": "text"}, "no matrix of integers"),
        ({"S": {"S": 1}}, "no matrix of integers"),
        ({"S": np.ones((7, 5))}, "its image"),
        ({"S": np.full((5, 7), 9)}, "id 9 is neither"),
    ],
)
def test_mat_that_holds_something_else(mat: Path, variables: Any, message: str) -> None:
    savemat(mat / "masks/a.mat", variables)
    with pytest.raises(InputError, match=message):
        read(mat)
        list(Dataset.open(mat).split("train"))


def test_mat_of_a_newer_version(mat: Path) -> None:
    (mat / "masks/a.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(90))
    assert "save it with -v7" in fault_of(mat)


def test_mat_that_promises_too_many_pixels(mat: Path) -> None:
    savemat(mat / "masks/a.mat", {"S": np.zeros((5, 7))})
    resize(mat / "masks/a.mat", (5, 7), (2**31 - 1, 2**31 - 1))
    assert "over 100 million pixels" in fault_of(mat)


@pytest.mark.slow
def test_mat_that_holds_more_than_it_promises(mat: Path) -> None:
    path = mat / "masks/a.mat"
    savemat(path, {"S": np.zeros((2000, 2000))})
    resize(path, (2000, 2000), (5, 7))
    content = path.read_bytes()
    packed = zlib.compress(content[128:])
    path.write_bytes(content[:128] + struct.pack("<II", 15, len(packed)) + packed)
    tracemalloc.start()
    assert "damaged or cut short" in fault_of(mat)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000  # where 32 MB are packed
    tracemalloc.stop()


def resize(path: Path, old: tuple[int, int], new: tuple[int, int]) -> None:
    """Let the head of a matrix tell another size."""
    content = path.read_bytes()
    sizes = struct.pack("<ii", *old)
    assert content.count(sizes) == 1
    path.write_bytes(content.replace(sizes, struct.pack("<ii", *new)))
