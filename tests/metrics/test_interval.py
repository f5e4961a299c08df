import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.errors import InputError
from atrous.metrics import Boundary, Confusion
from atrous.metrics.interval import (
    BOUNDARY_MEANS,
    MEANS,
    boundary_intervals,
    compare,
    compare_boundaries,
    holm,
    intervals,
)
from atrous.metrics.protocols import PROTOCOLS


def simulated_truth(random, num_images, num_classes=3):
    """Pixels of each class in each image, (N, K); some classes are missing."""
    truth = random.integers(0, 200, (num_images, num_classes))
    return np.where(random.random(truth.shape) < 0.3, 0, truth)


def simulated(random, truth, hit_rate=0.7):
    """Counts (N, 3, K) of a model that finds some images hard; errors go to the next class."""
    rate = np.clip(random.normal(hit_rate, 0.2, (len(truth), 1)), 0, 1)
    return counts_of(random.binomial(truth, rate), truth)


def counts_of(hit, truth):
    predicted = hit + np.roll(truth - hit, 1, axis=1)
    return np.stack([hit, truth, predicted], axis=1).astype(np.uint32)


def two_models(random, num_images, hit_rate):
    """Counts of two models on the same images, the second with another hit rate than 0.7."""
    truth = simulated_truth(random, num_images)
    return simulated(random, truth), simulated(random, truth, hit_rate)


def confusion_of(counts):
    """A matrix with these margins, wrong pixels going to the next class as in `simulated`."""
    confusion = Confusion(counts.shape[2])
    for hit, truth, _ in counts.astype(int):
        label = np.repeat(np.arange(len(truth)), truth)
        wrong = np.concatenate([np.arange(t) >= h for h, t in zip(hit, truth, strict=True)])
        confusion.update(np.where(wrong, (label + 1) % len(truth), label), label)
    return confusion


def miou(counts, protocol):
    """The mIoU of drawn images, through `Confusion` itself."""
    return confusion_of(counts).scores(protocol).miou


def digest(image):
    """What images are put in order by."""
    return hashlib.sha256(image.tobytes()).digest()


def draw_by_hand(random, num_images, resamples):
    return random.integers(0, num_images, (resamples, num_images))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_interval_equals_a_loop_over_draws(protocol):
    random = np.random.default_rng(1)
    counts = simulated(random, simulated_truth(random, 9))
    counts = np.array(sorted(counts, key=digest))
    draws = draw_by_hand(np.random.default_rng(7), 9, 100)
    options = {"resamples": 100, "level": 0.9, "seed": 7}
    found = intervals(counts, protocol, **options)
    for name in MEANS:
        scores = [confusion_of(counts[drawn]).scores(protocol) for drawn in draws]
        expected = np.nanquantile([getattr(each, name) for each in scores], [0.05, 0.95])
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)


@pytest.mark.parametrize("protocol", ["pooled", "detectron2", "per-image"])
def test_a_comparison_equals_a_loop_over_draws_and_swaps(protocol):
    a, b = two_models(np.random.default_rng(2), 8, 0.6)
    order = sorted(range(8), key=lambda i: sorted((digest(a[i]), digest(b[i]))))
    a, b = a[order], b[order]
    random = np.random.default_rng(3)
    drawn = [miou(a[d], protocol) - miou(b[d], protocol) for d in draw_by_hand(random, 8, 64)]
    measured = miou(a, protocol) - miou(b, protocol)
    as_much = 1
    for swap in random.integers(0, 2, (64, 8)).astype(bool)[:, :, None, None]:
        one, other = np.where(swap, b, a), np.where(swap, a, b)
        as_much += abs(miou(one, protocol) - miou(other, protocol)) >= abs(measured) - 1e-12
    comparison = compare(a, b, protocol, resamples=64, seed=3)
    np.testing.assert_allclose(
        comparison, [measured, *np.quantile(drawn, [0.025, 0.975]), as_much / 65], rtol=1e-9
    )


def boundaries(random, labels, share, num_classes=3):
    """Counts (N, 7, K) of a model that shifts images and mistakes a share of the pixels."""
    boundary = Boundary(num_classes)
    for label in labels:
        prediction = np.roll(label, random.integers(-2, 3), axis=1)
        wrong = random.random(label.shape) < share
        boundary.update(np.where(wrong, 2, prediction).astype(np.uint8), label)
    return boundary.counts()


def two_boundaries(seed, num_images):
    """Counts of two models on the same images of blocks, the second worse."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 2, (num_images, 4, 5), dtype=np.uint8)
    labels = np.kron(blocks, np.ones((1, 6, 6), np.uint8))
    return boundaries(random, labels, 0.01), boundaries(random, labels, 0.05)


def boundary_scores(counts):
    """Means of drawn images, through `Boundary` itself: (2,)."""
    boundary = Boundary(counts.shape[2])
    boundary.images = list(counts)
    scores = boundary.scores()
    return np.array([scores.miou, scores.mf])


def test_boundary_intervals_equal_a_loop_over_draws():
    counts, _ = two_boundaries(1, 9)
    counts = np.array(sorted(counts, key=digest))
    draws = draw_by_hand(np.random.default_rng(7), 9, 100)
    expected = np.quantile([boundary_scores(counts[drawn]) for drawn in draws], [0.05, 0.95], 0)
    found = boundary_intervals(counts, resamples=100, level=0.9, seed=7)
    for name, ends in zip(BOUNDARY_MEANS, expected.T, strict=True):
        np.testing.assert_allclose(found[name], ends, rtol=1e-12)


def test_a_comparison_of_boundaries_equals_a_loop_over_draws_and_swaps():
    a, b = two_boundaries(2, 8)
    order = sorted(range(8), key=lambda i: sorted((digest(a[i]), digest(b[i]))))
    a, b = a[order], b[order]
    random = np.random.default_rng(3)
    drawn = [boundary_scores(a[d]) - boundary_scores(b[d]) for d in draw_by_hand(random, 8, 64)]
    measured = boundary_scores(a) - boundary_scores(b)
    as_much = np.ones(2)
    for swap in random.integers(0, 2, (64, 8)).astype(bool)[:, :, None, None]:
        one, other = np.where(swap, b, a), np.where(swap, a, b)
        moved = boundary_scores(one) - boundary_scores(other)
        as_much += np.abs(moved) >= np.abs(measured) - 1e-12
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    expected = np.stack([measured, low, high, as_much / 65], axis=1)
    found = compare_boundaries(a, b, resamples=64, seed=3)
    np.testing.assert_allclose([found[name] for name in BOUNDARY_MEANS], expected, rtol=1e-9)


def test_boundaries_without_a_score_have_no_test():
    a, b = two_boundaries(0, 3)
    assert np.isnan(boundary_intervals(a[:1])["boundary_miou"]).all()
    assert np.isnan(compare_boundaries(a[:1], b[:1])["boundary_mf"][1:]).all()
    for counts in (a, b):
        counts[:, 3:] = 0  # no contours, but bands: images of one class each
    tests = compare_boundaries(a, b)
    assert np.isnan(tests["boundary_mf"]).all()
    assert not np.isnan(tests["boundary_miou"]).any()


def test_an_interval_holds_the_true_score_about_as_often_as_it_says():
    """Of 200 data sets of 60 images, about 95 % of the intervals hold the population's mIoU."""
    random = np.random.default_rng(0)
    hit, truth, predicted = simulated(random, simulated_truth(random, 200_000)).sum(0, np.int64)
    population = np.mean(hit / (truth + predicted - hit))
    held = 0
    for seed in range(200):
        counts = simulated(random, simulated_truth(random, 60))
        low, high = intervals(counts, resamples=300, seed=seed)["miou"]
        held += low <= population <= high
    assert 0.90 <= held / 200 <= 0.985


def test_equal_models_are_significant_about_as_seldom_as_the_p_value_says():
    random = np.random.default_rng(1)
    pairs = [two_models(random, 30, 0.7) for _ in range(200)]
    p_values = np.array(
        [compare(a, b, resamples=200, seed=i).p_value for i, (a, b) in enumerate(pairs)]
    )
    assert 0.01 <= np.mean(p_values < 0.05) <= 0.09
    assert 0.4 <= np.mean(p_values < 0.5) <= 0.6


def test_a_real_difference_is_told_apart():
    a, b = two_models(np.random.default_rng(2), 50, 0.4)
    comparison = compare(a, b)
    assert comparison.p_value == 1 / 1001
    assert 0 < comparison.low < comparison.difference < comparison.high


@given(st.lists(st.floats(0, 1) | st.just(np.nan), max_size=9))
@settings(deadline=None, max_examples=50)
def test_holm_rejects_as_its_steps_do(p_values):
    """Step down from the smallest: each is held against the level over how many are left."""
    level, left = 0.05, sorted(p for p in p_values if not np.isnan(p))
    rejected = 0
    while rejected < len(left) and (len(left) - rejected) * left[rejected] < level:
        rejected += 1
    adjusted = holm(p_values)
    assert sum(p < level for p in adjusted) == rejected
    assert all(p != p or p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    assert np.array_equal(np.isnan(p_values), np.isnan(adjusted))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_does_not_differ_from_itself(protocol):
    counts, _ = two_models(np.random.default_rng(3), 20, 0.7)
    assert compare(counts, counts, protocol) == (0, 0, 0, 1)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["pooled", "per-image"]))
@settings(deadline=None, max_examples=20)
def test_the_order_of_images_and_of_models_does_not_matter(seed, protocol):
    random = np.random.default_rng(seed)
    a, b = two_models(random, 12, 0.6)
    one = compare(a, b, protocol, resamples=50)
    order = random.permutation(12)
    assert compare(a[order], b[order], protocol, resamples=50) == one
    assert intervals(a[order], protocol, resamples=50) == intervals(a, protocol, resamples=50)
    other = compare(b, a, protocol, resamples=50)
    np.testing.assert_allclose(
        (-other.difference, -other.high, -other.low, other.p_value), one, atol=1e-12
    )


@pytest.mark.parametrize("num_images", [0, 1])
def test_fewer_than_two_images_have_no_interval(num_images):
    counts, _ = two_models(np.random.default_rng(0), num_images, 0.7)
    assert np.isnan(intervals(counts)["miou"]).all()
    assert np.isnan(compare(counts, counts)[1:]).all()


def test_draws_without_a_score_are_left_out():
    counts = np.full((6, 3, 2), 5, np.uint32)
    counts[1:, :, 1] = 0  # only one image shows the second class
    assert intervals(counts, "torchvision")["miou"] == (1, 1)
    counts[:, :, 1] = 0
    assert np.isnan(intervals(counts, "torchvision")["miou"]).all()
    assert np.isnan(compare(counts, counts, "torchvision")).all()


def test_other_images_and_other_protocols_are_refused():
    random = np.random.default_rng(0)
    (a, _), (b, _) = two_models(random, 5, 0.7), two_models(random, 5, 0.7)
    with pytest.raises(InputError, match="on the same images only"):
        compare(a, b)
    with pytest.raises(InputError, match="on the same images only"):
        compare(a, a[:4])
    (one, _), (other, _) = two_boundaries(0, 4), two_boundaries(1, 4)
    with pytest.raises(InputError, match="on the same images only"):
        compare_boundaries(one, other)
    with pytest.raises(InputError, match="no metric protocol 'voc'"):
        intervals(a, "voc")
    with pytest.raises(InputError, match="no metric protocol 'voc'"):
        compare(a, a, "voc")
