"""Upsampling and argmax, compiled and in NumPy, against torch's full-size logits."""

import weakref
from contextlib import suppress
from threading import Event, current_thread, main_thread

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from atrous import kernels
from atrous.infer.upsample import (
    logits_to_labels,
    logits_to_labels_confidence,
    upsample_argmax,
    upsample_argmax_confidence,
    upsample_logits,
)
from atrous.kernels import upsample as module
from atrous.kernels.upsample import upsample_reference
from atrous.models import layers

FUSED = torch.backends.cpu.get_cpu_capability() != "DEFAULT"
"""Whether torch mixes with fused multiply-add here, as the kernels do everywhere."""

KINDS = st.sampled_from(["noise", "ties", "near"])
SIDES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def torch_upsample(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(K, h, w) -> (K, H, W)."""
    batch = torch.from_numpy(logits)[None]
    return functional.interpolate(batch, size, mode="bilinear", align_corners=False)[0].numpy()


def same_values(classes: int, small: tuple[int, int]) -> bool:
    """Whether torch mixes as we do where H + W > 128: not what it takes for channels-last."""
    return FUSED and classes != 3 and small != (1, 1)


def reference(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return upsample_reference(logits, size, size)[0]


def assert_equal_but_for_ties(labels: np.ndarray, full: np.ndarray) -> None:
    """`labels` (H, W) must be the largest of `full` (K, H, W), or within rounding of it."""
    chosen = np.take_along_axis(full, labels[None].astype(np.intp), axis=0)[0]
    assert np.abs(chosen - full.max(axis=0)).max() <= 1e-5


@given(st.integers(1, 40), SIDES, SIDES, KINDS, st.integers(0))
@settings(max_examples=60, deadline=None)
def test_equals_torch_bit_for_bit(
    classes: int, small: tuple[int, int], size: tuple[int, int], kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(classes, *small)).astype(np.float32)
    if kind == "ties":
        logits = np.round(logits)
    if kind == "near":  # all classes within a few roundings of each other
        logits = (1e-7 * logits + rng.normal(size=small)).astype(np.float32)
    large = size[0] + 128, size[1]  # over the sum up to which torch has another kernel
    expected = torch_upsample(logits, large).argmax(0)
    for upsample in (upsample_argmax, reference):
        labels = upsample(logits, large)
        assert labels.dtype == np.uint8
        assert (labels == expected).all() or not same_values(classes, small)
    assert_equal_but_for_ties(upsample_argmax(logits, size), torch_upsample(logits, size))


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_equals_torch_by_the_strides_of_networks(stride: int) -> None:
    logits = np.random.default_rng(0).normal(size=(11, 23, 30)).astype(np.float32)
    size = (23 * stride, 30 * stride)
    expected = torch_upsample(logits, size).argmax(0)
    assert (upsample_argmax(logits, size) == expected).mean() > (0.999999 if FUSED else 0.9999)


@pytest.mark.parametrize(
    ("cells", "size"), [((9, 13), (65, 97)), ((7, 9), (50, 71)), ((1, 1), (1, 5))]
)
def test_cells_on_pixels_equal_torch(cells: tuple[int, int], size: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).normal(size=(5, *cells)).astype(np.float32)
    full = layers.upsample(torch.from_numpy(logits)[None], 8, size, aligned=True)[0]
    labels, sure = logits_to_labels_confidence(logits, 8, size, aligned=True)
    assert_equal_but_for_ties(labels, full.numpy())
    np.testing.assert_allclose(sure, full.softmax(0).amax(0), atol=2e-6)
    again, _ = upsample_reference(logits, (8 * cells[0], 8 * cells[1]), size, aligned=True)
    assert np.array_equal(again, labels)
    np.testing.assert_allclose(upsample_logits(logits, 8, size, aligned=True), full, atol=1e-5)
    assert np.array_equal(full[:, ::8, ::8], logits[:, : -(-size[0] // 8), : -(-size[1] // 8)])


def test_interpolated_values_are_torchs() -> None:
    """A class of ramps against a constant one: where it wins tells its value to the last bit."""
    assert FUSED or pytest.skip("torch rounds twice on this processor")
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(7, 9)).astype(np.float32)
    values = torch_upsample(plane[None], (70, 81))[0]
    for value in rng.choice(values.ravel(), 50):
        logits = np.stack([np.full_like(plane, value), plane])
        flat = torch_upsample(logits, (70, 81))
        assert np.array_equal(upsample_argmax(logits, (70, 81)), flat.argmax(0))
        assert (flat[1] == value).any()


@pytest.mark.parametrize("classes", [256, 257, 65536])
def test_many_classes(classes: int) -> None:
    logits = np.random.default_rng(0).normal(size=(classes, 2, 3)).astype(np.float32)
    labels = upsample_argmax(logits, (5, 12))
    assert labels.dtype == (np.uint8 if classes == 256 else np.uint16)
    assert_equal_but_for_ties(labels, torch_upsample(logits, (5, 12)))


def test_ties_go_to_the_lower_class() -> None:
    assert (upsample_argmax(np.zeros((3, 2, 2), np.float32), (5, 5)) == 0).all()


def test_class_that_wins_nowhere_but_between() -> None:
    logits = np.array([[[4, 0]], [[0, 4]], [[3, 3]]], np.float32)  # (3, 1, 2)
    assert upsample_argmax(logits, (1, 8)).tolist() == [[0, 0, 0, 2, 2, 1, 1, 1]]


def test_one_outlier_does_not_hide_a_near_tie() -> None:
    logits = np.zeros((4, 20, 20), np.float32)
    logits[0] = -1e30
    logits[1:3] = np.random.default_rng(0).normal(size=(20, 20))
    logits[1, 10:] *= np.float32(1 + 1e-7)
    size = (160, 160)
    assert np.array_equal(upsample_argmax(logits, size), torch_upsample(logits, size).argmax(0))


def test_logits_of_another_layout() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 6, 4)).astype(np.float32)
    view = logits.transpose(2, 0, 1)  # (4, 5, 6), not contiguous
    expected = upsample_argmax(np.ascontiguousarray(view), (20, 24))
    assert np.array_equal(upsample_argmax(view, (20, 24)), expected)


def test_logits_at_an_odd_address() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    odd = np.frombuffer(b"?" + logits.tobytes(), np.float32, offset=1).reshape(logits.shape)
    assert not odd.flags.aligned
    assert np.array_equal(upsample_argmax(odd, (20, 24)), upsample_argmax(logits, (20, 24)))


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5, 6), (0, 5, 6), (4, 0, 6), (65537, 1, 1)])
def test_logits_of_a_wrong_shape_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        upsample_argmax(np.zeros(shape, np.float32), (20, 24))


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (21, 4), (4, 25)])
def test_size_beyond_the_logits_is_an_error(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        logits_to_labels(np.zeros((3, 5, 6), np.float32), 4, size)


def test_an_interrupted_caller_leaves_the_arrays_to_its_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel goes on in another thread, and must not write to memory that is free again."""
    working, interrupted, made = Event(), Event(), []

    def run(job: object, scratch: object) -> None:
        if current_thread() is main_thread():
            assert working.wait(10)
            raise KeyboardInterrupt
        working.set()
        interrupted.wait(10)

    def empty(classes: int, size: tuple[int, int]) -> np.ndarray:
        labels = np.empty(size, np.uint8)
        made.append(weakref.ref(labels))
        return labels

    monkeypatch.setattr(kernels, "kernel", lambda _: run)
    monkeypatch.setattr(module, "_empty", empty)
    with suppress(KeyboardInterrupt):
        upsample_argmax(np.zeros((30, 40, 50), np.float32), (640, 1200), 2)
    kept = made[0]() is not None
    interrupted.set()
    assert kept


@given(st.integers(1, 5), SIDES, SIDES, st.integers(0))
@settings(max_examples=40, deadline=None)
def test_what_is_not_finite_gives_labels_in_range(
    classes: int, small: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = np.array([np.nan, np.inf, -np.inf, 0, 3e38, -3e38], np.float32)
    labels, confidence = upsample_argmax_confidence(rng.choice(values, (classes, *small)), size)
    assert labels.max() < classes
    assert confidence.shape == size


@given(st.integers(1, 60), SIDES, SIDES, st.sampled_from([1.0, 5.0, 50.0]), st.integers(0))
@settings(max_examples=60, deadline=None)
def test_confidence_is_the_largest_of_torchs_softmax(
    classes: int, small: tuple[int, int], size: tuple[int, int], scale: float, seed: int
) -> None:
    logits = scale * np.random.default_rng(seed).normal(size=(classes, *small)).astype(np.float32)
    assume(same_values(classes, small))
    size = size[0] + 128, size[1]
    full = torch.from_numpy(torch_upsample(logits, size)).double()
    for labels, confidence in (
        upsample_argmax_confidence(logits, size),
        upsample_reference(logits, size, size),
    ):
        assert np.array_equal(labels, reference(logits, size))
        assert confidence.max() <= 1
        np.testing.assert_allclose(confidence, full.softmax(0).amax(0), atol=2e-6)


def test_many_classes_that_are_hardly_probable_add_up() -> None:
    """Each of them is less than half a rounding of the winner's 1."""
    logits = np.zeros((2000, 4, 5), np.float32)
    logits[7] = 18
    expected = 1 / (1 + 1999 * np.exp(-18))
    for _, confidence in (
        upsample_argmax_confidence(logits, (160, 20)),
        upsample_reference(logits, (160, 20), (160, 20)),
    ):
        np.testing.assert_allclose(confidence, expected, atol=2e-6)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_change_nothing(threads: int) -> None:
    logits = 5 * np.random.default_rng(0).normal(size=(30, 40, 50)).astype(np.float32)
    labels, confidence = upsample_argmax_confidence(logits, (320, 400), 1)
    same, likewise = upsample_argmax_confidence(logits, (320, 400), threads)
    assert np.array_equal(labels, same) and np.array_equal(confidence, likewise)
    assert np.array_equal(upsample_argmax(logits, (320, 400), threads), labels)


@pytest.mark.parametrize("strip_values", [1, 700])
def test_reference_is_the_same_in_strips(
    monkeypatch: pytest.MonkeyPatch, strip_values: int
) -> None:
    logits = np.random.default_rng(0).normal(size=(7, 5, 6)).astype(np.float32)
    whole = upsample_reference(logits, (20, 24), (20, 24))
    monkeypatch.setattr(module, "_STRIP_VALUES", strip_values)
    strips = upsample_reference(logits, (20, 24), (20, 24))
    assert all(np.array_equal(a, b) for a, b in zip(whole, strips, strict=True))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([4, 8]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_photo_is_the_upper_left_part(height: int, width: int, stride: int, plain: bool) -> None:
    small = -(-height // stride), -(-width // stride)
    logits = 5 * np.random.default_rng(0).normal(size=(3, *small)).astype(np.float32)
    full = small[0] * stride, small[1] * stride
    expected, probable = upsample_argmax_confidence(logits, full)
    if plain:
        labels, confidence = upsample_reference(logits, full, (height, width))
    else:
        labels, confidence = logits_to_labels_confidence(logits, stride, (height, width))
    assert np.array_equal(labels, expected[:height, :width])
    assert np.array_equal(logits_to_labels(logits, stride, (height, width)), labels)
    np.testing.assert_allclose(confidence, probable[:height, :width], atol=3e-6)
