"""torchvision's networks and ours, with the same random weights, give the same logits."""

import pytest
import torch
from saved_network import saved
from torchvision.models import segmentation

from atrous.models.layers import upsample
from atrous.weights.convert import import_weights

SIZES = ((64, 96), (128, 64))  # multiples of the strides: elsewhere the borders differ


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "auxiliary"),
    [
        ("fcn_resnet50", True),
        ("fcn_resnet101", False),
        ("deeplabv3_resnet50", False),
        ("deeplabv3_resnet101", True),
        ("deeplabv3_mobilenet_v3_large", True),
    ],
)
@torch.no_grad()
def test_logits_are_theirs(name, auxiliary, tmp_path):
    theirs = getattr(segmentation, name)(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=auxiliary
    )
    imported = import_weights(saved(theirs, tmp_path))
    assert imported.layout == "torchvision"
    ours = imported.network
    for size in SIZES:
        image = torch.randn(1, 3, *size)
        expected = theirs(image)
        logits = upsample(ours(image).logits, ours.stride, size)  # full size, as theirs
        assert_close(logits, expected["out"])
        for stride in ours.auxiliary_strides:
            features = ours.backbone(image)[16]
            logits = upsample(ours.auxiliary_head(features), stride, size)
            assert_close(logits, expected["aux"])
    has_head = auxiliary and "mobilenet" not in name
    assert ours.auxiliary_levels == ((16,) if has_head else ())
    assert bool(imported.report.left_over) == (auxiliary and not has_head)
    assert all(key.startswith("aux_classifier.") for key in imported.report.left_over)


def assert_close(logits, expected):
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()
