import pytest
import torch
from networks import build
from torch.nn import functional as F

from atrous.errors import InputError
from atrous.models.pyramid import Concatenation, Maximum


@pytest.mark.slow
def test_a_pyramid_starts_as_its_network():
    plain = build("deeplabv3plus", num_classes=3, backbone="resnet18").eval()
    pyramid = build(
        "deeplabv3plus", num_classes=3, backbone="resnet18", pyramid_scales=(1, 0.5)
    ).eval()
    missing, unexpected = pyramid.load_state_dict(plain.state_dict(), strict=False)
    assert missing == ["fusion.conv.weight", "fusion.conv.bias"]
    assert not unexpected
    image = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        torch.testing.assert_close(pyramid(image).logits, plain(image).logits)
        pyramid.fusion.conv.weight += 0.1
        assert not torch.allclose(pyramid(image).logits, plain(image).logits)


def test_features_of_all_scales_meet_at_the_size_of_the_first():
    """Written out, on sides where nothing is padded or cropped."""
    network = build(
        "deeplabv3", num_classes=3, backbone="resnet18", output_stride=16, pyramid_scales=(1, 1.5)
    ).eval()
    torch.nn.init.normal_(network.fusion.conv.weight, std=0.1)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        larger = network.backbone(F.interpolate(image, scale_factor=1.5, mode="bilinear"))
        features = [
            network.decode(network.backbone(image)),
            F.interpolate(network.decode(larger), (4, 6), mode="bilinear"),
        ]
        expected = network.head(network.fusion.conv(torch.cat(features, dim=1)))
        torch.testing.assert_close(network(image).logits, expected)


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.75, 1.25, 1.5, 1.75, 2])
def test_cells_stay_where_they_are_at_every_scale(scale):
    """A bright column is seen at the same place, whatever the sides are."""
    for width in (16, 48, 80, 112):
        image = torch.zeros(1, 1, 16, width)
        image[..., width // 2 :] = 1
        merged = Maximum((1, scale))(torch.full_like(image, -1), image, lambda small: small)
        assert merged.shape == image.shape
        middle = (merged > 0.5).float().mean()
        assert abs(float(middle) - 0.5) <= 1 / width


@pytest.mark.parametrize(
    ("scales", "says"),
    [((), "begin with 1"), ((0.5,), "begin with 1"), ((1, 0.3), "0.25"), ((1, 3), "up to 2")],
)
def test_wrong_scales_say_so(scales, says):
    with pytest.raises(InputError, match=says):
        Concatenation(2, scales)
