"""The walk over a tar, as tar programs write it and as only an attacker would."""

import gzip
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrous.data.tar import tar_members


def header(kind: bytes = b"0", size: int = 0, content: bytes = b"", name: str = "x") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def walked(content: bytes) -> dict[str, bytes]:
    """Names and contents; each read twice, as a stream and from its place."""
    file, found = io.BytesIO(content), {}
    for info in tar_members(file):
        found[info.name] = file.read(info.size)
        assert found[info.name] == content[info.offset_data :][: info.size]
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes(form):
    folder = "a" * 90 if form == tarfile.USTAR_FORMAT else "ä" * 200
    files = {f"{folder}/{'b' * 60}": b"1", "short": b"2" * 1000, "odd\nname": b"", "line": b"3"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 0.5  # in pax, a header of its own
            tar.addfile(member, io.BytesIO(content))
    assert walked(buffer.getvalue()) == files
    with gzip.open(io.BytesIO(gzip.compress(buffer.getvalue()))) as stream:
        assert [info.name for info in tar_members(stream)] == list(files)


def test_a_size_in_pax_goes_before():
    content = header(b"x", 9, b"9 size=1\n") + header(name="a", size=0, content=b"1")
    assert walked(content + header(name="b") + bytes(1024)) == {"a": b"1", "b": b""}


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_links_devices_and_folders_have_no_content(kind):
    content = header(b"x", 11, b"11 size=99\n") + header(kind, 5000, name="a") + header(name="b")
    assert walked(content + bytes(1024)) == {"a": b"", "b": b""}


def endless() -> bytes:
    """A negative size leads tarfile back to the same header for ever (CVE-2025-8194)."""
    return header(size=-512) + bytes(1024)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a tar"),
        (b"<html>please log in</html>" * 100, "not a tar"),
        (endless(), "impossible size"),
        (header(size=1 << 60), "impossible size"),
        (header(size=1 << 40), "cut short at byte 1099511628288"),
        (header(size=10), "cut short at byte 1024"),
        (header(), "cut short at byte 512"),
        (header() + bytes(511), "cut short at byte 512"),
        (header().replace(b"x", b"y", 1) + bytes(1024), "not a tar"),
        (header() + b"x" * 512, "damaged or cut short at byte 512"),
        (header() + bytes(1024) + b"x" * 20_000_000, "goes on after its end"),
        (header(b"L", 1 << 33), "a header is too large"),
        (header(b"x", 1 << 17), "a header is too large"),
        (header(b"x", -1), "impossible size"),
        (header(b"L", 3, b"abc") * 100, "one too many"),
        (header(b"x", 9, b"nonsense\n") + header(), "damaged pax header"),
        (header(b"x", 9, b"0 path=a\n") + header(), "damaged pax header"),
        (header(b"x", 9, b"99 path=\n") + header(), "damaged pax header"),
        (header(b"x", 11, b"11 size=-5\n") + header(), "impossible size"),
        (header(b"x", 25, b"25 GNU.sparse.name=a/bcd\n") + header(), "is sparse"),
        (header(b"S"), "a kind that is not read"),
        (header(b"X"), "a kind that is not read"),
    ],
)
def test_hostile_tars(content, message):
    with pytest.raises(tarfile.TarError, match=message):
        walked(content)


@settings(max_examples=200)
@given(
    st.binary(max_size=100),
    st.sampled_from([b"0", b"L", b"x", b"K", b"g", b"5"]),
    st.integers(-2, 2000),
    st.binary(max_size=1200),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=3),
)
def test_any_header_is_read_or_told(name, kind, size, content, changes):
    info = header(kind, size, content, name.decode("utf-8", "surrogateescape"))
    whole = bytearray(info + header(name="b") + bytes(1024))
    for place, value in changes:
        whole[place % len(whole)] = value
    try:
        walked(bytes(whole))
    except tarfile.TarError as error:
        assert "\n" not in str(error)
