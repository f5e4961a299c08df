"""Archives as publishers write them, and as only an attacker would."""

import gzip
import io
import os
import tarfile
import zipfile
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from atrous.data.fetch import unpack as unpack_module
from atrous.data.fetch.archives import inner_path
from atrous.data.fetch.unpack import DamagedArchiveError
from atrous.data.fetch.unpack import unpack as unpack_with_progress
from atrous.errors import InputError
from atrous.progress import untracked

FILES = {"VOC/a.jpg": os.urandom(3000), "VOC/sub/b.png": b"b" * 512, "VOC/empty.txt": b""}
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
KINDS = ["zip", "ustar", "gnu", "pax", "gz"]

fresh = pytest.fixture(lambda tmp_path_factory: lambda: tmp_path_factory.mktemp("fresh"))
modest = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


unpack = partial(unpack_with_progress, track=untracked)


def packed(kind: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return buffer.getvalue()
    with tarfile.open(
        fileobj=buffer, mode="w", format=FORMATS.get(kind, tarfile.GNU_FORMAT)
    ) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue()) if kind == "gz" else buffer.getvalue()


def tar_of(member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512 + 1024)


def files_in(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def unpacked(content: bytes, folder: Path, **choice) -> dict[str, bytes]:
    """Unpack into folder/out; the archive lies beside it."""
    (folder / "archive").write_bytes(content)
    unpack(folder / "archive", folder / "out", **choice)
    return files_in(folder / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_all_formats(tmp_path, kind):
    assert unpacked(packed(kind, FILES), tmp_path) == FILES


names = st.text(st.characters(codec="utf-8", exclude_characters="/\\:\x7f", min_codepoint=32))
paths = st.lists(names.filter(lambda n: n not in ("", ".", "..")), min_size=1, max_size=3)


@modest
@given(
    kind=st.sampled_from(["zip", "gnu", "pax", "gz"]),
    parts=paths,
    content=st.binary(max_size=2000),
    depth=st.integers(0, 30),
)
def test_any_name_and_content(fresh, kind, parts, content, depth):
    name = "/".join([*["twelve-chars"] * depth, *(part[:40] for part in parts)])
    assert unpacked(packed(kind, {name: content}), fresh()) == {name: content}


def test_folders_and_dots(tmp_path):
    with tarfile.open(tmp_path / "archive", "w") as tar:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "x").write_bytes(b"x")
        tar.add(tmp_path / "data", "./data")
    unpack(tmp_path / "archive", tmp_path / "out")
    assert files_in(tmp_path / "out") == {"data/x": b"x"}


def test_old_files_are_replaced(tmp_path):
    unpacked(packed("zip", {"a": b"old", "b": b"old"}), tmp_path)
    assert unpacked(packed("zip", {"a": b"new"}), tmp_path) == {"a": b"new", "b": b"old"}


@pytest.mark.parametrize("kind", KINDS)
def test_choice(tmp_path, kind):
    only = ("VOC/*.png", "*.txt")
    assert unpacked(packed(kind, FILES), tmp_path, only=only, strip=1) == {
        "sub/b.png": FILES["VOC/sub/b.png"],
        "empty.txt": b"",
    }
    with pytest.raises(InputError, match=r"no file in it matches nothing\*"):
        unpack(tmp_path / "archive", tmp_path / "none", only=("nothing*",))


def test_what_macos_adds_is_left_out(tmp_path):
    assert unpacked(packed("zip", {"a": b"1", "__MACOSX/._a": b"2"}), tmp_path) == {"a": b"1"}


def test_inner_archives_only_where_they_are_named(tmp_path):
    inner = packed("gz", {"x/y.png": b"y"})
    outer = packed("zip", {"ann/in.tar.gz": inner, "ann/kept.tar.gz": inner})
    assert unpacked(outer, tmp_path, nested=("*/in.*",)) == {
        "ann/x/y.png": b"y",
        "ann/kept.tar.gz": inner,
    }


HOSTILE_NAMES = [
    "../up",
    "a/../../up",
    "/etc/absolute",
    "a\\..\\up",
    "C:up",
    "c:\\up",
    "nul\x00up",
    "line\nup",
    "..",
    "a/..",
    ".atrous/fetched.json",
    "\x1b[2J",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names(name):
    with pytest.raises(ValueError, match="no path to unpack to"):
        inner_path(name)


@modest
@given(
    kind=st.sampled_from(["zip", "pax", "gnu"]),
    name=st.text(st.sampled_from("./\\ab:\x00C~"), min_size=1, max_size=12) | st.text(min_size=1),
)
@example("zip", "../up")
@example("pax", "/up")
@example("gnu", "a/b/../../../up")
def test_no_name_leads_outside(fresh, kind, name):
    top = fresh()
    folder = top / "a" / "b" / "c"
    folder.mkdir(parents=True)
    try:
        content = packed(kind, {"first": b"1", name: b"2"})
    except (ValueError, IndexError):  # the writer does not take the name
        return
    with suppress(InputError, OSError):
        unpacked(content, folder)
    assert all(path.startswith(("a/b/c/out/", "a/b/c/archive")) for path in files_in(top))


def test_a_zip_with_no_name_at_all(tmp_path):
    with pytest.raises(DamagedArchiveError):
        unpacked(packed("zip", {"Q": b"1"}).replace(b"Q", b"\0"), tmp_path)


@pytest.mark.parametrize("kind", ["zip", "pax"])
def test_a_hostile_archive_writes_nothing(tmp_path, kind):
    with pytest.raises(DamagedArchiveError, match="no path to unpack to"):
        unpacked(packed(kind, {"good": b"1", "../up": b"2"}), tmp_path)
    assert files_in(tmp_path).keys() == {"archive"}


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"6"])
def test_links_and_devices_in_tar(tmp_path, kind):
    member = tarfile.TarInfo("link")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(DamagedArchiveError, match="'link' is a link or a device"):
        unpacked(tar_of(member), tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", [0o120777, 0o060666, 0o010644])
def test_links_and_devices_in_zip(tmp_path, mode):
    info = zipfile.ZipInfo("link")
    info.external_attr = mode << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DamagedArchiveError, match="'link' is a link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_link_that_is_not_asked_for_is_left_out(tmp_path):
    member = tarfile.TarInfo("link")
    member.type, member.linkname = tarfile.SYMTYPE, "a"
    content = member.tobuf() + packed("ustar", {"a": b"1"})
    assert unpacked(content, tmp_path, only=("a",)) == {"a": b"1"}


def test_encrypted_and_odd_compression(tmp_path):
    content = bytearray(packed("zip", {"a": b"1"}))
    content[content.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(DamagedArchiveError, match="'a' is encrypted"):
        unpacked(bytes(content), tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", "1")
    with pytest.raises(DamagedArchiveError, match="compressed in a way"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_bombs(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(unpack_module, "_ALWAYS_ALLOWED", 1000)
    with pytest.raises(DamagedArchiveError, match="bomb"):
        unpacked(packed(kind, {"zeros": bytes(3_000_000)}), tmp_path)
    monkeypatch.setattr(unpack_module, "_MOST_MEMBERS", 2)
    with pytest.raises(DamagedArchiveError, match="bomb"):
        unpacked(packed(kind, FILES), tmp_path)
    assert files_in(tmp_path).keys() == {"archive"}


def test_a_zip_that_lies_about_its_sizes(tmp_path):
    for size, stated in ((100_000, 10), (10, 100_000)):
        content = packed("zip", {"a": bytes(size)})
        content = content.replace(size.to_bytes(4, "little"), stated.to_bytes(4, "little"))
        with pytest.raises(DamagedArchiveError):
            unpacked(content, tmp_path)
    assert files_in(tmp_path).keys() == {"archive"}


def test_a_directory_that_would_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack_module, "_MOST_DIRECTORY", 10_000)
    with pytest.raises(DamagedArchiveError, match="directory is too large"):
        unpacked(packed("zip", {f"{i}" * 50: b"" for i in range(300)}), tmp_path)


def test_a_size_beyond_eight_gigabytes_is_understood(tmp_path):
    large = tarfile.TarInfo("large")
    large.size = 1 << 40
    with pytest.raises(DamagedArchiveError, match="bomb"):
        unpacked(tar_of(large), tmp_path)


@modest
@given(kind=st.sampled_from(KINDS), share=st.floats(0, 1, exclude_max=True))
def test_what_is_cut_off_is_refused(fresh, kind, share):
    """Of a tar, before its padding."""
    content, folder = packed(kind, FILES), fresh()
    end = len(content) if kind in ("zip", "gz") else content.rindex(b"b") + 1
    with pytest.raises(DamagedArchiveError):
        unpacked(content[: int(share * end)], folder)
    assert files_in(folder).keys() == {"archive"}


@pytest.mark.slow
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(KINDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
def test_damage_is_told_or_harmless(fresh, kind, changes):
    content = bytearray(packed(kind, {"VOC/a.txt": b"some text " * 30, "VOC/b": b"b"}))
    for place, value in changes:
        content[int(place * len(content))] = value
    folder = fresh()
    try:
        unpacked(bytes(content), folder)
    except (InputError, OSError) as error:
        assert "\n" not in str(error)
    assert all(name == "archive" or name.startswith("out/") for name in files_in(folder))


@modest
@given(st.binary(max_size=2000), st.sampled_from([b"", b"PK\3\4", b"\x1f\x8b\x08", b"ustar"]))
def test_any_bytes(fresh, content, magic):
    folder = fresh()
    with pytest.raises(DamagedArchiveError):
        unpacked(magic + content, folder)


def test_a_wrong_crc_is_told(tmp_path):
    content = bytearray(packed("zip", {"a": os.urandom(500)}))
    content[200] ^= 1
    with pytest.raises(DamagedArchiveError, match="CRC"):
        unpacked(bytes(content), tmp_path)
    content = bytearray(packed("gz", {"a": os.urandom(500)}))
    content[-6] ^= 1
    with pytest.raises(DamagedArchiveError, match="CRC"):
        unpacked(bytes(content), tmp_path)
    assert files_in(tmp_path).keys() == {"archive"}


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack_module, "free_space", lambda folder: 3000)
    with pytest.raises(OSError, match="are needed"):
        unpacked(packed("zip", FILES), tmp_path)
    assert files_in(tmp_path).keys() == {"archive"}
    (tmp_path / "out" / "VOC").mkdir(parents=True)
    (tmp_path / "out" / "VOC" / "a.jpg").write_bytes(bytes(3000))  # its room will be free
    unpack(tmp_path / "archive", tmp_path / "out")
    assert files_in(tmp_path / "out") == FILES


def test_progress_counts_the_bytes(tmp_path):
    (tmp_path / "a.tar").write_bytes(packed("pax", FILES))
    steps, seen = [], []

    @contextmanager
    def track(step):
        steps.append(step)
        yield lambda *count: seen.append(count)

    unpack_with_progress(tmp_path / "a.tar", tmp_path / "out", track)
    assert steps == ["unpack a.tar"] and seen[-1] == (3512, 3512)
