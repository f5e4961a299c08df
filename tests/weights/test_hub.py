"""A model's name becomes a bundle or a run folder."""

from pathlib import Path

import pytest

from atrous.errors import InputError
from atrous.weights import hub, published
from atrous.weights.hub import is_published, resolve, zoo_names, zoo_path


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


def test_a_published_name_is_fetched_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def fetch_run(entry, out, progress, notify):  # type: ignore[no-untyped-def]
        fetched.append(entry.name)
        out.mkdir(parents=True)
        (out / "run.json").touch()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(published, "fetch_run", fetch_run)
    monkeypatch.setattr(published, "cache_folder", lambda: tmp_path / "cache")
    name = "torchvision/fcn_resnet50"
    assert is_published(name) and not is_published("torchvision/fcn_resnet51")
    assert resolve(name) == resolve(name) == tmp_path / "cache/weights" / name
    assert fetched == [name]
    with pytest.raises(InputError, match=r"fcn_resnet51: .* Did you mean torchvision/fcn_resnet50"):
        resolve("torchvision/fcn_resnet51")
    Path(name).mkdir(parents=True)
    assert not is_published(name)
    assert resolve(name) == Path(name)
