"""mmsegmentation's networks, written down from their definitions: same weights, same logits."""

import pytest
import torch
from other_networks import Mmseg, random_network

from atrous.errors import InputError
from atrous.models.create import options_of
from atrous.weights.convert import import_weights
from atrous.weights.importers import mmseg


@pytest.fixture(scope="module")
def fcn_state():
    """Names and shapes alone."""
    with torch.device("meta"):
        return Mmseg("fcn", 50, 3, deep_stem=False).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["deeplabv3", "deeplabv3plus", "pspnet", "fcn"])
def test_logits_are_the_same(tmp_path, kind):
    theirs = random_network(Mmseg, kind, 50, 19, deep_stem=kind != "fcn")
    meta = {"CLASSES": ("road",), "config": "model = dict()"}
    torch.save({"meta": meta, "state_dict": theirs.state_dict()}, tmp_path / "x.pth")
    imported = import_weights(tmp_path / "x.pth")
    assert imported.layout == "mmseg"
    assert imported.options["name"] == kind
    assert imported.options["backbone"] == ("resnet50" if kind == "fcn" else "resnet50c")
    assert imported.options["auxiliary"]
    assert imported.report.left_over == ()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        wanted = theirs(image)
        found = imported.network(image).logits
    assert found.shape == wanted.shape
    ours, auxiliary = imported.network.auxiliary_head.state_dict(), theirs.auxiliary_head
    assert torch.equal(ours["0.0.weight"], auxiliary.convs[0].conv.weight)
    assert torch.equal(ours["1.1.bias"], auxiliary.conv_seg.bias)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_another_head_is_refused(fcn_state):
    state = {k: v for k, v in fcn_state.items() if not k.startswith("decode_head.conv_cat")}
    with pytest.raises(InputError, match="a head of another kind"):
        mmseg.match(state, None)


def test_basic_blocks_are_refused(fcn_state):
    """Which have no third convolution; of ResNet-50's blocks, two of each stage are left."""
    later = tuple(
        f"backbone.layer{stage}.{block}." for stage in range(1, 5) for block in range(2, 6)
    )
    state = {k: v for k, v in fcn_state.items() if "conv3" not in k and not k.startswith(later)}
    with pytest.raises(InputError, match="resnet18, which this project dilates otherwise"):
        mmseg.match(state, None)


def test_output_stride_16_has_the_smaller_rates():
    with torch.device("meta"):
        state = Mmseg("deeplabv3", 101, 3).state_dict()
        match = mmseg.match(state, 16)
    options = options_of(match.config, match.num_classes)
    assert options["backbone"] == "resnet101c"
    assert (options["output_stride"], options["atrous_rates"]) == (16, (6, 12, 18))
