"""The way from a stranger's checkpoint to a run folder, whatever the project."""

import pickle
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from saved_network import saved
from torch import nn

import atrous
from atrous.data.shapes import TAXONOMY
from atrous.errors import InputError
from atrous.export import export_bundle
from atrous.models.layers import upsample
from atrous.models.photo import PhotoNetwork
from atrous.run import RunData
from atrous.taxonomy import Taxonomy
from atrous.weights.convert import import_weights, write_run
from atrous.weights.importers.checkpoint import read_checkpoint
from atrous.weights.importers.places import Placement, load_strictly

ABOUT = RunData(name="shapes", licence="CC0-1.0", source="theirs.pth")


@pytest.fixture(scope="module")
def state():
    return smp.Unet("resnet18", encoder_weights=None, classes=4).state_dict()


def trained(state):
    """As a training script leaves it, with scores as numpy has them."""
    return {
        "cur_itrs": 7,
        "model_state": {f"module.{name}": tensor for name, tensor in state.items()},
        "optimizer_state": {"param_groups": [{"lr": 0.1}]},
        "best_score": np.float64(0.5),
    }


@pytest.mark.parametrize("kind", ["plain", "mmengine", "script", "safetensors"])
def test_every_wrapping_gives_the_same_network(kind, state, tmp_path):
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    wrapped = {"plain": state, "mmengine": {"meta": {}, "state_dict": state}}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(wrapped.get(kind) or trained(state), path)
    ours = import_weights(path).network.state_dict()
    assert torch.equal(ours["head.1.weight"], state["segmentation_head.0.weight"])
    assert torch.equal(ours["backbone.network.bn1.bias"], state["encoder.bn1.bias"])


class Code:
    def __reduce__(self):
        return print, ("this must never be printed",)


BAD = r"not loaded: no file of torch\.save, or damaged"
NONE = "holds no weights by name"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html>\n<html>not found</html>", "a web page, no weights"),
        (b"", BAD),
        (b"hello", BAD),
        (b"PK\x03\x04 nonsense", BAD),
        (pickle.dumps({"state_dict": Code()}, 2), BAD),
        ({"state_dict": Code()}, NONE),
        (nn.Linear(2, 2), "of no known layout"),
        ([1, 2], NONE),
        ({}, NONE),
        ({"epoch": 3}, NONE),
        ({"w": torch.ones(2), "w" * 300: 3}, r"theirs.pth: 'w+\.\.\.w+' is no plain tensor"),
        ({"w": torch.zeros(1).expand(10**6, 10**6)}, "'w' is no plain tensor"),
        ({"w": torch.ones(2, device="meta")}, "'w' is no plain tensor"),
        ({"w": torch.eye(2).to_sparse()}, "'w' is no plain tensor"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "'w' is no plain tensor"),
        ({"w": torch.ones(0)}, "'w' is no plain tensor"),
        ({"w": torch.ones(2, dtype=torch.uint8).view(torch.bits8)}, "'w' is no plain tensor"),
        ({"w": torch.tensor([1.0, torch.nan])}, "'w' holds NaN or infinity"),
        ({"w": torch.tensor([1e300], dtype=torch.float64)}, "'w' holds NaN or infinity"),
        ({"classifier.4.weight": torch.ones(())}, "not of layout torchvision: .* other shapes"),
        ({"weight": torch.ones(1)}, "of no known layout; .*torchvision: classifier.4.weight"),
        ({"classifier.cbr.0.weight": torch.ones(1, 1, 1, 1)}, "of no known layout"),
        ({"fc.weight": torch.ones(2, 2)}, "a classifier's weights, .* --backbone-weights FILE"),
    ],
)
def test_what_is_no_checkpoint_is_told_in_one_line(content, says, tmp_path, capsys):
    path = tmp_path / "theirs.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=says) as caught:
        import_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert "never" not in capsys.readouterr().out


def test_a_missing_and_a_cut_off_file(state, tmp_path):
    path = tmp_path / "theirs.pth"
    with pytest.raises(InputError, match="no such file"):
        import_weights(path)
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match=BAD):
        import_weights(path)
    cut = tmp_path / "theirs.safetensors"
    cut.write_bytes(b"12345")
    with pytest.raises(InputError, match=r"no \.safetensors file, or damaged"):
        import_weights(cut)


def test_an_archive_that_grows_is_not_unpacked(tmp_path):
    path = tmp_path / "theirs.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2) + bytes(10_000_000))
        archive.writestr("archive/version", "3")
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match="a compressed archive"):
        read_checkpoint(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="no file, but a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(kind, state, tmp_path):
    torch.save({name: tensor.to(kind) for name, tensor in state.items()}, tmp_path / "x.pth")
    ours = import_weights(tmp_path / "x.pth").network.state_dict()
    assert ours["head.1.weight"].dtype == torch.float32
    assert ours["backbone.network.bn1.num_batches_tracked"].dtype == torch.int64
    theirs = state["segmentation_head.0.weight"]
    torch.testing.assert_close(ours["head.1.weight"], theirs, rtol=1e-2, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(st.binary(max_size=300), st.sampled_from([".pth", ".safetensors"]))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_refused_in_one_line(content, suffix):
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"theirs{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_every_tensor_that_does_not_fit_is_named():
    state = {
        "conv.weight": torch.ones(3, 2),
        "conv.bias": torch.ones(4),
        "conv.scale": torch.ones(2),
        "norm.weight": torch.ones(3, dtype=torch.int8),
        "other": torch.ones(1),
        "fc.weight": torch.ones(2),
    }
    places = {"conv": "0", "norm": "1"}
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    placement = Placement(state=state, places=places, dropped=("fc",))
    with pytest.raises(InputError) as caught:
        load_strictly(network, placement, "toy")
    assert str(caught.value) == (
        "does not fit toy: no place for conv.scale, other; "
        "nothing for 1.bias, 1.running_mean, 1.running_var; "
        "another shape: conv.bias 4 for 3; whole numbers: norm.weight"
    )


def test_one_place_takes_one_tensor():
    state = {"a": torch.ones(3), "b": torch.ones(3), "weight": torch.ones(3, 2)}
    places = {"a": "bias", "b": "bias", "weight": "weight"}
    placement = Placement(state=state, places=places)
    with pytest.raises(InputError, match="one place for a and b"):
        load_strictly(nn.Linear(2, 3), placement, "toy")


def test_old_files_count_no_batches(state, tmp_path):
    old = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    imported = import_weights(tmp_path / "old.pth")
    assert imported.report.left_over == ()
    assert imported.network.state_dict()["backbone.network.bn1.num_batches_tracked"] == 0


@pytest.mark.parametrize(
    ("layout", "says"),
    [("smb", "no such layout. There are: torchvision, "), ("torchvision", "it has no 'classifier")],
)
def test_a_wrong_layout_says_so(layout, says, state, tmp_path):
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(InputError, match=says):
        import_weights(tmp_path / "theirs.pth", layout)


@pytest.mark.slow
def test_a_run_folder_is_as_any_other(tmp_path):
    imported = import_weights(
        saved(smp.PSPNet("resnet18", encoder_weights=None, classes=4), tmp_path)
    )
    run, bundle = tmp_path / "run", tmp_path / "run.onnx"
    write_run(imported, TAXONOMY, run, ABOUT)
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    photo = PhotoNetwork(imported.network, imported.normalization.mean, imported.normalization.std)
    with torch.no_grad():
        logits = upsample(photo(torch.from_numpy(image)[None]), 8, (50, 70))
    labels = logits[0].argmax(0).numpy()
    assert (atrous.load(run, threads=1)(image).labels == labels).mean() > 0.999
    assert export_bundle(run, bundle).licence == "CC0-1.0"
    assert (atrous.load(bundle, threads=1)(image).labels == labels).mean() > 0.999
    with pytest.raises(InputError, match="holds a run already"):
        write_run(imported, TAXONOMY, run, ABOUT)


def test_the_classes_must_fit(state, tmp_path):
    torch.save(state, tmp_path / "theirs.pth")
    imported = import_weights(tmp_path / "theirs.pth")
    two = Taxonomy(name="two", classes=("a", "b"), colors=((0, 0, 0), (1, 1, 1)))
    with pytest.raises(InputError, match="the checkpoint has 4 classes, two has 2; name the data"):
        write_run(imported, two, tmp_path / "run", ABOUT)
    assert not (tmp_path / "run").exists()
