from dataclasses import dataclass

import numpy as np
import pytest

from atrous.cli.export import certificate_text
from atrous.errors import InputError
from atrous.export.certificate import certify


@dataclass
class Pair:
    image: np.ndarray
    label: np.ndarray
    key: str = "a"


CLASSES = ("ground", "disc", "never")


def make_sample():
    """100 pixels, half of each of two classes; the image's red is the truth."""
    label = np.zeros((10, 10), np.uint8)
    label[5:] = 1
    return Pair(np.stack([label] * 3, axis=-1), label)


def predict(image):
    return image[..., 0]


def predict_with_errors(image, count=1, wrong=1):
    """Labels that are `wrong` on the first `count` pixels, where the truth is ground."""
    labels = image[..., 0].copy()
    labels.ravel()[:count] = wrong
    return labels


def test_equal_labels_pass_at_a_budget_of_nothing():
    certificate = certify(predict, predict, [make_sample()], CLASSES, 0.0)
    assert certificate.passed
    assert certificate.agreement == 1
    assert certificate.changes == {"ground": 0, "disc": 0}


def test_the_worst_class_decides():
    # ground: 49/50 = -2.0 points; disc: 50/51 = -1.96 points.
    certificate = certify(predict, predict_with_errors, [make_sample()] * 2, CLASSES, 1.99)
    assert not certificate.passed
    assert list(certificate.changes) == ["ground", "disc"]
    assert certificate.changes["ground"] == pytest.approx(-2)
    assert certificate.agreement == 0.99
    assert certify(predict, predict_with_errors, [make_sample()], CLASSES, 2.01).passed


def test_a_class_that_is_newly_predicted_counts_in_the_mean():
    def newly(image):
        return predict_with_errors(image, wrong=2)

    certificate = certify(predict, newly, [make_sample()], CLASSES, 5.0)
    assert certificate.changes["ground"] == pytest.approx(-2)
    assert not certificate.passed


def test_a_gain_is_no_loss():
    assert certify(predict_with_errors, predict, [make_sample()], CLASSES, 0.0).passed


def test_nothing_to_score_does_not_pass():
    sample = make_sample()
    sample.label[:] = 255
    certificate = certify(predict, predict, [sample], CLASSES, 1.0)
    assert not certificate.passed
    assert "no class" in certificate_text(certificate)


def test_the_report_names_protocol_budget_and_worst_class():
    certificate = certify(predict, predict_with_errors, [make_sample()], CLASSES, 1.0)
    text = certificate_text(certificate)
    assert "on 1 image, protocol pooled" in text
    assert "mIoU 100.0 -> 98.0; worst class ground -2.0 (budget 1): FAIL" in text
    assert max(map(len, text.splitlines())) <= 80
    document = certificate.to_dict()
    assert document["torch_fp32"]["miou"] == 1
    assert document["miou"] == pytest.approx(0.98, abs=0.001)
    assert document["worst_change"] == pytest.approx(-2)


def test_a_label_that_does_not_fit_is_named():
    sample = make_sample()
    sample.label[0, 0] = 9
    with pytest.raises(InputError, match=r"^a: the label holds 9"):
        certify(predict, predict, [sample], CLASSES, 1.0)
