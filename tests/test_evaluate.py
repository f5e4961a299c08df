from dataclasses import dataclass

import numpy as np
import pytest

from atrous.evaluate import evaluate
from atrous.files import InputError


@dataclass
class Pair:
    image: np.ndarray
    label: np.ndarray
    key: str


def make_samples():
    """Images whose red channel is the label, of two sizes; the second holds ignored pixels."""
    random = np.random.default_rng(0)
    samples = []
    for key, size in (("a", (4, 6)), ("b", (5, 3))):
        label = random.integers(0, 3, size, dtype=np.uint8)
        samples.append(Pair(np.stack([label] * 3, axis=-1), label.copy(), key))
    samples[1].label[0] = 255
    return samples


def test_each_image_is_scored_at_its_own_size():
    done = []
    confusion = evaluate(lambda image: image[..., 0], make_samples(), 3, lambda *n: done.append(n))
    assert confusion.matrix.sum() == 4 * 6 + 4 * 3
    assert confusion.scores().miou == 1
    assert done == [(1, 2), (2, 2)]


def test_a_wrong_prediction_moves_off_the_diagonal():
    confusion = evaluate(lambda image: (image[..., 0] + 1) % 3, make_samples(), 3)
    assert confusion.matrix.diagonal().sum() == 0


def test_an_error_names_the_image():
    samples = make_samples()
    samples[1].label[1, 1] = 77
    with pytest.raises(InputError, match=r"^b: the label holds 77"):
        evaluate(lambda image: image[..., 0], samples, 3)
