"""hf:// where a model is asked for, and `atrous export --push`, with a hub of our own."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import yaml
from hub_server import COMMIT, HubServer, hub_server
from PIL import Image

import atrous
from atrous.cli import main
from atrous.data.fetch import download as download_module
from atrous.infer.runtimes.onnx import OnnxRuntime
from atrous.report.model_card import model_card
from atrous.run import Run
from atrous.weights.hub import resolve

ADDRESS = "hf://owner/tiny"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download_module, "PAUSE", 0.01)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
        yield server


@pytest.fixture
def bundled(hub: HubServer, tiny_bundle: Path) -> HubServer:
    hub.repositories["owner/tiny"] = {"README.md": b"# x", "any.onnx": tiny_bundle.read_bytes()}
    return hub


@pytest.fixture
def photo(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def segment(photo, model=ADDRESS):
    return main(["segment", str(photo), "--model", model, "--out", str(photo.parent / "out")])


def error_of(capsys):
    """The last line of the error output, which is one line but for notes of downloads."""
    *notes, line = capsys.readouterr().err.splitlines()
    assert all(" MB" in note for note in notes)
    assert line.startswith("error: ")
    return line


def kept(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_card_before_and_after_it_is_fetched(bundled, photo, tmp_path, capsys):
    assert main(["models", ADDRESS]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{ADDRESS}: on the Hugging Face hub\n")
    assert f"any.onnx, commit {COMMIT[:8]}" in text and "not fetched yet, " in text
    assert kept(tmp_path) == []
    assert segment(photo) == 0
    capsys.readouterr()
    bundled.seen.clear()
    assert main(["models", ADDRESS]) == 0
    assert "4: red, green, blue, grey" in capsys.readouterr().out
    assert bundled.seen == []
    assert main(["models", "hf://owner/none"]) == 2
    assert "no such repository" in error_of(capsys)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("says", [False, True])
def test_a_bundle_is_fetched_once_and_used_offline(
    bundled, photo, tiny_bundle, tmp_path, capsys, monkeypatch, large, says
):
    bundled.large, bundled.says_digests = {"any.onnx"} if large else set(), says
    assert segment(photo) == 0
    output = capsys.readouterr()
    assert "tiny (fp32, onnxruntime" in output.out
    assert output.err == f"{ADDRESS}: any.onnx, {tiny_bundle.stat().st_size / 1e6:.1f} MB\n"
    bundle = tmp_path / f"cache/atrous/hub/owner/tiny/{COMMIT}/tiny.onnx"
    assert bundle.read_bytes() == tiny_bundle.read_bytes()
    assert resolve(ADDRESS) == bundle
    bundled.seen.clear()
    assert segment(photo, f"{ADDRESS}@main") == 0
    assert [path for _, path, _ in bundled.seen] == ["/api/models/owner/tiny/revision/main"]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert segment(photo) == 0
    assert "commit c0ffee00 is kept" in capsys.readouterr().err
    expected = atrous.load(tiny_bundle)(photo).labels
    assert np.array_equal(atrous.load(ADDRESS)(photo).labels, expected)


def test_a_branch_that_moves_on_is_fetched_again(bundled, photo, tmp_path):
    assert segment(photo) == 0
    bundled.commits["owner/tiny"] = 40 * "b"
    assert segment(photo) == 0
    assert resolve(ADDRESS).parent.name == 40 * "b"
    assert segment(photo, f"{ADDRESS}@{COMMIT}") == 2  # the hub does not know it any more


def test_a_token_goes_to_the_hub_alone(bundled, photo, capsys, monkeypatch):
    bundled.secret, bundled.large = "s3cret", {"any.onnx"}
    assert segment(photo) == 2
    assert f"{ADDRESS}: private, gated or not there (401); set HF_TOKEN" in error_of(capsys)
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert segment(photo) == 2
    assert f"{ADDRESS}: private, gated or not there (403); HF_TOKEN may not" in error_of(capsys)
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    bundled.seen.clear()
    assert segment(photo) == 0
    tokens = {host.partition(":")[0]: token for host, _, token in bundled.seen}
    assert tokens == {"127.0.0.1": "Bearer s3cret", "localhost": ""}
    monkeypatch.setenv("HF_TOKEN", "two\nlines")
    assert segment(photo) == 2
    line = error_of(capsys)
    assert "HF_TOKEN: holds what no token holds" in line and "two" not in line


@pytest.mark.parametrize(
    ("change", "model", "message"),
    [
        (lambda hub: None, f"{ADDRESS}@v9", "tiny@v9: the hub has no such repository, revision"),
        (lambda hub: None, "hf://owner/other", "other: the hub has no such repository, revision"),
        (lambda hub: None, "hf://owner", "an address of the hub is hf://OWNER/NAME[@REVISION]"),
        (lambda hub: hub.damage.add("any.onnx"), ADDRESS, "any.onnx differs from what the hub"),
        (lambda hub: hub.commits.update({"owner/tiny": "../.."}), ADDRESS, "names no commit"),
        (lambda hub: hub.repositories["owner/tiny"].clear(), ADDRESS, "holds no bundle"),
        (
            lambda hub: hub.repositories["owner/tiny"].update({"any.onnx": b"garbage"}),
            ADDRESS,
            "any.onnx: what came is removed",
        ),
        (
            lambda hub: hub.repositories.update({"owner/tiny": {"../../../up.onnx": b"x"}}),
            ADDRESS,
            "holds no bundle",
        ),
    ],
)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("says", [False, True])
def test_what_goes_wrong_is_one_line(
    bundled, photo, tmp_path, capsys, change, model, message, large, says
):
    bundled.large, bundled.says_digests = {"any.onnx"} if large else set(), says
    change(bundled)
    assert segment(photo, model) == 2
    assert message in error_of(capsys)
    assert set(kept(tmp_path)) <= {"lock"}


def test_offline_is_one_line(hub, photo, capsys, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert segment(photo) == 2
    assert f"{ADDRESS}: cannot be fetched (the connection failed" in error_of(capsys)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert segment(photo) == 2
    assert "HF_HUB_OFFLINE is set" in error_of(capsys)
    with pytest.raises(atrous.InputError, match=r"not fetched yet; .* atrous\.export\.fetch"):
        atrous.load(ADDRESS)


def test_a_bundle_has_no_weights(bundled, tmp_path, capsys):
    assert main(["export", ADDRESS]) == 2
    assert "holds a bundle, where weights are needed" in error_of(capsys)
    run = str(tmp_path / "run")
    assert main(["convert", ADDRESS, "--data", "voc2012", "--out", run]) == 2
    assert "holds a bundle, which needs no conversion" in error_of(capsys)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What save_pretrained writes."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    network = smp.Unet("resnet18", encoder_weights=None, classes=5)
    network.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_weights_become_a_bundle(hub, saved, photo, tmp_path, capsys):
    hub.repositories["owner/unet"], hub.card = saved, {"license": "mit"}
    assert segment(photo, "hf://owner/unet") == 0
    assert "unet (fp32, onnxruntime" in capsys.readouterr().out
    bundle = resolve("hf://owner/unet")
    metadata = OnnxRuntime(bundle, threads=1).metadata
    assert metadata.licence == "mit"
    assert metadata.taxonomy.classes == tuple(f"class {k}" for k in range(5))
    assert Run.read(bundle.with_suffix("")).data.source == "hf://owner/unet"
    assert not bundle.with_name("files").exists()
    names = ", ".join(f'"{name}"' for name in "abcde")
    data, out = tmp_path / "five.toml", tmp_path / "run"
    data.write_text(
        f'name = "five"\n[labels]\nencoding = "index"\nclasses = [{names}]\n'
        '[splits.val]\nimages = "i/{key}.png"\nlabels = "m/{key}.png"\n'
    )
    assert main(["convert", "hf://owner/unet", "--data", str(data), "--out", str(out)]) == 0
    assert Run.read(out).taxonomy.classes == tuple("abcde")


class Trap:
    """Its unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_repository_is_not_run(hub, photo, tmp_path, capsys):
    content = pickle.dumps({"state_dict": Trap(tmp_path / "sprung")})
    hub.repositories["owner/trap"] = {"pytorch_model.bin": content}
    assert segment(photo, "hf://owner/trap") == 2
    assert "hf://owner/trap: " in error_of(capsys)
    assert not (tmp_path / "sprung").exists()


def test_a_bundle_is_pushed_with_its_card(hub, tiny_bundle, photo, capsys, monkeypatch):
    hub.secret = "s3cret"
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    command = ["export", str(tiny_bundle), "--push", "hf://me/mine"]
    assert main([*command, "--photo", str(photo)]) == 0
    output = capsys.readouterr().out
    assert f"pushed model.onnx, README.md, example.jpg to {hub.url}/me/mine/commit/" in output
    files = hub.repositories["me/mine"]
    assert files["model.onnx"] == tiny_bundle.read_bytes()
    assert files["example.jpg"].startswith(b"\xff\xd8")
    _, head, text = files["README.md"].decode().split("---\n", 2)
    card = yaml.safe_load(head)
    assert card["pipeline_tag"] == "image-segmentation"
    assert card["library_name"] == "atrous"
    assert "atrous segment photo.jpg --model hf://me/mine\n" in text
    assert main(command) == 0  # a repository that is there is pushed to again
    assert segment(photo, "hf://me/mine") == 0


def test_what_cannot_be_pushed_is_one_line(hub, tiny_bundle, photo, capsys, monkeypatch):
    command = ["export", str(tiny_bundle), "--push"]
    assert main([*command, "hf://me"]) == 2
    assert "hf://OWNER/NAME" in error_of(capsys)
    assert main([*command, "hf://me/mine@v1"]) == 2
    assert "leave out the revision" in error_of(capsys)
    assert main(["export", str(tiny_bundle), "--photo", str(photo)]) == 2
    assert "give --push, too" in error_of(capsys)
    hub.secret = "s3cret"
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert main([*command, "hf://me/mine"]) == 2
    assert "not pushed (the hub answers 401: HF_TOKEN may not write" in error_of(capsys)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert main([*command, "hf://me/mine"]) == 2
    assert "hf://me/mine: not pushed (" in error_of(capsys)


def test_a_card_has_scores_with_their_protocol_and_intervals(hub, capsys):
    assert main(["export", "camvid", "--push", "hf://me/camvid"]) == 0
    _, head, text = hub.repositories["me/camvid"]["README.md"].decode().split("---\n", 2)
    card = yaml.safe_load(head)
    assert (card["license"], card["license_name"]) == ("other", "research and education only")
    assert card["datasets"] == ["camvid"]
    (results,) = card["model-index"]
    (one,) = {json.dumps(result["dataset"]) for result in results["results"]}
    assert json.loads(one) == {"name": "camvid", "type": "camvid", "split": "val"}
    values = {m["type"]: m["value"] for r in results["results"] for m in r["metrics"]}
    assert values["mean_iou"] == pytest.approx(0.7766, abs=1e-4)
    assert "On camvid, split val, 101 images, in percent. Protocol pooled:" in text
    assert "| mIoU | 77.7 |" in text
    assert "| pole | 23.3 |" in text
    assert "research and education only" in text


def test_a_card_states_intervals_and_escapes_names(tiny_bundle):
    metadata = OnnxRuntime(tiny_bundle, threads=1).metadata
    scores = {
        **{"data": "mine", "split": "val", "images": 3, "protocol": "pooled", "miou": 0.5},
        **{"iou": {"a|b": 0.5, "<c>": None}, "intervals": {"miou": [0.4, 0.6]}},
    }
    card = model_card(replace(metadata, scores=scores), "me/mine", 2_000_000, "classes")
    assert "| mIoU | 50.0 | 40.0 to 60.0 |\n\n| class" in card
    assert "| a/b | 50.0 |\n| &lt;c&gt; | - |\n" in card
    assert "![classes](example.jpg)" in card
    assert "One ONNX file of 2.0 MB" in card
