"""Flips and scales, with networks that cannot tell them from the original."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.errors import InputError
from atrous.infer.runtimes.base import Runtime
from atrous.infer.runtimes.onnx import OnnxRuntime
from atrous.infer.segmenter import Segmenter, load
from atrous.infer.tta import AugmentedRuntime


@pytest.fixture(scope="module")
def runtime(tiny_bundle: Path) -> Runtime:
    """A network that looks at each 4x4 block by itself, and so is flip-equivariant."""
    return OnnxRuntime(tiny_bundle, threads=1)


def blocks(height: int, width: int) -> np.ndarray:
    """An image of 4x4 blocks, cut off at the right and at the bottom, each of one of four greys."""
    cells = np.random.default_rng(1).integers(0, 4, (height // 4 + 1, width // 4 + 1, 3)) * 85
    return cells.repeat(4, 0).repeat(4, 1)[:height, :width].astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 80), width=st.integers(1, 80))
def test_flips_lie_where_the_original_does(runtime: Runtime, height: int, width: int) -> None:
    image = blocks(height, width)
    plain, flipped = runtime(image[None])[0], AugmentedRuntime(runtime, flip=True)(image[None])[0]
    assert flipped.shape == plain.shape
    assert np.allclose(np.exp(flipped), softmax(plain), atol=1e-6)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp((logits - logits.max(0)).astype(float))
    return powers / powers.sum(0)


def test_it_is_the_mean_of_probabilities(tiny_bundle: Path) -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, :32, 0] = 90
    image[:, 32:] = 70

    class Lopsided(OnnxRuntime):
        """Sees the left half only."""

        def __call__(self, images: np.ndarray) -> np.ndarray:
            images = images.copy()
            images[:, :, 32:] = 0
            return super().__call__(images) / 5000

    network = Lopsided(tiny_bundle, threads=1)
    mean = np.exp(AugmentedRuntime(network, flip=True)(image[None])[0])
    once = softmax(network(image[None])[0])
    mirrored = softmax(network(image[None, :, ::-1])[0])[..., ::-1]
    assert np.abs(once - mirrored).max() > 0.1
    assert np.allclose(mean, (once + mirrored) / 2, atol=1e-6)
    assert np.allclose(mean.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5, 2])
@pytest.mark.parametrize("size", [(90, 121), (64, 96)])
def test_scales_lie_where_the_original_does(
    runtime: Runtime, scale: float, size: tuple[int, int]
) -> None:
    """An edge between two colours stays where it is, to within a cell of the scaled image."""
    image = np.zeros((*size, 3), np.uint8)
    image[..., 0] = 255
    image[size[0] // 2 :, size[1] // 2 :] = [0, 0, 255]
    expected = Segmenter(runtime).predict(image)
    labels = Segmenter(AugmentedRuntime(runtime, flip=True, scales=(scale,))).predict(image)
    differs = np.argwhere(labels != expected)
    assert labels.shape == size
    reach = 4 / min(scale, 1) + 4
    assert (np.abs(differs - np.array(size) // 2).min(axis=1) <= reach).all()
    assert set(np.unique(labels)) <= {0, 2, 3}


def test_what_it_says_of_itself(tiny_bundle: Path, paint: np.ndarray) -> None:
    segmenter = load(tiny_bundle, threads=1, flip=True, scales=(0.75, 1))
    assert segmenter.description.startswith("paint with flip and scales 0.75 1 (fp32, ")
    labels, confidence = segmenter.predict_with_confidence(paint)
    assert np.array_equal(labels, segmenter(paint).labels)
    assert 0.25 <= confidence.min() <= confidence.max() <= 1 + 1e-6


def test_several_images_at_a_time(runtime: Runtime) -> None:
    images = np.stack([blocks(30, 41), blocks(30, 41)[:, ::-1]])
    augmented = AugmentedRuntime(runtime, flip=True, scales=(0.75, 1.25))
    assert np.array_equal(augmented(images)[1], augmented(images[1:])[0])


@pytest.mark.parametrize("scale", [0, -1, 0.01, 100, float("nan")])
def test_scales_that_cannot_be(runtime: Runtime, scale: float) -> None:
    with pytest.raises(InputError, match=r"--scales \S+: give scales from 0\.1 to 8"):
        AugmentedRuntime(runtime, flip=False, scales=(1, scale))
