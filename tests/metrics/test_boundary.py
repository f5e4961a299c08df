"""Against the definition: one class after the other, erosion by scipy, distances by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from atrous.errors import InputError
from atrous.metrics import Boundary

IGNORE = 255


def reference(images, num_classes, ratio, tolerance):
    """Boundary IoU and F per class, (K,) each, from one mask at a time."""
    band = np.zeros((2, num_classes))
    contour = np.zeros((4, num_classes))
    for prediction, label in images:
        diagonal = math.hypot(*label.shape)
        width = max(1, round(ratio * diagonal))
        for c in range(num_classes):
            masks = [(side == c) & (label != IGNORE) for side in (label, prediction)]
            true, predicted = (band_by_erosion(mask, width) for mask in masks)
            band[:, c] += (true & predicted).sum(), (true | predicted).sum()
            points = [contour_by_hand(mask) for mask in masks]
            for side in (0, 1):
                near = within(points[side], points[1 - side], tolerance * diagonal)
                contour[2 * side : 2 * side + 2, c] += len(points[side]), near
    with np.errstate(all="ignore"):
        iou = band[0] / band[1]
        recall, precision = contour[1] / contour[0], contour[3] / contour[2]
        f = np.nan_to_num(2 * precision * recall / (precision + recall))
    f[contour[0] + contour[2] == 0] = np.nan
    return iou, f


def band_by_erosion(mask, width):
    eroded = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0)
    return mask & ~eroded


def contour_by_hand(mask):
    """(y, x) of the mask's pixels that have a neighbour outside of it, but inside the image."""
    height, width = mask.shape
    outside = np.argwhere(~mask)
    touching = [outside + step for step in ((-1, 0), (1, 0), (0, -1), (0, 1))]
    return {
        (y, x)
        for y, x in np.concatenate(touching).tolist()
        if 0 <= y < height and 0 <= x < width and mask[y, x]
    }


def within(points, others, radius):
    """How many of the points have one of the others within the radius."""
    return sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in points)


@st.composite
def image_pairs(draw):
    """Blocky label maps, ignored pixels, and predictions that are shifted and noisy."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_classes = draw(st.integers(1, 5))
    images = []
    for _ in range(draw(st.integers(1, 2))):
        height, width = random.integers(1, 40, 2)
        blocks = random.integers(0, num_classes, (height // 7 + 1, width // 7 + 1))
        label = np.kron(blocks, np.ones((7, 7), int))[:height, :width].astype(np.uint8)
        prediction = np.roll(label, random.integers(-3, 4, 2), (0, 1))
        noisy = random.random(label.shape) < random.choice([0, 0.05])
        prediction[noisy] = random.integers(0, num_classes, noisy.sum())
        label[random.random(label.shape) < random.choice([0, 0.02])] = IGNORE
        images.append((prediction, label))
    return images, num_classes


def counted(images, num_classes, ratio=0.02, tolerance=0.0075):
    boundary = Boundary(num_classes, ratio, tolerance)
    for prediction, label in images:
        boundary.update(prediction, label)
    return boundary


@given(image_pairs(), st.sampled_from([0.02, 0.1, 0.3]), st.sampled_from([0.0, 0.0075, 0.05, 0.2]))
@settings(deadline=None, max_examples=100)
def test_scores_equal_one_mask_at_a_time(case, ratio, tolerance):
    images, num_classes = case
    scores = counted(images, num_classes, ratio, tolerance).scores()
    iou, f = reference(images, num_classes, ratio, tolerance)
    np.testing.assert_allclose(scores.iou, iou, rtol=1e-12)
    np.testing.assert_allclose(scores.f, f, rtol=1e-12)


@given(image_pairs())
@settings(deadline=None, max_examples=30)
def test_a_perfect_prediction_scores_one_whatever_is_ignored(case):
    images, num_classes = case
    for prediction, label in images:
        np.copyto(prediction, label, where=label != IGNORE)
    scores = counted(images, num_classes).scores()
    assert set(scores.iou[~np.isnan(scores.iou)]) | set(scores.f[~np.isnan(scores.f)]) <= {1.0}


def test_bands_by_hand():
    # a 6 x 6 square of class 1, and the same one column to the right
    label = np.zeros((12, 12), np.uint8)
    label[3:9, 3:9] = 1
    boundary = Boundary(2, ratio=0.01)
    boundary.update(np.roll(label, 1, axis=1), label)
    # One pixel wide: a ring of 20, of which 5 + 5 above and below are common. Around it and along
    # the image's border, class 0 has rings of 28 and 44.
    assert boundary.counts()[0, :3].tolist() == [[44 + 14, 10], [44 + 28, 20], [44 + 28, 20]]


def test_no_class_is_invented():
    """Eroding the label map would find class 0 between 1 and 2, where there is none."""
    label = np.full((20, 20), 2, np.uint8)
    label[:, :10] = 1
    scores = counted([(label, label)], 3).scores()
    np.testing.assert_array_equal(scores.iou, [np.nan, 1, 1])
    np.testing.assert_array_equal(scores.f, [np.nan, 1, 1])


def test_contours_within_the_tolerance_are_right():
    label = np.zeros((100, 100), np.uint8)
    label[:, 50:] = 1
    shifted = np.roll(label, 2, axis=1)
    shifted[:, :2] = 0
    assert counted([(shifted, label)], 2, tolerance=2.1 / math.hypot(100, 100)).scores().mf == 1
    assert counted([(shifted, label)], 2, tolerance=1.9 / math.hypot(100, 100)).scores().mf == 0


@given(image_pairs(), image_pairs())
@settings(deadline=None, max_examples=20)
def test_parts_merge_to_the_whole(one, other):
    images = one[0] + other[0]
    parts = [counted(part, 5) for part in (one[0], other[0])]
    parts[1].merge(parts[0])
    whole = counted(images, 5)
    assert parts[1].counts().sum(0).tolist() == whole.counts().sum(0).tolist()


def test_more_classes_than_a_byte_holds():
    label = np.arange(900).reshape(30, 30) // 2
    scores = counted([(label, label)], 450).scores()
    assert scores.miou == scores.mf == 1


def test_nothing_to_score_is_nan():
    scores = counted([(np.zeros((4, 4), np.uint8), np.full((4, 4), IGNORE, np.uint8))], 2).scores()
    assert np.isnan([scores.miou, scores.mf]).all()
    assert scores.to_dict(["a", "b"])["boundary_iou"] == {"a": None, "b": None}
    assert np.isnan(counted([(np.zeros((0, 4), np.uint8),) * 2], 2).scores().miou)


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        ([[0]], [[7]], r"the label holds 7, where 0 to 1 or 255 \(ignored\) can be"),
        ([[9]], [[0]], "the prediction holds 9"),
        ([[-1]], [[0]], "the prediction holds -1"),
        ([[0.5]], [[0]], "the prediction holds float64"),
        ([0], [0], r"boundaries need images, \(H, W\)"),
        ([[0, 1]], [[0]], r"the prediction is \(1, 2\), its label \(1, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_counted(prediction, label, message):
    boundary = Boundary(2)
    with pytest.raises(InputError, match=message):
        boundary.update(np.array(prediction), np.array(label))
    assert boundary.counts().shape == (0, 7, 2)


def test_other_settings_are_not_merged():
    with pytest.raises(InputError, match="other classes or widths"):
        Boundary(2).merge(Boundary(2, ratio=0.01))
