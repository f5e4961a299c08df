"""Fetching from a real server that misbehaves in every way that servers do."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from file_server import FileServer, file_server
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from atrous.data.dataset import Dataset, builtin_names
from atrous.data.fetch import download as download_module
from atrous.data.fetch.archives import Archive, file_name
from atrous.data.fetch.dataset import fetch, plan, space_needed
from atrous.data.fetch.download import _SafeRedirects
from atrous.decode import convert
from atrous.errors import InputError
from atrous.progress import Track

CONTENT = {
    f"{split}2017/{i}.jpg": os.urandom(60_000) for split in ("train", "val") for i in range(3)
}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


ZIP = zipped(CONTENT)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_module, "PAUSE", 0.001)
    with file_server() as server:
        server.files["/zips/coco.zip"] = ZIP
        yield server


def archive_of(server: FileServer, **table) -> Archive:
    return convert({"url": f"{server.url}/zips/coco.zip", **table}, Archive, "archives", "")


def run(archives, root: Path, splits=None, **arguments) -> list[str]:
    """Plan and fetch; return what was said."""
    said: list[str] = []
    fetch(plan(archives, root, splits, **arguments), root, notify=said.append)
    return said


def files_in(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".atrous" not in path.parts
    }


def left_in(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".atrous").rglob("*") if path.is_file())


def test_a_set_is_fetched_once(server, tmp_path):
    archives = [archive_of(server, size=len(ZIP), md5=hashlib.md5(ZIP).hexdigest())]
    (job,) = plan(archives, tmp_path)
    assert (job.size, job.have, job.done) == (len(ZIP), 0, False)
    assert fetch([job], tmp_path) == [tmp_path / "train2017", tmp_path / "val2017"]
    assert files_in(tmp_path) == CONTENT
    assert left_in(tmp_path) == ["fetched.json", "lock"]
    asked = server.asked
    (job,) = plan(archives, tmp_path)
    assert job.done
    assert fetch([job], tmp_path) == []
    assert (server.asked, server.ranges) == (asked, [None])


def test_plan_writes_nothing(server, tmp_path):
    plan([archive_of(server)], tmp_path / "new")
    assert not (tmp_path / "new").exists()


FAULTS = [
    "cut",
    "chunked cut",
    "no range",
    "another range",
    "odd range",
    "no length",
    "no version",
    "states too many",
    "500",
    "503",
    "429",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_survived(server, tmp_path, fault):
    server.faults = ["cut", fault]
    said = run([archive_of(server)], tmp_path)
    assert files_in(tmp_path) == CONTENT
    assert server.ranges[0] is None
    assert server.ranges[1] is not None
    assert "cut off" in said[0]


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(faults=["chunked cut", "cut", "chunked cut", "cut", "chunked cut"])
@given(faults=st.lists(st.sampled_from(FAULTS), max_size=3))
def test_any_run_of_faults_is_survived(server, tmp_path_factory, faults):
    root = tmp_path_factory.mktemp("root")
    server.faults, server.ranges = list(faults), []
    run([archive_of(server)], root)
    assert files_in(root) == CONTENT


def test_a_break_is_resumed_where_it_was(server, tmp_path):
    server.faults = ["cut", "cut"]
    run([archive_of(server)], tmp_path)
    half = len(ZIP) // 2
    three_quarters = half + (len(ZIP) - half) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={three_quarters}-"]
    assert server.conditions == [None, '"1"', '"1"']


def test_a_weak_version_is_no_condition(server, tmp_path):
    """RFC 9110: If-Range takes strong ETags alone, and there is no Last-Modified here."""
    server.version, server.faults = 'W/"1"', ["cut"]
    run([archive_of(server)], tmp_path)
    assert server.ranges == [None, None]
    assert files_in(tmp_path) == CONTENT


def test_a_stall_is_a_break(server, tmp_path, monkeypatch):
    server.faults = ["cut", "stall"]
    said = []

    def say(line):  # only the answer that stalls is waited for a short time
        said.append(line)
        monkeypatch.setattr(download_module, "TIMEOUT", 0.3 if len(said) == 1 else 300)

    fetch(plan([archive_of(server)], tmp_path), tmp_path, notify=say)
    assert said[1].startswith("coco.zip: the connection failed (timed out)")
    assert len(server.ranges) == 3
    assert files_in(tmp_path) == CONTENT


@pytest.mark.parametrize("fault", ["", "ignores If-Range", "no range"])
@pytest.mark.parametrize("grows", [True, False])
def test_a_file_that_changes_is_never_mixed(server, tmp_path, fault, grows):
    other = {name: os.urandom(70_000 if grows else 60_000) for name in CONTENT}
    server.faults = ["cut", fault]
    said = []

    def say(line):
        said.append(line)
        server.files["/zips/coco.zip"], server.version = zipped(other), '"2"'

    fetch(plan([archive_of(server)], tmp_path), tmp_path, notify=say)
    assert files_in(tmp_path) == other
    assert any("has changed on the server" in line for line in said)


def test_a_file_that_shrinks_below_what_has_come(server, tmp_path):
    other = {"val2017/0.jpg": b"small"}
    server.faults = ["cut", "ignores If-Range"]

    def say(line):
        server.files["/zips/coco.zip"], server.version = zipped(other), '"2"'

    fetch(plan([archive_of(server)], tmp_path), tmp_path, notify=say)
    assert files_in(tmp_path) == other


def test_giving_up_keeps_what_has_come(server, tmp_path):
    server.faults = ["cut"] + ["503"] * (download_module.TRIES - 1)
    with pytest.raises(InputError, match=r"answers 503.*what has come is kept") as error:
        run([archive_of(server)], tmp_path)
    assert "\n" not in str(error.value)
    (job,) = plan([archive_of(server)], tmp_path)
    assert job.have == len(ZIP) // 2
    server.ranges = []
    fetch([job], tmp_path)
    assert server.ranges == [f"bytes={len(ZIP) // 2}-"]
    assert files_in(tmp_path) == CONTENT


@pytest.mark.parametrize("fault", ["cut", "another range"])
def test_a_server_that_never_comes_to_the_end_is_given_up(server, tmp_path, fault):
    server.faults = ["cut", fault] * 50
    with pytest.raises(InputError, match=r"coco\.zip: "):
        run([archive_of(server)], tmp_path)


@pytest.mark.parametrize("code", ["403", "404", "410"])
def test_a_refusal_is_not_repeated(server, tmp_path, code):
    server.faults = [code]
    with pytest.raises(InputError, match=f"answers {code}, .*--mirror"):
        run([archive_of(server)], tmp_path)
    assert len(server.ranges) == 1


def test_a_missing_file_is_told_before_the_work(server, tmp_path):
    with pytest.raises(InputError, match="answers 404, Not Found"):
        plan([Archive(url=f"{server.url}/none.zip")], tmp_path)


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "PAUSE", 0.001)
    with pytest.raises(InputError, match="the connection failed"):
        plan([Archive(url="http://127.0.0.1:9/a.zip")], tmp_path)


def test_redirects_are_followed(server, tmp_path):
    server.files["/old.zip"] = ZIP
    server.faults = ["endless to /zips/coco.zip"]  # what comes with a redirect is not read
    run([Archive(url=f"{server.url}/old.zip")], tmp_path)
    assert files_in(tmp_path) == CONTENT


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "//["])
def test_redirects_lead_to_the_web_alone(server, tmp_path, target):
    server.faults = [f"to {target}"]
    with pytest.raises(InputError, match=r"cannot be requested|answers 302"):
        run([archive_of(server)], tmp_path)
    assert files_in(tmp_path) == {}


def test_a_circle_of_redirects(server, tmp_path):
    server.faults = ["to /zips/coco.zip"] * 50
    with pytest.raises(InputError, match="answers 302"):
        run([archive_of(server)], tmp_path)


def test_no_redirect_from_https_to_http():
    request = download_module.urllib.request.Request("https://a/b")
    with pytest.raises(ValueError, match="redirects to 'http://a/b'"):
        _SafeRedirects().redirect_request(request, io.BytesIO(), 302, "", {}, "http://a/b")


def test_a_length_that_is_too_small_is_noticed(server, tmp_path):
    server.faults = ["states too few"]
    with pytest.raises(InputError, match=r"on the server, where .* were published"):
        run([archive_of(server, size=len(ZIP))], tmp_path)
    server.faults = ["states too few"]
    with pytest.raises(InputError, match="cannot be unpacked"):
        run([archive_of(server)], tmp_path)
    run([archive_of(server)], tmp_path)
    assert files_in(tmp_path) == CONTENT


def test_a_length_that_is_too_large_is_noticed(server, tmp_path):
    server.faults = ["states too many"] * 20
    with pytest.raises(InputError, match="another part is sent"):
        run([archive_of(server)], tmp_path)


@pytest.mark.parametrize("size", [None, 1000])
def test_a_body_without_end_is_cut(server, tmp_path, monkeypatch, size):
    monkeypatch.setattr(download_module, "free_space", lambda folder: 4_000_000)
    server.faults = ["endless"]
    job = plan([archive_of(server)], tmp_path)[0]
    job = replace(job, archive=msgspec.structs.replace(job.archive, size=size))
    with pytest.raises(InputError, match=r"more than [0-9,]+ bytes are sent"):
        fetch([job], tmp_path)
    assert left_in(tmp_path) == ["lock"]


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_wrong_checksum_removes_what_came(server, tmp_path, kind):
    digits = {"md5": 32, "sha256": 64}[kind]
    with pytest.raises(InputError, match=f"differs from the published file \\({kind}\\)"):
        run([archive_of(server, **{kind: "0" * digits})], tmp_path)
    assert left_in(tmp_path) == ["lock"]
    assert files_in(tmp_path) == {}


def test_another_size_than_published_is_told_before_the_work(server, tmp_path):
    with pytest.raises(InputError, match=r"where 5 were published"):
        plan([archive_of(server, size=5)], tmp_path)


def test_a_page_in_place_of_an_archive(server, tmp_path):
    server.files["/zips/coco.zip"] = b"<html>please log in</html>" * 100
    with pytest.raises(InputError, match="cannot be unpacked as a zip or tar: not a tar"):
        run([archive_of(server)], tmp_path)
    assert left_in(tmp_path) == ["lock"]


KILLED = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from atrous.data.fetch.archives import Archive
from atrous.data.fetch.dataset import fetch, plan

@contextmanager
def stop(step):
    def progress(done, total):
        if step.startswith("unpack") and done > 150_000:
            time.sleep(300)  # until it is killed
    yield progress

root = Path(sys.argv[2])
fetch(plan([Archive(url=sys.argv[1])], root), root, stop)
"""


def kill_when(command: list[str], ready) -> None:
    process = subprocess.Popen(command)
    while not ready():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_download_is_resumed(server, tmp_path):
    server.faults = ["stall"]
    command = [sys.executable, "-c", KILLED, f"{server.url}/zips/coco.zip", str(tmp_path)]
    kill_when(command, lambda: any(p.stat().st_size for p in tmp_path.rglob("*.part")))
    (part,) = tmp_path.rglob("*.part")
    have = part.stat().st_size
    assert 0 < have < len(ZIP)
    assert len(run([archive_of(server)], tmp_path)) == 1
    assert server.ranges == [None, f"bytes={have}-"]
    assert files_in(tmp_path) == CONTENT


def test_a_killed_unpacking_is_done_again(server, tmp_path):
    command = [sys.executable, "-c", KILLED, f"{server.url}/zips/coco.zip", str(tmp_path)]
    kill_when(command, lambda: len([*tmp_path.rglob("*.jpg")]) > 1)
    assert not (tmp_path / ".atrous" / "fetched.json").exists()
    run([archive_of(server)], tmp_path)
    assert files_in(tmp_path) == CONTENT
    assert server.ranges == [None]


def interrupting(step: str, least: int) -> Track:
    """Raises KeyboardInterrupt once more than `least` bytes of a step are done."""

    @contextmanager
    def track(name: str):
        def progress(done: int, total: int | None) -> None:
            if name.startswith(step) and done > least:
                raise KeyboardInterrupt

        yield progress

    return track


def test_an_interrupted_check_downloads_nothing_again(server, tmp_path):
    interrupt = interrupting("verify", 0)
    archive = archive_of(server, sha256=hashlib.sha256(ZIP).hexdigest())
    with pytest.raises(KeyboardInterrupt):
        fetch(plan([archive], tmp_path), tmp_path, interrupt)
    run([archive], tmp_path)
    assert files_in(tmp_path) == CONTENT
    assert server.ranges == [None]


def test_an_interrupted_unpacking_downloads_nothing_again(server, tmp_path):
    interrupt = interrupting("unpack", 100_000)
    with pytest.raises(KeyboardInterrupt):
        fetch(plan([archive_of(server)], tmp_path), tmp_path, interrupt)
    written = files_in(tmp_path)
    assert written == {name: CONTENT[name] for name in written}
    (job,) = plan([archive_of(server)], tmp_path)
    assert job.have == job.size == len(ZIP)
    fetch([job], tmp_path)
    assert files_in(tmp_path) == CONTENT
    assert server.ranges == [None]


def test_too_small_a_disk_is_told_before_the_work(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    jobs = plan([archive_of(server)], tmp_path)
    assert space_needed(jobs) == 2 * len(ZIP)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 2 * len(ZIP) - 1))
    with pytest.raises(OSError, match="GB are needed"):
        fetch(jobs, tmp_path)
    assert server.ranges == []


def test_only_what_a_split_needs(server, tmp_path):
    only = {"train": ["train2017/*"], "val": ["val2017/*"]}
    archives = [
        archive_of(server, only=only, into="images"),
        Archive(url=f"{server.url}/train.zip", splits=("train",)),
    ]
    assert not plan(archives, tmp_path, ["val"])[0].is_all
    assert plan(archives[:1], tmp_path)[0].is_all
    run(archives, tmp_path, ["val"])
    assert files_in(tmp_path) == {f"images/{k}": v for k, v in CONTENT.items() if "val" in k}
    server.files["/train.zip"] = zipped({"list.txt": b"0\n1\n"})
    run(archives, tmp_path, ["train"])
    images = {f"images/{name}": content for name, content in CONTENT.items()}
    assert files_in(tmp_path) == {**images, "list.txt": b"0\n1\n"}
    assert all(job.done for job in plan(archives, tmp_path))


def test_archives_inside_are_unpacked_beside_themselves(server, tmp_path):
    inner = zipped({"panoptic_val2017/0.png": b"png"})
    outer = zipped({"top/annotations/panoptic.zip": inner, "top/annotations/panoptic.json": b"{}"})
    server.files["/zips/coco.zip"] = outer
    run([archive_of(server, strip=1, nested=["*/annotations/*.zip"])], tmp_path)
    assert files_in(tmp_path) == {
        "annotations/panoptic.json": b"{}",
        "annotations/panoptic_val2017/0.png": b"png",
    }


def test_globs_that_match_nothing_keep_the_download(server, tmp_path):
    with pytest.raises(InputError, match="no file in it matches test2017/"):
        run([archive_of(server, only=["test2017/*"])], tmp_path)
    assert run([archive_of(server)], tmp_path)
    assert server.ranges == [None]


def test_a_mirror_takes_the_place_of_the_host(server, tmp_path):
    server.files = {"/coco/zips/coco.zip": ZIP}
    archive = Archive(url="http://images.example.invalid/zips/coco.zip")
    run([archive], tmp_path, mirror=f"{server.url}/coco/")
    assert files_in(tmp_path) == CONTENT
    with pytest.raises(InputError, match="--mirror 'file:///'"):
        plan([Archive(url="http://a/b.zip")], tmp_path, mirror="file:///")


def test_a_proxy_of_the_environment_is_asked(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    url = "http://images.example.invalid/zips/coco.zip"
    server.files = {url: ZIP}
    run([Archive(url=url)], tmp_path)
    assert files_in(tmp_path) == CONTENT


def test_two_at_once_are_kept_apart(server, tmp_path):
    jobs = plan([archive_of(server)], tmp_path)

    def second(line):
        with pytest.raises(InputError, match="another fetch is at work"):
            fetch(jobs, tmp_path)

    server.faults = ["cut"]
    fetch(jobs, tmp_path, notify=second)
    assert files_in(tmp_path) == CONTENT


@pytest.mark.parametrize("text", ["", "[", "{}", "[1, [2]]", "\x00", "[" * 100_000])
def test_a_spoilt_record_counts_as_none(server, tmp_path, text):
    (tmp_path / ".atrous").mkdir()
    (tmp_path / ".atrous" / "fetched.json").write_text(text)
    run([archive_of(server)], tmp_path)
    assert files_in(tmp_path) == CONTENT


@pytest.mark.parametrize(
    "text", ["", "[]", '{"size": {}, "etag": 3, "modified": null}', "\udcff", "[" * 100_000]
)
def test_spoilt_notes_start_from_the_beginning(server, tmp_path, text):
    server.faults = ["cut"] + ["503"] * (download_module.TRIES - 1)
    with pytest.raises(InputError):
        run([archive_of(server)], tmp_path)
    (notes,) = tmp_path.rglob("*.part.json")
    notes.write_bytes(text.encode("utf-8", "surrogateescape"))
    run([archive_of(server)], tmp_path)
    assert files_in(tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "url is missing"),
        ({"url": "file:///etc/passwd"}, "begins with http"),
        ({"url": "http://a/b c"}, "begins with http"),
        ({"url": "http:///b"}, "a host and a path follow"),
        ({"url": "http://[/b"}, "IPv6"),
        ({"url": "http://a"}, "a host and a path follow"),
        ({"url": 3}, "url: expected str, got int"),
        ({"url": "http://a/b", "into": "../up"}, "no path to unpack to"),
        ({"url": "http://a/b", "into": "/root"}, "no path to unpack to"),
        ({"url": "http://a/b", "into": 3}, "into: expected str, got int"),
        ({"url": "http://a/b", "size": -1}, "size: expected int >= 0"),
        ({"url": "http://a/b", "strip": True}, "strip: expected int, got bool"),
        ({"url": "http://a/b", "md5": "xyz"}, "md5: expected str matching regex"),
        ({"url": "http://a/b", "only": "*.png"}, "only: expected object . array, got str"),
        ({"url": "http://a/b", "only": {"val": [3]}}, r"only\[...\]\[0\]: expected str, got int"),
        ({"url": "http://a/b", "speed": 3}, "unknown 'speed'. There are: url, size"),
        ("http://a/b", "expected object, got str"),
    ],
)
def test_a_wrong_description_is_told(table, message):
    with pytest.raises(InputError, match=message) as error:
        convert(table, Archive, "dataset.toml: archives", "")
    assert "\n" not in str(error.value)


def test_a_folder_is_recorded_in_one_spelling():
    assert Archive(url="http://a/b", into="./images/").into == "images"


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_descriptions_are_right(name, tmp_path):
    dataset = Dataset.open(name, tmp_path)
    for archive in dataset.description.archives:
        assert {*archive.splits} <= dataset.splits.keys()
        assert isinstance(archive.only, tuple) or archive.only.keys() <= dataset.splits.keys()


@given(st.text(min_size=1))
def test_a_file_name_is_tame(text):
    name = file_name(f"http://host/{text}")
    assert name not in (".", "..")
    assert not set(name) & set('/\\\x00\n\x1b:"')
    assert 0 < len(name) <= 100


def test_json_record_is_readable(server, tmp_path):
    run([archive_of(server)], tmp_path)
    (row,) = json.loads((tmp_path / ".atrous" / "fetched.json").read_text())
    assert json.loads(row)[0] == f"{server.url}/zips/coco.zip"
