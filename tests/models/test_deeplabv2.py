import torch
from networks import build
from torch.nn import functional as F


def test_scores_are_summed_and_the_largest_of_all_scales_wins():
    """On sides where all scales are multiples of the stride, and nothing is padded or cropped."""
    network = build("deeplabv2", num_classes=4, backbone="resnet18").eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = None
        for scale in (1, 0.75, 0.5):
            features = network.backbone(F.interpolate(image, scale_factor=scale, mode="bilinear"))
            summed = sum(branch(features[32]) for branch in network.branches)
            enlarged = F.interpolate(summed, (8, 12), mode="bilinear")
            expected = enlarged if expected is None else expected.max(enlarged)
        torch.testing.assert_close(network(image).logits, expected)


def test_one_scale_is_the_plain_network():
    network = build("deeplabv2", num_classes=4, backbone="resnet18", fusion_scales=(1,)).eval()
    image = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        summed = network.decode(network.backbone(image))
        torch.testing.assert_close(network(image).logits, summed)
