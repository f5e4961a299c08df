"""VainF's networks, written down from their definitions: the same weights, the same logits."""

import pytest
import torch
from other_networks import Vainf, random_network
from torch.nn import functional as F

from atrous.errors import InputError
from atrous.weights.convert import import_weights


@pytest.mark.parametrize(("depth", "plus"), [(0, False), (0, True), (50, True)])
def test_logits_are_the_same(tmp_path, depth, plus):
    theirs = random_network(Vainf, depth, 21, plus=plus)
    state = {"cur_itrs": 30000, "model_state": theirs.state_dict(), "best_score": 0.7}
    torch.save(state, tmp_path / "best.pth")
    imported = import_weights(tmp_path / "best.pth")
    assert imported.layout == "vainf"
    assert imported.options["name"] == ("deeplabv3plus" if plus else "deeplabv3")
    assert imported.options["num_classes"] == 21
    assert imported.report.left_over == ()
    image = torch.randn(2, 3, 96, 128)
    # their MobileNet's stem does not pad: it makes whole cells of one row and column more
    wanted = theirs(image if depth else F.pad(image, (0, 1, 0, 1)))
    found = imported.network(image).logits
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_output_stride_8_has_the_larger_rates(tmp_path):
    torch.save(Vainf(0, 2, plus=True).state_dict(), tmp_path / "x.pth")
    options = import_weights(tmp_path / "x.pth", output_stride=8).options
    assert (options["output_stride"], options["atrous_rates"]) == (8, (12, 24, 36))


def test_another_backbone_is_refused_by_name(tmp_path):
    state = Vainf(0, 2, plus=True).state_dict()
    state["backbone.high_level_features.18.0.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"no place for backbone\.high_level_features\.18\.0"):
        import_weights(tmp_path / "x.pth")
