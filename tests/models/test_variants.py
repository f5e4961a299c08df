"""timm's networks in other projects' forms. That they compute as those do: tests of importers."""

import pytest
import torch
from networks import build

from atrous.errors import InputError
from atrous.models.catalogue import VARIANTS

FORMS = ["resnet50_caffe", "mobilenetv2_100_vainf"]


def small(backbone: str) -> torch.nn.Module:
    options = {"num_classes": 3, "backbone": backbone, "aspp_channels": 8}
    return build("deeplabv3", **options, output_stride=8).eval()


@pytest.mark.parametrize("backbone", FORMS)
def test_it_trains_and_takes_any_size(backbone):
    network = small(backbone)
    network.train()(torch.randn(1, 3, 33, 17)).logits.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    with torch.no_grad():
        assert network.eval()(torch.randn(1, 3, 1, 65)).logits.shape == (1, 3, 1, 9)


@pytest.mark.parametrize("backbone", FORMS)
def test_the_form_is_another_network_than_timms(backbone):
    image = torch.randn(1, 3, 64, 64)
    theirs, ours = small(backbone), small(VARIANTS[backbone])
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        assert not torch.allclose(ours(image).logits, theirs(image).logits, rtol=1e-4)


def test_a_form_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="resnet18_caffe: timm has no such network"):
        build("deeplabv3", num_classes=3, backbone="resnet18_caffe")
