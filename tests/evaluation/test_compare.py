"""Which differences are real, and which images show them."""

import re

import numpy as np
import pytest
from samples_in_memory import truth_of

from atrous.data.sample import Sample
from atrous.evaluation.compare import Comparison, ModelResult, scenes
from atrous.evaluation.cost import Cost
from atrous.evaluation.evaluate import Source, evaluate
from atrous.evaluation.score import Predicted
from atrous.metrics.interval import (
    BOUNDARY_MEANS,
    MEANS,
    compare,
    compare_boundaries,
    holm,
)
from atrous.report.comparison import sentence
from atrous.taxonomy import Taxonomy

TAXONOMY = Taxonomy(name="two", classes=("a", "b"), colors=((255, 0, 0), (0, 0, 255)))
SIDE = 12


def labels(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 2, (SIDE, SIDE), dtype=np.uint8) for _ in range(count)]


def spoilt(label: np.ndarray, share: float, seed: int) -> np.ndarray:
    wrong = np.random.default_rng(seed).random(label.shape) < share
    return np.where(wrong, 1 - label, label).astype(np.uint8)


def result(name: str, truth: list[np.ndarray], predictions: list[np.ndarray]) -> ModelResult:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    samples = [Sample(image, label, f"{i:02}") for i, label in enumerate(truth)]
    seen = (Predicted(s.key, p, s.label) for s, p in zip(samples, predictions, strict=True))
    evaluation = evaluate(Source(name, seen), truth_of(TAXONOMY, samples), boundary=True)
    return ModelResult(name=name, evaluation=evaluation, cost=Cost(1, 2))


def compared(models: list[ModelResult]) -> Comparison:
    return Comparison(
        size=(SIDE, SIDE),
        machine={"processor": "any", "threads": 1},
        unavailable={},
        models=models,
    )


@pytest.fixture(scope="module")
def four() -> Comparison:
    """A good model, two alike but for chance, and a bad one; image 20 is hard for the last."""
    truth = labels(40)
    shares = {"good": 0.05, "twin": 0.2, "other twin": 0.2, "bad": 0.4}
    models = []
    for seed, (name, share) in enumerate(shares.items()):
        predictions = [spoilt(label, share, 100 * i + seed) for i, label in enumerate(truth)]
        if name == "bad":
            predictions[20] = 1 - truth[20]
            predictions[21] = spoilt(truth[21], 0.95, 0)
        models.append(result(name, truth, predictions))
    return compared(models)


def test_pairs_are_significant_or_not(four: Comparison) -> None:
    significant = {frozenset(pair[:2]): pair.significant for pair in four.pairs}
    assert len(significant) == 6
    assert [pair for pair in significant if not significant[pair]] == [{"twin", "other twin"}]
    lines = [sentence(pair).splitlines() for pair in four.pairs]
    assert lines[0][0].startswith("good ") and lines[0][0].endswith(" better than twin")
    assert lines[0][1].endswith("): significant")
    assert sum(line[1].endswith("): not significant") for line in lines) == 1
    names = [re.sub(r"[\d.]+ \(95 %.*", "", line) for line in lines[0][2:]]
    assert names == ["  boundary IoU +", "  boundary F +"]


def test_p_values_are_adjusted_for_all_pairs(four: Comparison) -> None:
    plain = [pair.test.p_value for pair in four.pairs]
    assert [pair.p_adjusted for pair in four.pairs] == holm(plain)
    assert min(pair.p_adjusted for pair in four.pairs) == pytest.approx(6 / 1001)
    counts = [model.evaluation.confusion.counts() for model in four.models]
    assert four.pairs[0].test == compare(counts[0], counts[1])
    for name in BOUNDARY_MEANS:
        boundaries = [pair.differences[name] for pair in four.pairs]
        assert [each.p_adjusted for each in boundaries] == holm(
            [each.test.p_value for each in boundaries]
        )
    first, second = (model.boundary_counts for model in four.models[:2])
    expected = compare_boundaries(first, second)
    assert {name: four.pairs[0].differences[name].test for name in BOUNDARY_MEANS} == expected


def test_many_pairs_draw_more_often() -> None:
    truth = labels(20)
    models = [
        result(f"{n}", truth, [spoilt(label, n / 20, 7 * i + n) for i, label in enumerate(truth)])
        for n in range(7)
    ]
    smallest = min(pair.p_adjusted for pair in compared(models).pairs)
    assert smallest == pytest.approx(21 / 2101)  # with 1,000 draws it could not be below 0.02


def test_the_most_different_images_come_first_and_apart(four: Comparison) -> None:
    chosen = four.most_different
    assert chosen[0] == 20 and 21 not in chosen
    assert len(chosen) == 6
    assert min(abs(a - b) for a in chosen for b in chosen if a != b) >= 5
    spread = np.ptp(four.mious, axis=0)
    assert spread[20] == pytest.approx(max(spread))


def test_scenes_hold_what_each_model_makes_of_an_image(four: Comparison) -> None:
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    samples = [Sample(image + i, label, f"{i:02}") for i, label in enumerate(labels(40))]
    predict = {
        model.name: lambda image, n=n: image[:, :, 0] + n for n, model in enumerate(four.models)
    }
    shown = list(scenes(four, predict, samples))
    assert [scene.sample.key for scene in shown] == [four.keys[i] for i in four.most_different]
    assert [int(seen[0, 0]) for seen in shown[0].predictions] == [20, 21, 22, 23]


def test_the_document_has_no_nan_and_all_means(four: Comparison) -> None:
    document = four.to_dict()
    model = document["models"][0]
    assert model["intervals"].keys() == {*MEANS, *BOUNDARY_MEANS}
    tested = {"difference", "low", "high", "p_value", "p_adjusted"}
    assert document["pairs"][0]["boundary_mf"].keys() == tested
    assert all(low < model[name] < high for name, (low, high) in model["intervals"].items())
    one = compared([result(name, labels(1), labels(1)) for name in ("a", "b")]).to_dict()
    assert one["models"][0]["intervals"]["miou"] == [None, None]
    assert one["pairs"][0]["p_adjusted"] is None
