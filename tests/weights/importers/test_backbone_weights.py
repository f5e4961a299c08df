"""ImageNet classifiers of torchvision and timm, whose features our backbones then compute."""

import json
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from networks import build
from safetensors.torch import load_file
from saved_network import saved
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from atrous.cli import main
from atrous.data.shapes import write_shapes
from atrous.errors import InputError
from atrous.weights.imagenet import load_classifier

IMAGE = torch.randn(1, 3, 64, 96)


def network_on(backbone):
    return build("deeplabv3", num_classes=2, backbone=backbone, output_stride=32).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "backbone", "layers", "left_over"),
    [
        ("resnet18", "resnet18", {"layer2": "8", "layer4": "32"}, 2),
        ("resnet50", "resnet50", {"layer2": "8", "layer4": "32"}, 2),
        ("resnext50_32x4d", "resnext50_32x4d", {"layer4": "32"}, 2),
        ("mobilenet_v2", "mobilenetv2_100", {"6": "8", "17": "32"}, 8),
        ("mobilenet_v3_large", "mobilenetv3_large_100", {"6": "8", "16": "32"}, 4),
    ],
)
@torch.no_grad()
def test_torchvision_features_are_theirs(theirs, backbone, layers, left_over, tmp_path):
    classifier = getattr(torchvision.models, theirs)(weights=None)
    network = network_on(backbone)
    dropped = load_classifier(network, saved(classifier, tmp_path))
    assert len(dropped) == left_over
    trunk = IntermediateLayerGetter(getattr(classifier, "features", classifier), layers)
    features = network.backbone(IMAGE)
    for level, expected in trunk(IMAGE).items():
        difference = (features[int(level)] - expected).abs().max()
        assert difference < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["resnet34", "tf_efficientnet_lite0", "regnety_008"])
@torch.no_grad()
def test_timm_features_are_theirs(name, tmp_path):
    classifier = timm.create_model(name)
    network = network_on(name)
    assert load_classifier(network, saved(classifier, tmp_path))
    expected = classifier.forward_intermediates(IMAGE, intermediates_only=True)[-1]
    torch.testing.assert_close(network.backbone(IMAGE)[32], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_training_scripts_may_have_wrapped_them(prefix, tmp_path):
    classifier = torchvision.models.resnet18(weights=None).state_dict()
    wrapped = {f"{prefix}{name}": tensor for name, tensor in classifier.items()}
    torch.save({"model": {}, "ema": {**wrapped, "n_averaged": torch.tensor(2)}}, tmp_path / "x.pth")
    network = network_on("resnet18")
    assert load_classifier(network, tmp_path / "x.pth") == ("fc.weight", "fc.bias")
    ours = network.backbone.network.state_dict()
    assert torch.equal(ours["layer4.1.conv2.weight"], classifier["layer4.1.conv2.weight"])


def test_every_family_takes_the_weights_of_timm(tmp_path):
    network = network_on("convnext_tiny")
    classifier = timm.create_model("convnext_tiny")
    dropped = load_classifier(network, saved(classifier, tmp_path))
    assert all(name.startswith("head.") for name in dropped)
    ours, theirs = network.backbone.network.stages_3, classifier.stages[3]
    for (_, mine), (_, other) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert torch.equal(mine, other)


def test_weights_of_another_backbone_are_refused_by_name(tmp_path):
    path = saved(torchvision.models.resnet34(weights=None), tmp_path)
    with pytest.raises(InputError, match=r"does not fit resnet18: no place for layer1\.2\.conv1"):
        load_classifier(network_on("resnet18"), path)
    with pytest.raises(InputError, match="weights for a backbone, which this network has none of"):
        load_classifier(nn.Linear(1, 1), path)


TINY = [
    "--model", "deeplabv3", "--backbone", "resnet18", "--crop-size", "32", "32",
    "--batch-size", "2", "--num-workers", "0", "--aspp-channels", "8", "--warmup-steps", "1",
]  # fmt: skip


@pytest.mark.slow
def test_a_training_starts_from_them_and_resumes_without_them(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shapes(Path("shapes"), num_train=2, num_val=1, size=(32, 32))
    path = saved(torchvision.models.resnet18(weights=None), tmp_path)
    start = ["train", "plain", "--data", "shapes", "--backbone-weights", str(path)]
    steps = ["--num-steps", "1", "--base-lr", "1e-12"]
    assert main([*start, *steps, "--out", "run", *TINY]) == 0
    assert f"deeplabv3 on resnet18 ({path})" in capsys.readouterr().err
    run = json.loads(Path("run/run.json").read_text())
    assert run["left_over"] == ["fc.weight", "fc.bias"]
    assert run["recipe"]["backbone_weights"] == str(path)
    ours = load_file("run/best.safetensors")["backbone.network.layer4.1.conv2.weight"]
    theirs = torch.load(path)["layer4.1.conv2.weight"]
    torch.testing.assert_close(ours, theirs)
    path.unlink()
    assert main(["train", "--out", "run", "--resume", "--num-steps", "1"]) == 0
    assert main([*start, *steps, "--out", "another", *TINY]) == 2
    assert "theirs.pth: no such file" in capsys.readouterr().err
    assert not Path("another").exists()
