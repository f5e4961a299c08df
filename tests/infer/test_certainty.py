"""The hint that a photo is none that the shipped model knows."""

from pathlib import Path

import numpy as np
import pytest

import atrous
from atrous.infer.certainty import UNSURE, certainty_of
from atrous.infer.segmenter import Segmentation

STREET = Path(__file__).parents[2] / "docs/demo/street.jpg"


def test_mean_of_the_largest_probability() -> None:
    logits = np.zeros((4, 2, 2), np.float32)
    assert certainty_of(logits) == pytest.approx(1 / 4)
    logits[0, 0] = 100  # two of four cells
    assert certainty_of(logits) == pytest.approx((1 + 1 / 4) / 2)


def test_large_photos_are_sampled() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (11, 700, 900)).astype(np.float32)
    powers = np.exp(logits.astype(np.float64))
    assert certainty_of(logits) == pytest.approx((powers.max(0) / powers.sum(0)).mean(), abs=0.02)


@pytest.mark.parametrize("options", [{}, {"with_confidence": True}, {"crf": "kazuto"}])
def test_labels_are_the_same_with_it(
    tiny_bundle: Path, paint: np.ndarray, options: dict[str, object]
) -> None:
    plain = atrous.load(tiny_bundle, **options)(paint)
    result = atrous.load(tiny_bundle, **options, with_certainty=True)(paint)
    assert isinstance(result, Segmentation)
    assert (result.labels == plain.labels).all()
    assert plain.certainty is None and "certainty" not in plain.to_dict()
    assert result.certainty is not None and 1 / 4 <= result.certainty <= 1
    assert result.to_dict()["certainty"] == round(result.certainty, 4)
    if plain.confidence is not None:
        assert result.confidence is not None
        assert (result.confidence == plain.confidence).all()


def test_an_image_of_other_bands_is_refused_with_it_too(tiny_bundle: Path, tmp_path: Path) -> None:
    segmenter = atrous.load(tiny_bundle, with_certainty=True)
    with pytest.raises(atrous.InputError, match="array: uint8"):
        segmenter(np.zeros((8, 8, 5), np.uint8))


def test_the_shipped_model_is_sure_of_a_street_and_unsure_of_what_is_none() -> None:
    segmenter = atrous.load("camvid", runtime="onnxruntime", with_certainty=True)
    street = segmenter(STREET).certainty
    grey = np.full((240, 320, 3), 127, np.uint8)
    discs = np.full((240, 320, 3), (200, 160, 120), np.uint8)
    y, x = np.indices((240, 320))
    discs[np.hypot(y - 120, x - 160) < 90] = (230, 60, 140)
    assert street is not None and street > UNSURE
    for image in (grey, discs):
        certainty = segmenter(image).certainty
        assert certainty is not None and certainty < UNSURE
