"""A model's name becomes a bundle or a run folder."""

from pathlib import Path

import pytest

from atrous.errors import InputError
from atrous.weights import hub
from atrous.weights.hub import is_published, resolve, run_beside, zoo_names, zoo_path
from atrous.weights.repository import RemoteFile, Repository, Revision


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "camvid.onnx").touch()
    monkeypatch.setattr(hub, "_ZOO", tmp_path)
    return tmp_path


def test_a_name_means_the_shipped_model_even_beside_a_folder_of_that_name(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "camvid").mkdir(parents=True)
    monkeypatch.chdir(here)
    assert zoo_names() == ("camvid",)
    assert resolve("camvid") == zoo_path("camvid") == zoo / "camvid.onnx"
    assert resolve("./camvid") == Path("camvid")
    assert resolve(Path("../camvid.onnx")) == Path("../camvid.onnx")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("camvit", r"camvit: no shipped model.* Did you mean camvid\?"),
        ("xyz", "Shipped are: camvid"),
        ("camvit.onnx", "camvit.onnx: no such file"),
        ("runs/one", "runs/one: no such file"),
    ],
)
def test_a_model_that_is_not_there(zoo: Path, model: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(model)


def test_a_published_name_is_found_where_it_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path / "cache")
    name = "torchvision/fcn_resnet50"
    assert is_published(name) and not is_published("torchvision/fcn_resnet51")
    with pytest.raises(InputError, match=r"fcn_resnet50: not fetched yet; .*atrous.export.fetch"):
        resolve(name)
    bundle = tmp_path / f"cache/weights/{name}.onnx"
    bundle.parent.mkdir(parents=True)
    bundle.touch()
    assert resolve(name) == bundle
    assert run_beside(bundle) is None
    (bundle.with_suffix("") / "run.json").parent.mkdir()
    (bundle.with_suffix("") / "run.json").touch()
    assert run_beside(bundle) == bundle.with_suffix("")
    with pytest.raises(InputError, match=r"fcn_resnet51: .* Did you mean torchvision/fcn_resnet50"):
        resolve("torchvision/fcn_resnet51")
    Path(name).mkdir(parents=True)
    assert not is_published(name)
    assert resolve(name) == Path(name)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("hf://o/n", ("o", "n", "main")),
        ("hf://a-b/n.1_2@v1.0", ("a-b", "n.1_2", "v1.0")),
        ("hf://o/n@refs/pr/1", ("o", "n", "refs/pr/1")),
    ],
)
def test_addresses(address: str, parts: tuple[str, str, str]) -> None:
    repository = Repository.parse(address)
    assert (repository.owner, repository.name, repository.revision) == parts
    assert str(repository) == address


@pytest.mark.parametrize(
    "address",
    ["hf://o", "hf://../n", "hf://o/..", "hf://o/n/m", "hf://o/n@../x", "hf://o/n@", "hf://"],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(InputError, match=r"hf://OWNER/NAME\[@REVISION\]"):
        resolve(address)


@pytest.mark.parametrize(
    "name",
    ["../a.onnx", "/a.onnx", "..\\a.onnx", "x/../../a.onnx", "sub/a.onnx", ".a.onnx", "a\n.onnx"],
)
def test_a_name_that_leads_elsewhere_is_no_file_of_a_repository(name: str) -> None:
    with pytest.raises(InputError, match=r"r: holds no bundle"):
        Revision(sha="1", siblings=[RemoteFile(rfilename=name)]).chosen("r")


def test_which_files_of_a_repository_are_taken() -> None:
    def chosen(*names: str) -> list[str]:
        files = [RemoteFile(rfilename=name) for name in names]
        return [file.rfilename for file in Revision(sha="1", siblings=files).chosen("r")]

    assert chosen("README.md", "a.onnx") == ["a.onnx"]
    assert chosen("a.onnx", "model.onnx") == ["model.onnx"]
    weights = ["model.safetensors", "config.json"]
    assert chosen("config.json", "pytorch_model.bin", "model.safetensors") == weights
    with pytest.raises(InputError, match=r"several bundles \(a.onnx, b.onnx\)"):
        chosen("a.onnx", "b.onnx")
