"""The fast upsampling against its reference, and both against torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from atrous.infer import upsample as module
from atrous.infer.upsample import (
    photo_confidence,
    photo_labels,
    upsample_argmax,
    upsample_argmax_reference,
    upsample_confidence,
)


def torch_upsample(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(K, h, w) -> (K, H, W)."""
    batch = torch.from_numpy(logits)[None]
    return functional.interpolate(batch, size, mode="bilinear", align_corners=False)[0].numpy()


def assert_equal_but_for_ties(labels: np.ndarray, full: np.ndarray) -> None:
    """`labels` (H, W) must be the largest of `full` (K, H, W), or within rounding of it."""
    chosen = np.take_along_axis(full, labels[None].astype(np.intp), axis=0)[0]
    assert np.abs(chosen - full.max(axis=0)).max() <= 1e-5


@given(
    classes=st.integers(1, 13),
    small=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_equals_torch_at_any_size(
    classes: int, small: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    logits = np.random.default_rng(seed).normal(size=(classes, *small)).astype(np.float32)
    full = torch_upsample(logits, size)
    for upsample in (upsample_argmax, upsample_argmax_reference):
        labels = upsample(logits, size)
        assert labels.shape == size
        assert labels.dtype == np.uint8
        assert_equal_but_for_ties(labels, full)


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_equals_torch_by_the_strides_of_networks(stride: int) -> None:
    logits = np.random.default_rng(0).normal(size=(11, 23, 30)).astype(np.float32)
    size = (23 * stride, 30 * stride)
    full = torch_upsample(logits, size)
    labels = upsample_argmax(logits, size)
    assert_equal_but_for_ties(labels, full)
    assert (labels == full.argmax(0)).mean() > 0.9999


def test_more_classes_than_a_byte_holds() -> None:
    logits = np.random.default_rng(0).normal(size=(300, 5, 6)).astype(np.float32)
    labels = upsample_argmax(logits, (20, 24))
    assert labels.dtype == np.uint16
    assert_equal_but_for_ties(labels, torch_upsample(logits, (20, 24)))


def test_ties_go_to_the_lower_class() -> None:
    assert (upsample_argmax(np.zeros((3, 2, 2), np.float32), (5, 5)) == 0).all()


def test_class_that_wins_nowhere_but_between() -> None:
    logits = np.array([[[4, 0]], [[0, 4]], [[3, 3]]], np.float32)  # (3, 1, 2)
    assert upsample_argmax(logits, (1, 8)).tolist() == [[0, 0, 0, 2, 2, 1, 1, 1]]


def test_logits_of_another_layout() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 6, 4)).astype(np.float32)
    view = logits.transpose(2, 0, 1)  # (4, 5, 6), not contiguous
    expected = upsample_argmax(np.ascontiguousarray(view), (20, 24))
    assert np.array_equal(upsample_argmax(view, (20, 24)), expected)


@pytest.mark.parametrize("strip_values", [1, 700, 1 << 20])
def test_confidence_is_the_largest_of_torchs_softmax(
    monkeypatch: pytest.MonkeyPatch, strip_values: int
) -> None:
    monkeypatch.setattr(module, "_STRIP_VALUES", strip_values)
    logits = 5 * np.random.default_rng(0).normal(size=(7, 5, 6)).astype(np.float32)
    for size in ((20, 24), (17, 3), (1, 1)):
        expected = torch.from_numpy(torch_upsample(logits, size)).softmax(0).amax(0).numpy()
        np.testing.assert_allclose(upsample_confidence(logits, size), expected, atol=1e-6)


def test_a_photos_confidence_is_that_of_its_labels() -> None:
    logits = 5 * np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    full = torch.from_numpy(torch_upsample(logits, (16, 20))).softmax(0)[:, :15, :18].numpy()
    labels = photo_labels(logits, 4, (15, 18))
    confidence = photo_confidence(logits, 4, (15, 18))
    chosen = np.take_along_axis(full, labels[None].astype(np.intp), axis=0)[0]
    np.testing.assert_allclose(confidence, chosen, atol=1e-6)
