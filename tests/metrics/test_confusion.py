from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from atrous.files import InputError
from atrous.metrics import Confusion

IGNORE = 255


def count_by_hand(prediction, label, num_classes, ignore_index=IGNORE):
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for true, predicted in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if true != ignore_index:
            matrix[true][predicted] += 1
    return matrix


def counted(prediction, label, num_classes, ignore_index=IGNORE):
    confusion = Confusion(num_classes, ignore_index)
    confusion.update(prediction, label)
    return confusion


@st.composite
def pairs(draw):
    num_classes = draw(st.integers(1, 6))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    shape = draw(st.sampled_from([(0,), (1,), (7,), (5, 8), (2, 3, 4)]))
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.int16, np.int64]))
    label = random.integers(0, num_classes, shape).astype(dtype)
    label[random.random(shape) < 0.3] = IGNORE
    return num_classes, random.integers(0, num_classes, shape).astype(dtype), label


@given(pairs())
@settings(deadline=None)
def test_counts_equal_a_loop_by_hand(case):
    num_classes, prediction, label = case
    matrix = counted(prediction, label, num_classes).matrix
    assert matrix.dtype == np.int64
    assert matrix.tolist() == count_by_hand(prediction, label, num_classes)


@given(pairs(), st.lists(st.integers(0, 40), max_size=4))
@settings(deadline=None)
def test_any_split_merges_to_the_whole(case, cuts):
    num_classes, prediction, label = case
    whole = counted(prediction, label, num_classes)
    merged = Confusion(num_classes)
    edges = [0, *sorted(min(cut, label.size) for cut in cuts), label.size]
    for start, stop in pairwise(edges):
        part = slice(start, stop)
        merged.merge(counted(prediction.ravel()[part], label.ravel()[part], num_classes))
    assert (merged.matrix == whole.matrix).all()


@given(pairs())
@settings(deadline=None)
def test_the_path_for_bytes_equals_the_plain_one(case):
    num_classes, prediction, label = case
    fast = counted(prediction.astype(np.uint8), label.astype(np.uint8), num_classes)
    plain = counted(prediction.astype(np.int32), label.astype(np.int32), num_classes)
    assert (fast.matrix == plain.matrix).all()


def test_counts_equal_scikit_learn():
    random = np.random.default_rng(0)
    label = random.integers(0, 5, (40, 50), dtype=np.uint8)
    prediction = random.integers(0, 5, (40, 50), dtype=np.uint8)
    expected = confusion_matrix(label.ravel(), prediction.ravel(), labels=range(5))
    assert (counted(prediction, label, 5).matrix == expected).all()


def test_sums_over_two_to_the_53_stay_exact():
    confusion = counted(np.zeros(1, np.uint8), np.zeros(1, np.uint8), 2)
    confusion.matrix[0, 0] += 2**53
    confusion.update(np.zeros(1, np.uint8), np.zeros(1, np.uint8))
    assert confusion.matrix[0, 0] == 2**53 + 2


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_views_and_either_memory_order_are_counted(dtype):
    label = np.arange(24, dtype=dtype).reshape(4, 6) % 3
    prediction = np.asfortranarray(label[::-1])
    expected = count_by_hand(prediction, label, 3)
    assert counted(prediction, label, 3).matrix.tolist() == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_an_ignored_class_within_the_range_is_left_out(dtype):
    label, prediction = np.array([0, 0, 1], dtype), np.array([0, 1, 1], dtype)
    assert counted(prediction, label, 2, ignore_index=0).matrix.tolist() == [[0, 0], [0, 1]]


def test_more_classes_than_a_byte_holds():
    label, prediction = np.array([0, 299, 255]), np.array([299, 299, 0])
    confusion = counted(prediction, label, 300, ignore_index=-1)
    assert confusion.matrix[0, 299] == confusion.matrix[299, 299] == confusion.matrix[255, 0] == 1
    confusion.update(np.array([7], np.uint8), np.array([3], np.uint8))
    assert confusion.matrix[3, 7] == 1
    assert confusion.matrix.sum() == 4


def test_scores_by_hand():
    # Truth: class 0 three times, class 1 once; class 2 is predicted only; class 3 is nowhere.
    label = np.array([0, 0, 0, 1, IGNORE], np.uint8)
    prediction = np.array([0, 0, 2, 1, 2], np.uint8)
    scores = counted(prediction, label, 4).scores()
    np.testing.assert_array_equal(scores.iou, [2 / 3, 1, 0, np.nan])
    np.testing.assert_array_equal(scores.acc, [2 / 3, 1, np.nan, np.nan])
    assert scores.protocol == "pooled"
    assert scores.miou == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores.macc == pytest.approx((2 / 3 + 1) / 2)
    assert scores.fwiou == pytest.approx(3 / 4 * 2 / 3 + 1 / 4)
    assert scores.pacc == 3 / 4


@pytest.mark.parametrize("label", [np.zeros(0, np.uint8), np.full(3, IGNORE, np.uint8)])
def test_nothing_labelled_is_nan(label):
    scores = counted(np.zeros_like(label), label, 2).scores()
    assert np.isnan([scores.miou, scores.fwiou, scores.macc, scores.pacc]).all()
    assert np.isnan(scores.iou).all()
    assert scores.to_dict(["a", "b"])["iou"] == {"a": None, "b": None}


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        ([0], [7], r"the label holds 7, where 0 to 1 or 255 \(ignored\) can be"),
        ([9], [0], "the prediction holds 9, where 0 to 1 can be"),
        ([255], [0], "the prediction holds 255"),
        ([[0]], [0], r"the prediction is \(1, 1\), its label \(1,\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_counted(dtype, prediction, label, message):
    confusion = Confusion(2)
    with pytest.raises(InputError, match=message):
        confusion.update(np.array(prediction, dtype), np.array(label, dtype))
    assert confusion.matrix.sum() == 0


def test_negative_and_fractional_values_are_refused():
    with pytest.raises(InputError, match="the label holds -1"):
        Confusion(2).update(np.array([0]), np.array([-1]))
    with pytest.raises(InputError, match="the prediction holds float64; class indices are"):
        Confusion(2).update(np.array([0.5]), np.array([0]))


def test_any_prediction_may_stand_on_an_ignored_pixel():
    label = np.array([IGNORE], np.uint8)
    assert counted(np.array([200], np.uint8), label, 2).matrix.sum() == 0
    assert counted(np.array([-3]), label, 2).matrix.sum() == 0


def test_other_classes_and_other_protocols_are_refused():
    with pytest.raises(InputError, match=r"of 3 classes .* cannot be merged into one of 2"):
        Confusion(2).merge(Confusion(3))
    with pytest.raises(InputError, match="no metric protocol 'mean'; there is pooled"):
        Confusion(2).scores("mean")
    with pytest.raises(InputError, match="num_classes is 0"):
        Confusion(0)


def test_the_table_names_its_protocol_sorts_and_fits_80_columns():
    confusion = Confusion(3)
    confusion.matrix[:] = [[1, 1, 0], [0, 98, 0], [0, 0, 0]]
    lines = confusion.scores().table(["x" * 60, "road", "never"], 82).splitlines()
    assert lines[0].startswith("82 images, 3 classes, protocol pooled: ")
    assert lines[1].split() == ["mIoU", "74.5", "fwIoU", "98.0", "mAcc", "75.0", "pAcc", "99.0"]
    assert [line.split()[0] for line in lines[3:]] == ["road", "x" * 36, "never"]
    assert lines[5].split()[1:] == ["-", "-"]
    assert max(map(len, lines)) <= 80
