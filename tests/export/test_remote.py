"""What others publish: the way from a server that misbehaves to a run folder and a bundle."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from file_server import file_server
from other_networks import Vainf, random_network

from atrous.data.fetch import download as download_module
from atrous.errors import InputError
from atrous.export.remote import fetch_run
from atrous.progress import untracked
from atrous.run import PublishedScore, load_run
from atrous.text import bytes_text
from atrous.weights.published import Published


@pytest.fixture(scope="module")
def content():
    """A checkpoint file of V3+ on MobileNetV2, as VainF's are."""
    file = io.BytesIO()
    torch.save({"model_state": random_network(Vainf, 0, 21, plus=True).state_dict()}, file)
    return file.getvalue()


@pytest.fixture
def server(content, monkeypatch):
    monkeypatch.setattr(download_module, "PAUSE", 0.01)
    with file_server() as server:
        server.files["/best.pth"] = content
        yield server


@pytest.fixture
def published(server, content):
    return Published(
        name="vainf/small",
        layout="vainf",
        url=f"{server.url}/best.pth",
        sha256=hashlib.sha256(content).hexdigest()[:8],
        data="voc2012",
        miou=0.711,
        protocol="val",
        licence="MIT",
    )


def fetch(published, out, said=None):
    fetch_run(published, out, untracked, (said if said is not None else []).append)


def left_over(folder):
    """What lies beside the run, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ("run", ".atrous"))


def test_fetched_verified_and_converted(published, tmp_path):
    fetch(published, tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert run.taxonomy.num_classes == 21
    assert run.run.data.published == PublishedScore(miou=0.711, protocol="val")
    assert run.run.data.licence.startswith("MIT; data: ")
    assert run.run.data.source == published.url
    assert left_over(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("faults", [["503", "cut"], ["chunked cut"]])
def test_a_server_that_breaks_off_is_asked_again(server, published, content, tmp_path, faults):
    server.faults = list(faults)
    said = []
    fetch(published, tmp_path / "run", said)
    assert len(said) == 1 + len(faults)  # the first line has the size
    assert said[0] == f"vainf/small: {bytes_text(len(content))} from 127.0.0.1"
    assert load_run(tmp_path / "run").run.layout == "vainf"


def test_a_stalled_server_is_asked_again(server, published, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "TIMEOUT", 0.3)
    server.faults = ["stall"]

    def say(line):
        if "from 127.0.0.1" not in line:  # what comes now may take its time
            monkeypatch.setattr(download_module, "TIMEOUT", 300)

    fetch_run(published, tmp_path / "run", untracked, say)
    assert server.ranges[-1].startswith("bytes=")
    assert server.ranges[-1] != "bytes=0-"


def test_a_changed_file_is_refused_and_removed(server, published, tmp_path):
    content = bytearray(server.files["/best.pth"])
    content[-100] ^= 1
    server.files["/best.pth"] = bytes(content)
    with pytest.raises(InputError, match="vainf/small: what came differs from the published file"):
        fetch(published, tmp_path / "run")
    assert left_over(tmp_path) == []


def test_a_file_that_changes_on_the_way_is_fetched_from_the_beginning(server, published, tmp_path):
    server.faults = ["cut", "404"]
    with pytest.raises(InputError, match="404"):
        fetch(published, tmp_path / "run")
    server.version = '"2"'
    fetch(published, tmp_path / "run")
    assert load_run(tmp_path / "run").taxonomy.num_classes == 21


def test_a_lie_about_the_size_gives_no_run(server, published, tmp_path):
    server.faults = ["states too many"] * download_module.TRIES
    with pytest.raises(InputError, match=r"vainf/small: .* bytes.*; give the same command"):
        fetch(published, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_gives_no_run(server, published, tmp_path):
    with pytest.raises(InputError, match="21 classes"):
        fetch(replace(published, data="ade20k"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_never_fits_is_not_kept(server, published, tmp_path):
    """Without a published checksum: the same call must not meet the same file again."""
    content = server.files["/best.pth"]
    server.files["/best.pth"] = b"<html>sorry</html>"
    unsure = replace(published, sha256="")
    with pytest.raises(InputError, match="vainf/small: what came is removed: a web page"):
        fetch(unsure, tmp_path / "run")
    assert left_over(tmp_path) == []
    server.files["/best.pth"] = content
    fetch(unsure, tmp_path / "run")


def test_a_run_that_is_there_is_taken(server, published, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("theirs")
    fetch(published, tmp_path / "run")
    assert (tmp_path / "run" / "run.json").read_text() == "theirs"
    assert server.asked == 0


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_file_put_by_hand_needs_no_network(published, content, tmp_path, by_hand):
    away = replace(published, url="http://127.0.0.1:1/best.pth", by_hand=by_hand)
    with pytest.raises(InputError, match=rf"{tmp_path}/run\.pth"):
        fetch(away, tmp_path / "run")
    file = tmp_path / "run.pth"
    file.write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"{file}: not the published file .*or remove it"):
        fetch(away, tmp_path / "run")
    file.write_bytes(content)
    fetch(away, tmp_path / "run")
    assert load_run(tmp_path / "run").run.layout == "vainf"
    assert left_over(tmp_path) == ["run.pth"]  # it is the user's


def test_offline_is_said_at_once(published, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(download_module.time, "sleep", pauses.append)
    with pytest.raises(InputError, match=r"vainf/small: cannot be fetched .*go online"):
        fetch(replace(published, url="http://127.0.0.1:1/best.pth"), tmp_path / "run")
    assert pauses == []  # there was one try, none after a pause
    assert left_over(tmp_path) == []


def test_a_page_for_people_is_named(published, tmp_path):
    with pytest.raises(InputError, match=rf"by hand from http.*there: {tmp_path}/run\.pth"):
        fetch(replace(published, by_hand=True), tmp_path / "run")


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_from_there(server, published, content, tmp_path):
    code = (
        "import sys; from pathlib import Path; from atrous.progress import untracked;"
        "from atrous.weights.published import Published;from atrous.export.remote import fetch_run;"
        "fetch_run(Published(name='vainf/small', layout='vainf', url=sys.argv[1],"
        "sha256=sys.argv[2], data='voc2012', miou=0.7, protocol='val', licence='MIT'),"
        "Path(sys.argv[3]), untracked, print)"
    )
    command = [sys.executable, "-c", code, published.url, published.sha256, str(tmp_path / "run")]
    server.faults = ["stall"]
    process = subprocess.Popen(command)
    part = tmp_path / ".run.pth.part"
    while process.poll() is None and not (part.exists() and part.stat().st_size > 1 << 20):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    have = part.stat().st_size
    assert 1 << 20 < have < len(content)
    assert not (tmp_path / "run").exists()
    fetch(published, tmp_path / "run")
    assert server.ranges[-1] == f"bytes={have}-"
    assert load_run(tmp_path / "run").taxonomy.num_classes == 21
    assert left_over(tmp_path) == []
