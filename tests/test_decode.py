"""JSON and tables into structs: what fits, and the one line that says what does not."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.decode import convert, decode_json, read_json
from atrous.errors import InputError
from atrous.taxonomy import Taxonomy


class Point(msgspec.Struct, frozen=True, kw_only=True):
    count: Annotated[int, msgspec.Meta(ge=1)]
    places: tuple[float, ...] = ()


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    points: list[Point]


def test_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "line.json"
    path.write_text('{"points": [{"count": 2, "places": [0.5, 1], "else": null}]}')
    assert read_json(path, Line) == Line(points=[Point(count=2, places=(0.5, 1.0))])


@pytest.mark.parametrize("text", ['\ufeff{"count": 3}', '{"count": 3, "area": NaN}'])
def test_reads_what_python_reads(text: str) -> None:
    assert decode_json(text.encode(), Point, "a.json") == Point(count=3)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"points": [{"count": "2"}]}', "points[0].count: expected int, got str; fix it"),
        (b'{"points": [{"count": 0}]}', "points[0].count: expected int >= 1; fix it"),
        (b'{"points": [{"count": true}]}', "points[0].count: expected int, got bool; fix it"),
        (b'{"points": [{"count": 1.5}]}', "points[0].count: expected int, got float; fix it"),
        (b'{"points": [], "x\\ny": 1}', r"unknown 'x\ny'. There are: points"),
        (b"[]", "expected object, got array; fix it"),
        (b"{}", "points is missing; fix it"),
        (b'{"points": [', "not JSON (Expecting value: line 1 column 13 (char 12)); fix it"),
        (b'{"points": [], "\xff": 1}', "not UTF-8 text (byte 0xff at 16); "),
        (b"\xff", "not UTF-8 text (byte 0xff at 0); "),
        (b"[" * 100_000, "expected object, got array; fix it"),
        (b"NaN" + b"[" * 100_000, "not JSON (Extra data: line 1 column 4 (char 3)); fix it"),
        (b'{"points": [' + b'{"count": 1, "x": ' + b"[" * 100_000, "nested too deeply; fix it"),
        (b'{"points": ' + b"1" * 10_000 + b"}", "points: number out of range; fix it"),
    ],
)
def test_refuses_in_one_line(content: bytes, line: str) -> None:
    with pytest.raises(InputError) as caught:
        decode_json(content, Line, "a.json", "fix it")
    assert str(caught.value).startswith(f"a.json: {line}")
    assert "\n" not in str(caught.value)


def test_refuses_half_of_a_surrogate_pair() -> None:
    with pytest.raises(
        InputError, match=r"^a\.json: holds half of a surrogate pair, no text; fix it$"
    ):
        decode_json(b'"\\ud800"', list[str], "a.json", "fix it")


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "points.json").touch()
    with pytest.raises(InputError, match=r"no such file. Did you mean .*points\.json"):
        read_json(tmp_path / "point.json", Line)


def test_converts_tables() -> None:
    assert convert({"count": 1}, Point, "a.toml", "") == Point(count=1)
    with pytest.raises(InputError, match=r"^a\.toml: count: expected int >= 1; say more$"):
        convert({"count": -1}, Point, "a.toml", "say more")


def test_keeps_what_a_type_says_itself() -> None:
    table = {"name": "x", "classes": ["a", "a"], "colors": [[0, 0, 0]] * 2}
    with pytest.raises(InputError, match=r"^a\.toml: x: the class 'a' is named twice; give each"):
        convert(table, Taxonomy, "a.toml", "say more")


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    try:
        decode_json(content, Line, "a.json")
    except InputError as error:
        assert str(error).startswith("a.json: ") and "\n" not in str(error)
