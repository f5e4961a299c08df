"""`atrous convert`, and published names where a model is asked for."""

import json
import pickle

import numpy as np
import pytest
import torch
import torchvision
from file_server import file_server
from other_networks import Vainf, random_network
from PIL import Image

import atrous
from atrous.cli import main
from atrous.cli.train import _given
from atrous.run import has_run
from atrous.weights.published import PUBLISHED, Published


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "best.pth"
    torch.save({"model_state": random_network(Vainf, 0, 21, plus=True).state_dict()}, path)
    return path


@pytest.fixture
def photo(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def published(checkpoint, monkeypatch, tmp_path):
    """The name of a published checkpoint, on a server of our own, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with file_server() as server:
        server.files["/best.pth"] = checkpoint.read_bytes()
        entry = Published(
            name="vainf/small",
            layout="vainf",
            url=f"{server.url}/best.pth",
            data="voc2012",
            miou=0.711,
            protocol="val, 513x513 centre crops",
            licence="MIT",
        )
        monkeypatch.setitem(PUBLISHED, entry.name, entry)
        yield entry.name


def test_a_file_becomes_a_run_that_segments(checkpoint, photo, tmp_path, capsys):
    out = tmp_path / "run"
    parameters = sum(parameter.numel() for parameter in Vainf(0, 21, plus=True).parameters())
    assert main(["convert", str(checkpoint), "--data", "voc2012", "--out", str(out)]) == 0
    output = capsys.readouterr().out
    assert "found    deeplabv3plus on mobilenetv2_100_vainf, layout of vainf" in output
    assert f"output stride 16, {parameters:,} parameters" in output
    assert "classes  21, those of voc2012" in output
    assert f"next: atrous segment PHOTO --model {out}" in output
    command = ["segment", str(photo), "--model", str(out), "--out", str(tmp_path), "--json"]
    assert main(command) == 0
    (image,) = json.loads(capsys.readouterr().out)["images"]
    assert image["size"] == [48, 64]
    assert "aeroplane" in image["classes"]


def test_it_says_what_it_took(tmp_path, capsys):
    one = {f"model.{n}": t for n, t in random_network(Vainf, 0, 1, plus=True).state_dict().items()}
    path, data = tmp_path / "theirs.ckpt", tmp_path / "two.toml"
    state = {**one, "loss.\x1b[31m": torch.ones(1)}
    torch.save({"state_dict": state, "ema": [torch.ones(1)]}, path)
    data.write_text(
        'name = "two"\n[labels]\nencoding = "index"\nclasses = ["background", "crack"]\n'
        '[splits.val]\nimages = "i/{key}.png"\nlabels = "m/{key}.png"\n'
    )
    assert main(["convert", str(path), "--data", str(data), "--out", str(tmp_path / "run")]) == 0
    output = capsys.readouterr().out
    assert f"took     {len(one)} tensors of state_dict named model.*\n" in output
    assert "left     1 tensor: loss.?[31m\nleft     what ema holds\n" in output
    assert "input    RGB in 0..1, less 0.485 0.456 0.406, over 0.229 0.224 0.225\n" in output
    assert "classes  2, those of two\n" in output
    assert "one output: crack where its sigmoid is over 0.5, or background\n" in output


@pytest.mark.slow
def test_a_published_name_is_fetched_once_and_copied(published, photo, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["convert", published, "--out", str(out)]) == 0
    assert "score    mIoU 71.1, published (val, 513x513 centre crops)" in capsys.readouterr().out
    PUBLISHED[published].__dict__["url"] = "http://127.0.0.1:1/gone"
    assert main(["segment", str(photo), "--model", published, "--out", str(tmp_path)]) == 0
    assert "small (fp32, onnxruntime" in capsys.readouterr().out
    labels = atrous.load(published)(photo).labels
    assert (labels == atrous.load(out)(photo).labels).mean() > 0.99


def test_a_training_starts_from_a_published_name(published, tmp_path, monkeypatch):
    monkeypatch.setattr("atrous.export.remote.export_bundle", lambda run, out: out.touch())
    run = tmp_path / "cache/atrous/weights/vainf/small"
    given = _given({"init": published, "teacher": (published, "runs/mine")}, None)
    assert given == {"init": str(run), "teacher": (str(run), "runs/mine")}
    assert has_run(run)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"\x80\x02garbage"), "no file of torch.save"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html><html>"), "a web page, no weights"),
        (
            lambda path: torch.save(torchvision.models.resnet18().state_dict(), path),
            "a classifier's weights",
        ),
        (lambda path: torch.save({"layer.weight": torch.ones(2)}, path), "of no known layout"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no weights by name"),
        (lambda path: None, "no such file"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, capsys, write, message):
    path = tmp_path / "odd.pth"
    write(path)
    command = ["convert", str(path), "--data", "voc2012", "--out", str(tmp_path / "run")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"error: {path}" in error
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


class Trap:
    """Its unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("save", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys, save):
    path = tmp_path / "trap.pth"
    save({"state_dict": Trap(tmp_path / "sprung")}, path)
    command = ["convert", str(path), "--data", "voc2012", "--out", str(tmp_path / "run")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"error: {path}: " in error
    assert "weights_only" not in error
    assert error.count("\n") == 1
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what its classes are with --data"),
        (["--data", "ade20k"], "the checkpoint has 21 classes, ade20k has 150"),
        (["--data", "nothing"], "nothing"),
        (["--data", "voc2012", "--layout", "x"], "no such layout. There are: torchvision"),
        (["--data", "voc2012", "--layout", "mmseg"], "best.pth: "),
        (["--data", "voc2012", "--layout", "torchvision"], "best.pth: "),
        (["--data", "voc2012", "--layout", "kazuto1011"], "best.pth: "),
        (["--data", "voc2012", "--layout", "smp"], "best.pth: "),
    ],
)
def test_mistakes(checkpoint, tmp_path, capsys, arguments, message):
    assert main(["convert", str(checkpoint), "--out", str(tmp_path / "run"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "run.json").exists()


def test_mistakes_with_published_names(published, tmp_path, capsys):
    assert main(["convert", published, "--data", "voc2012", "--out", str(tmp_path)]) == 2
    assert "leave out all options but --out" in capsys.readouterr().err
    assert main(["segment", "x.jpg", "--model", "vainf/smal"]) == 2
    assert "Did you mean vainf/small?" in capsys.readouterr().err


def test_a_name_that_is_almost_published(tmp_path, capsys):
    assert main(["convert", "torchvision/fcn_resnet5", "--out", str(tmp_path)]) == 2
    assert "Did you mean torchvision/fcn_resnet50?" in capsys.readouterr().err


def test_a_file_is_no_run_folder(checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    out.write_text("mine")
    assert main(["convert", str(checkpoint), "--data", "voc2012", "--out", str(out)]) == 2
    assert f"{out}: a file, where a run is a folder" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_names_in_a_file_do_not_reach_the_terminal_as_they_are(tmp_path, capsys):
    path = tmp_path / "theirs.pth"
    state = Vainf(0, 21, plus=True).state_dict()
    torch.save({**state, "a\nb\x1b[31mc": torch.ones(1)}, path)
    assert main(["convert", str(path), "--data", "voc2012", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.endswith("no place for a b?[31mc\n")


def test_an_existing_run_is_left_alone(checkpoint, tmp_path, capsys):
    (tmp_path / "run.json").write_text("{}")
    command = ["convert", str(checkpoint), "--data", "voc2012", "--out", str(tmp_path)]
    assert main(command) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (tmp_path / "run.json").read_text() == "{}"
