import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from atrous.errors import InputError
from atrous.metrics import Calibration

IGNORE = 255


def softmax_case(seed, size=200, num_classes=4):
    """Probabilities (N, K), their labels (N,), some of them ignored."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (size, num_classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    label = random.integers(0, num_classes, size)
    label[random.random(size) < 0.2] = IGNORE
    return probabilities, label


def counted(probabilities, label, num_bins=15):
    calibration = Calibration(num_bins)
    calibration.update(probabilities.max(1), probabilities.argmax(1), label)
    return calibration


def ece_by_hand(probabilities, label, num_bins):
    bins = [[] for _ in range(num_bins)]
    for row, true in zip(probabilities, label, strict=True):
        if true != IGNORE:
            index = min(int(row.max() * num_bins), num_bins - 1)
            bins[index].append((row.max(), row.argmax() == true))
    total = sum(map(len, bins))
    means = [np.mean(pixels, axis=0) for pixels in bins if pixels]
    sizes = [len(pixels) for pixels in bins if pixels]
    return sum(n / total * abs(c - a) for n, (c, a) in zip(sizes, means, strict=True))


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
@settings(deadline=None, max_examples=50)
def test_ece_equals_a_loop_over_bins(seed, num_bins):
    case = softmax_case(seed)
    assert counted(*case, num_bins).ece() == pytest.approx(ece_by_hand(*case, num_bins), abs=1e-7)


def test_ece_equals_torchmetrics():
    probabilities, label = softmax_case(0, size=20_000)
    expected = multiclass_calibration_error(
        *(torch.from_numpy(probabilities), torch.from_numpy(label)),
        **{"num_classes": 4, "n_bins": 15, "norm": "l1", "ignore_index": IGNORE},
    )
    assert counted(probabilities, label).ece() == pytest.approx(float(expected), abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(0, 200))
@settings(deadline=None, max_examples=30)
def test_parts_merge_to_the_whole_exactly(seed, cut):
    probabilities, label = softmax_case(seed)
    merged = counted(probabilities[cut:], label[cut:])
    merged.merge(counted(probabilities[:cut], label[:cut]))
    assert (merged.counts == counted(probabilities, label).counts).all()


def test_the_reliability_table_by_hand():
    calibration = Calibration(num_bins=4)
    calibration.update(
        np.array([[0.5, 0.625, 1.0, 0.0, 0.9]], np.float32),
        np.array([[1, 1, 2, 0, 0]]),
        np.array([[1, 0, 2, 1, IGNORE]]),
    )
    table = calibration.reliability()
    assert table.pixels.tolist() == [1, 0, 2, 1]
    np.testing.assert_array_equal(table.confidence, [0, np.nan, 0.5625, 1])
    np.testing.assert_array_equal(table.accuracy, [0, np.nan, 0.5, 1])
    assert calibration.ece() == 2 / 4 * 0.0625


def test_nothing_counted_is_nan():
    assert np.isnan(Calibration().ece())


@pytest.mark.parametrize(
    ("confidence", "message"),
    [
        ([1.5], "the confidence holds 1.5, where 0 to 1 can be"),
        ([-0.1], "the confidence holds -0.1"),
        ([np.nan], "the confidence holds nan"),
        ([0.5, 0.5], r"the confidence is \(2,\), the prediction \(1,\), the label \(1,\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_counted(confidence, message):
    calibration = Calibration()
    with pytest.raises(InputError, match=message):
        calibration.update(np.array(confidence), np.array([0]), np.array([0]))
    assert calibration.counts.sum() == 0


def test_other_bins_are_refused():
    with pytest.raises(InputError, match=r"of 10 bins .* cannot be merged into one of 15"):
        Calibration().merge(Calibration(10))
    with pytest.raises(InputError, match="num_bins is 0"):
        Calibration(0)
