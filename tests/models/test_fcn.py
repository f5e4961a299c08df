import pytest
import torch
from networks import build

from atrous.data.shapes import write_shapes
from atrous.models.layers import resize
from atrous.models.network import Network
from atrous.train.loop import train
from atrous.train.recipe import Recipe


def scores(network: Network, image: torch.Tensor) -> torch.Tensor:
    return network.decode(network.backbone(image))


@pytest.mark.parametrize(("model", "stride"), [("fcn32s", 32), ("fcn16s", 16), ("fcn8s", 8)])
def test_full_size_logits_start_as_the_enlarged_scores(model, stride):
    network = build(model, num_classes=3, backbone="resnet18").eval()
    torch.nn.init.normal_(network.score["32"].weight)
    image = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        fused = scores(network, image)
        assert fused.shape == (1, 3, 128 // stride, 160 // stride)
        inner = slice(stride // 2, -stride // 2)
        expected = resize(fused, stride)[..., inner, inner]
        torch.testing.assert_close(network(image).logits[..., inner, inner], expected)


@pytest.mark.slow
def test_a_skip_starts_at_zero_and_is_added_at_its_own_size():
    plain = build("fcn32s", num_classes=3, backbone="resnet18").eval()
    skipping = build("fcn8s", num_classes=3, backbone="resnet18").eval()
    torch.nn.init.normal_(plain.score["32"].weight)
    loaded = skipping.load_state_dict(
        {k: v for k, v in plain.state_dict().items() if not k.startswith("head")}, strict=False
    )
    assert not loaded.unexpected_keys
    image = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        before = scores(skipping, image)
        four_times = resize(resize(scores(plain, image), 2), 2)
        inner = slice(4, -4)
        torch.testing.assert_close(before[..., inner, inner], four_times[..., inner, inner])
        skipping.score["8"].bias += 1
        torch.testing.assert_close(scores(skipping, image), before + 1)


@pytest.mark.slow
def test_it_trains_from_scores_of_zero(tmp_path):
    """With logits at full size, through training, validation and the weights that are kept."""
    write_shapes(tmp_path / "data", 8, 2, size=(64, 96))
    recipe = Recipe(
        model="fcn8s",
        backbone="resnet18",
        pretrained=False,
        crop_size=(64, 64),
        num_steps=12,
        warmup_steps=1,
        log_every=6,
        num_workers=0,
    )
    losses = []
    train(
        recipe,
        str(tmp_path / "data"),
        tmp_path / "run",
        on_step=lambda status: losses.append(status.loss) if status.loss is not None else None,
    )
    assert losses[-1] < 0.8 * losses[0]
