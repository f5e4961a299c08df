"""The dense CRF: compiled, in NumPy, by exact sums over all pairs, and by pydensecrf2."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import atrous
from atrous import kernels
from atrous.errors import InputError
from atrous.images.photos import write_image
from atrous.infer import crf as module
from atrous.infer.crf import CRFS, Crf, crf_kernels, crf_labels, crf_named, dense_crf
from atrous.infer.segmenter import load
from atrous.infer.upsample import logits_to_labels, upsample_logits
from atrous.kernels.crf import lattice_filter, mean_field_reference

STREET = Path(__file__).parents[2] / "docs" / "demo" / "street.jpg"
NONE = Crf(name="none", appearance=0, position=50, color=5, smoothness=0, distance=3, iterations=3)


def street(height: int, width: int) -> np.ndarray:
    with Image.open(STREET) as photo:
        return np.array(photo.convert("RGB").resize((width, height)))


def generated(kind: str, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    if kind == "noise":
        return random.integers(0, 256, (*size, 3), np.uint8)
    if kind == "black":
        return np.zeros((*size, 3), np.uint8)
    ramp = np.indices(size).sum(0) * 255 // sum(size)
    return np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1).astype(np.uint8)


def random_logits(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=2, size=shape).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp((logits - logits.max(0)).astype(float))
    return powers / powers.sum(0)


@given(
    st.integers(1, 20),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["noise", "black", "ramp"]),
    st.sampled_from(list(CRFS)),
    st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_compiled_is_the_reference(
    classes: int, height: int, width: int, kind: str, name: str, seed: int
) -> None:
    assert kernels.is_available("crf_points")
    logits = random_logits((classes, height, width), seed)
    image = generated(kind, (height, width), seed)
    beliefs = dense_crf(logits, image, CRFS[name])
    assert beliefs.dtype == np.float32
    crf = CRFS[name]
    expected = mean_field_reference(logits, crf_kernels(logits, image, crf), crf.iterations)
    np.testing.assert_allclose(beliefs, expected, atol=1e-4)


@pytest.mark.parametrize("name", CRFS)
@pytest.mark.parametrize("kind", ["street", "noise", "ramp"])
def test_it_is_pydensecrf2(name: str, kind: str) -> None:
    from pydensecrf.densecrf import DenseCRF2D  # of the extra `all`: missing, this fails

    image = street(203, 271) if kind == "street" else generated(kind, (93, 118))
    height, width = image.shape[:2]
    logits = atrous.load("camvid", runtime="onnxruntime").runtime(image[None])[0]
    full = upsample_logits(logits, 4, (height, width))
    crf = CRFS[name]
    field = DenseCRF2D(width, height, len(full))
    field.setUnaryEnergy(-full.reshape(len(full), -1))
    field.addPairwiseGaussian(sxy=crf.distance, compat=crf.smoothness)
    field.addPairwiseBilateral(sxy=crf.position, srgb=crf.color, rgbim=image, compat=crf.appearance)
    expected = np.array(field.inference(crf.iterations)).reshape(full.shape)
    beliefs = dense_crf(full, image, crf)
    assert (beliefs.argmax(0) == expected.argmax(0)).mean() >= 0.999
    assert (beliefs.argmax(0) == full.argmax(0)).mean() < 1
    assert np.abs(beliefs - expected).mean() < 1e-5
    np.testing.assert_allclose(beliefs, expected, atol=0.01)


@pytest.mark.parametrize("crf", CRFS.values(), ids=lambda crf: crf.name)
def test_the_lattices_are_gaussians(crf: Crf) -> None:
    """Nearly: of the filters, normalised alike, against sums over all pairs of pixels."""
    image = street(30, 40)
    values = 1 + np.random.default_rng(0).normal(size=(1200, 1))
    y, x = np.indices((30, 40)).reshape(2, -1)
    place = np.stack([x, y]).astype(float)
    color = image.reshape(-1, 3).T.astype(float)
    features = np.concatenate([place / crf.position, color / crf.color]), place / crf.distance
    gaussians = crf_kernels(np.zeros((1, 30, 40), np.float32), image, crf)
    for exact, kernel in zip(features, gaussians, strict=True):
        between = np.exp(-((exact[:, :, None] - exact[:, None]) ** 2).sum(0) / 2)
        scales = 1 / np.sqrt(between.sum(1, keepdims=True))
        expected = scales * (between @ (scales * values))
        filtered = lattice_filter(kernel.features)(values)
        assert np.abs(filtered - expected).mean() < 0.05 * np.abs(expected).mean()
        assert np.corrcoef(filtered[:, 0], expected[:, 0])[0, 1] > 0.95


def test_labels_move_to_the_edge_in_the_image() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 20:] = 200
    logits = np.zeros((2, 20, 40), np.float32)
    logits[0, :, :17], logits[1, :, 17:] = 1, 1  # three columns off
    logits[:, 5, 5] = [0, 3]  # and a speck
    labels = dense_crf(logits, image, CRFS["deeplab"]).argmax(0)
    assert np.array_equal(labels, np.broadcast_to(np.arange(40) >= 20, (20, 40)))


@pytest.mark.parametrize("crf", [NONE, replace(CRFS["deeplab"], iterations=0)])
def test_without_messages_it_is_the_softmax(crf: Crf) -> None:
    logits = random_logits((9, 7, 5))
    beliefs = dense_crf(logits, street(7, 5), crf)
    np.testing.assert_allclose(beliefs, softmax(logits), atol=1e-6)


def test_what_all_classes_have_in_common_changes_nothing() -> None:
    logits, image = random_logits((5, 20, 30)), street(20, 30)
    beliefs = dense_crf(logits, image, CRFS["kazuto"])
    logarithms = np.log(softmax(logits)).astype(np.float32)
    np.testing.assert_allclose(dense_crf(logarithms, image, CRFS["kazuto"]), beliefs, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_change_nothing(threads: int) -> None:
    logits, image = random_logits((21, 90, 101)), street(90, 101)
    expected = dense_crf(logits, image, CRFS["deeplab"], 3)
    assert np.array_equal(dense_crf(logits, image, CRFS["deeplab"], threads), expected)


def test_without_a_library_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, image = random_logits((3, 12, 15)), street(12, 15)
    expected = dense_crf(logits, image, CRFS["deeplab"])
    monkeypatch.setattr(kernels, "kernel", lambda _: None)
    np.testing.assert_allclose(dense_crf(logits, image, CRFS["deeplab"]), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 5), (0, 4, 5), (3, 4, 6), (3, 5, 4)])
def test_shapes_that_do_not_go_together_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not go together"):
        dense_crf(np.zeros(shape, np.float32), np.zeros((4, 5, 3), np.uint8), CRFS["deeplab"])


@pytest.mark.parametrize("deviation", [0.0, 1e-6, float("nan")])
@pytest.mark.parametrize("field", ["position", "color", "distance"])
@pytest.mark.filterwarnings("ignore:divide", "ignore:invalid", "ignore:overflow")
def test_a_deviation_that_is_too_small_is_an_error(field: str, deviation: float) -> None:
    crf = replace(CRFS["deeplab"], **{field: deviation})
    with pytest.raises(InputError, match="a standard deviation is too small"):
        dense_crf(random_logits((2, 8, 9)), street(8, 9), crf)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error(value: float) -> None:
    logits = random_logits((2, 8, 9))
    logits[1, 3, 4] = value
    with pytest.raises(InputError, match="NaN or infinite logits"):
        dense_crf(logits, street(8, 9), CRFS["deeplab"])


def test_unknown_parameters_are_an_error() -> None:
    with pytest.raises(InputError, match=r"--crf deplab: .* take deeplab, kazuto, kraehenbuehl$"):
        crf_named("deplab")


def test_full_logits_have_the_labels_largest() -> None:
    logits = random_logits((7, 9, 11))
    full = upsample_logits(logits, 4, (34, 41))
    assert full.shape == (7, 34, 41)
    chosen = np.take_along_axis(
        full, logits_to_labels(logits, 4, (34, 41))[None].astype(int), axis=0
    )
    assert (full.max(0) - chosen[0]).max() < 1e-5


def test_a_segmenter_refines(tiny_bundle: Path, paint: np.ndarray) -> None:
    segmenter = load(tiny_bundle, crf="deeplab", flip=True, scales=(1, 1.5))
    result = segmenter(paint)
    assert result.model.startswith("paint with flip and scales 1 1.5, deeplab CRF (fp32, ")
    assert result.to_dict()["model"] == result.model
    labels, confidence = segmenter.predict_with_confidence(paint)
    assert labels.dtype == np.uint8 and np.array_equal(labels, result.labels)
    logits = segmenter.runtime(paint[None])[0]
    expected, probable = crf_labels(logits, 4, paint, CRFS["deeplab"], 1)
    assert np.array_equal(labels, expected) and np.array_equal(confidence, probable)
    assert confidence.min() >= 0.25 and confidence.max() <= 1 + 1e-6


def test_tiles_are_refined_as_a_whole(tiny_bundle: Path) -> None:
    image = street(150, 200)
    tiled = load(tiny_bundle, tile=128, crf=CRFS["deeplab"])
    whole = load(tiny_bundle, tile=0, crf=CRFS["deeplab"])
    assert (tiled.predict(image) == whole.predict(image)).mean() > 0.99


def test_a_photo_that_is_too_large_is_named(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_BYTES", 1 << 20)
    write_image(tmp_path / "large.png", street(90, 120))
    segmenter = load(tiny_bundle, crf="deeplab")
    with pytest.raises(InputError, match=r"large.png: 120x90 pixels of 4 classes .* smaller$"):
        segmenter(tmp_path / "large.png")
    assert [type(result) for _, result in segmenter.stream([tmp_path / "large.png"])] == [
        InputError
    ]
