"""kazuto1011's DeepLabV2, written down from its definition: the same weights, the same logits."""

import pytest
import torch
from other_networks import Kazuto, random_network
from torch.nn import functional as F

from atrous.errors import InputError
from atrous.models.create import create_model
from atrous.models.photo import PhotoNetwork
from atrous.weights.convert import import_weights
from atrous.weights.importers import kazuto1011
from atrous.weights.importers.places import load_strictly


def bgr_less_mean(image):  # uint8 (B, H, W, 3) RGB -> (B, 3, H, W), as their loader makes it
    mean = torch.tensor([104.008, 116.669, 122.675])
    return (image.flip(-1).float() - mean).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def theirs():
    return random_network(Kazuto, 182, (3, 4, 6, 3))


@pytest.fixture(scope="module")
def imported(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("kazuto") / "deeplabv2.pth"
    torch.save(theirs.state_dict(), path)
    return import_weights(path)


def scaled(x, factor):
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_photos_give_the_same_logits(theirs, imported, size):
    """The largest score of three sizes, each enlarged by exactly as much as it was made smaller.

    Of sides that are multiples of 32, which are whole cells at each size.
    """
    photo = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8)
    image = bgr_less_mean(photo)
    height, width = size[0] // 8, size[1] // 8
    with torch.inference_mode():
        found = PhotoNetwork(
            imported.network, imported.normalization.mean, imported.normalization.std
        ).eval()(photo)
        wanted = theirs(image)
        assert wanted.shape == (1, 182, height + 1, width + 1)  # of the pooling that rounds up
        for scale in (0.75, 0.5):
            smaller = scaled(theirs(scaled(image, scale)), 1 / scale)
            wanted = wanted.maximum(smaller[..., : height + 1, : width + 1])
    wanted = wanted[..., :height, :width]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_it_is_deeplabv2_at_stride_8(imported):
    assert imported.layout == "kazuto1011"
    assert imported.options["name"] == "deeplabv2"
    assert imported.options["num_classes"] == 182
    assert imported.options["backbone"] == "resnet50_caffe"
    assert imported.network.stride == 8


def test_the_published_form_fits_name_by_name():
    """ResNet-101, 182 outputs: names and shapes alone."""
    with torch.device("meta"):
        match = kazuto1011.match(Kazuto(182).state_dict(), None)
        assert load_strictly(create_model(match.config, match.num_classes), match, "theirs") == ()
    assert match.config.backbone.name == "resnet101_caffe"


def test_other_output_strides_are_refused():
    with torch.device("meta"), pytest.raises(InputError, match="have 8"):
        kazuto1011.match(Kazuto(2).state_dict(), 16)
