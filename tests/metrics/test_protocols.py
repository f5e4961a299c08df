"""Each protocol against an independent computation, written as that project computes it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_confusion_matrix

from atrous.errors import InputError
from atrous.metrics import Confusion
from atrous.metrics.protocols import PROTOCOLS

IGNORE = 255

# The worked example of docs/metrics.md: "d" is predicted only, "e" occurs nowhere.
EXAMPLE = (
    (np.array([0] * 9 + [3]), np.array([0] * 10)),
    (np.array([1] * 10 + [2] * 10 + [4] * 2), np.array([1] * 10 + [2] * 10 + [IGNORE] * 2)),
)


def mmseg(images, k):
    """IoUMetric: histograms per image with torch.histc, summed, nanmean over the classes."""
    common = union = true = 0
    for prediction, label in images:
        kept = label != IGNORE
        p, t = torch.from_numpy(prediction[kept]), torch.from_numpy(label[kept])

        def area(values):
            return torch.histc(values.double(), bins=k, min=0, max=k - 1)

        common = common + area(p[p == t])
        union = union + area(p) + area(t) - area(p[p == t])
        true = true + area(t)
    iou, acc = common / union, common / true
    return {
        "iou": iou.numpy(),
        "miou": float(np.nanmean(iou)),
        "macc": float(np.nanmean(acc)),
        "pacc": float(common.sum() / true.sum()),
    }


def detectron2(images, k):
    """SemSegEvaluator: rows are predictions, ignored pixels a last column that is cut off."""
    matrix = np.zeros((k + 1, k + 1), np.int64)
    for prediction, label in images:
        true = np.where(label == IGNORE, k, label)
        matrix += np.bincount((k + 1) * prediction + true, minlength=matrix.size).reshape(k + 1, -1)
    hit = matrix.diagonal()[:-1]
    true, predicted = matrix[:-1, :-1].sum(0), matrix[:-1, :-1].sum(1)
    there = true > 0
    iou = np.full(k, np.nan)
    iou[there] = hit[there] / (true + predicted - hit)[there]
    return {
        "iou": iou,
        "miou": iou[there].sum() / there.sum(),
        "fwiou": (iou[there] * (true / true.sum())[there]).sum(),
        "macc": (hit[there] / true[there]).sum() / there.sum(),
        "pacc": hit.sum() / true.sum(),
    }


def kazuto(images, k):
    """deeplab-pytorch: every IoU is stated, but only classes with truth enter the mean."""
    matrix = np.zeros((k, k))
    for prediction, label in images:
        kept = label < k
        matrix += np.bincount(k * label[kept] + prediction[kept], minlength=k * k).reshape(k, k)
    hit, true = np.diag(matrix), matrix.sum(1)
    iou = hit / (true + matrix.sum(0) - hit)
    frequency = true / matrix.sum()
    return {
        "iou": iou,
        "miou": np.nanmean(iou[true > 0]),
        "fwiou": (frequency[frequency > 0] * iou[frequency > 0]).sum(),
        "macc": np.nanmean(hit / true),
        "pacc": hit.sum() / matrix.sum(),
    }


def torchvision(images, k):
    """The references' ConfusionMatrix, whose mean is over all classes, NaN or not."""
    matrix = torch.zeros(k, k, dtype=torch.int64)
    for prediction, label in images:
        p, t = torch.from_numpy(prediction), torch.from_numpy(label)
        kept = (t >= 0) & (t < k)
        matrix += torch.bincount(k * t[kept] + p[kept], minlength=k * k).reshape(k, k)
    h = matrix.double()
    iou = h.diag() / (h.sum(1) + h.sum(0) - h.diag())
    return {
        "iou": iou.numpy(),
        "miou": float(iou.mean()),
        "macc": float((h.diag() / h.sum(1)).mean()),
        "pacc": float(h.diag().sum() / h.sum()),
    }


def per_image(images, k):
    """Long et al.'s formulas on one image after the other, as a widespread script has them."""
    rows = []
    for prediction, label in images:
        kept = label != IGNORE
        p, t = prediction[kept], label[kept]
        classes = np.unique(t)
        if not classes.size:
            continue
        hits = {c: np.sum((p == c) & (t == c)) for c in classes}
        ious = {c: hits[c] / np.sum((p == c) | (t == c)) for c in classes}
        rows.append(
            {
                "miou": sum(ious.values()) / len(classes),
                "fwiou": sum(np.sum(t == c) * ious[c] for c in classes) / len(t),
                "macc": np.mean([hits[c] / np.sum(t == c) for c in classes]),
                "pacc": sum(hits.values()) / len(t),
                "iou": ious,
            }
        )
    scores = {name: np.mean([row[name] for row in rows]) for name in rows[0] if name != "iou"}
    per_class = [[row["iou"][c] for row in rows if c in row["iou"]] for c in range(k)]
    scores["iou"] = np.array([np.mean(v) if v else np.nan for v in per_class])
    return scores


def pooled(images, k):
    """Plain numpy on torchmetrics' matrix."""
    p, t = (torch.from_numpy(np.concatenate(side)) for side in zip(*images, strict=True))
    m = multiclass_confusion_matrix(p, t, k, ignore_index=IGNORE).numpy()
    union = m.sum(0) + m.sum(1) - m.diagonal()
    iou = np.array([h / u if u else np.nan for h, u in zip(m.diagonal(), union, strict=True)])
    return {"iou": iou, "miou": np.nanmean(iou), "pacc": m.trace() / m.sum()}


REFERENCES = {
    "pooled": pooled,
    "mmseg": mmseg,
    "detectron2": detectron2,
    "kazuto": kazuto,
    "torchvision": torchvision,
    "per-image": per_image,
}


@st.composite
def image_sets(draw):
    """Images of K classes of which a random part occurs, with ignored pixels; one is labelled."""
    k = draw(st.integers(2, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    true, predicted = (random.permutation(k)[: random.integers(1, k + 1)] for _ in range(2))
    images = []
    for _ in range(draw(st.integers(1, 4))):
        size = int(random.integers(1, 40))
        label = random.choice(random.choice(true, 2), size)
        prediction = np.where(random.random(size) < 0.5, label, random.choice(predicted, size))
        label[random.random(size) < random.choice([0, 0.3, 1])] = IGNORE
        images.append((prediction, label))
    images[0][1][0] = true[0]
    return images, k


def counted(images, k):
    confusion = Confusion(k)
    for prediction, label in images:
        confusion.update(prediction, label)
    return confusion


def test_every_protocol_has_a_reference():
    assert list(REFERENCES) == list(PROTOCOLS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero")
@given(case=image_sets())
@settings(deadline=None, max_examples=60)
def test_a_protocol_equals_its_project(protocol, case):
    images, k = case
    scores = counted(images, k).scores(protocol)
    for name, expected in REFERENCES[protocol](images, k).items():
        np.testing.assert_allclose(getattr(scores, name), expected, rtol=1e-12, err_msg=name)


@given(image_sets(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_any_grouping_and_order_of_merges_gives_identical_scores(case, seed):
    images, k = case
    whole = counted(images, k)
    random = np.random.default_rng(seed)
    parts = [Confusion(k) for _ in range(3)]
    for i in random.permutation(len(images)):
        parts[random.integers(3)].update(*images[i])
    merged = Confusion(k)
    for i in random.permutation(3):
        merged.merge(parts[i])
    for protocol in PROTOCOLS:
        ours, theirs = merged.scores(protocol), whole.scores(protocol)
        for name in ("miou", "fwiou", "macc", "pacc", "iou", "acc"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize(
    ("protocol", "miou", "macc", "pacc", "fwiou"),
    [
        ("pooled", 0.725, 2.9 / 3, 29 / 30, 2.9 / 3),
        ("mmseg", 0.725, 2.9 / 3, 29 / 30, 2.9 / 3),
        ("detectron2", 2.9 / 3, 2.9 / 3, 29 / 30, 2.9 / 3),
        ("kazuto", 2.9 / 3, 2.9 / 3, 29 / 30, 2.9 / 3),
        ("torchvision", np.nan, np.nan, 29 / 30, 2.9 / 3),
        ("per-image", 0.95, 0.95, 0.95, 0.95),
    ],
)
def test_the_documented_example(protocol, miou, macc, pacc, fwiou):
    scores = counted(EXAMPLE, 5).scores(protocol)
    expected = {"miou": miou, "macc": macc, "pacc": pacc, "fwiou": fwiou}
    assert {name: getattr(scores, name) for name in expected} == pytest.approx(
        expected, nan_ok=True
    )
    # the class that is predicted only
    assert np.isnan(scores.iou[3]) == (protocol in ("detectron2", "per-image"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_labelled_is_nan(protocol):
    scores = counted([(np.zeros(3, np.uint8), np.full(3, IGNORE, np.uint8))], 2).scores(protocol)
    assert np.isnan([scores.miou, scores.fwiou, scores.macc, scores.pacc, *scores.iou]).all()


def test_an_image_without_truth_does_not_enter_the_mean_over_images():
    empty = (np.zeros(4, np.uint8), np.full(4, IGNORE, np.uint8))
    assert counted([*EXAMPLE, empty], 5).scores("per-image").miou == pytest.approx(0.95)


def test_an_unknown_protocol_is_refused_with_the_names():
    with pytest.raises(InputError, match="no metric protocol 'voc'; there is pooled, mmseg, "):
        Confusion(1).scores("voc")
