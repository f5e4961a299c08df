"""Tables as text fit into 80 columns, whatever the names; as HTML they escape all texts."""

from unicodedata import east_asian_width

import pytest
from html_page import Page
from hypothesis import given
from hypothesis import strategies as st

from atrous.report.tables import Cell, Table, fit, row_color

STRANGE = '<img src="x" onerror=alert(1)>'


def columns_of(text: str) -> int:
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


@pytest.mark.parametrize("name", ["", "cat", "x" * 99, "道路標識" * 20, "x" + "猫" * 20])
@pytest.mark.parametrize("count", [1, 4, 20])
def test_rows_fit_and_their_columns_are_aligned(name: str, count: int) -> None:
    columns = {f"s{i}": ["100.0", " 50.0", "    -"] for i in range(count)}
    lines = Table(names=[name, "dog", "sky"], columns=columns).to_text().splitlines()
    assert max(map(columns_of, lines)) <= 80
    assert len(lines) == 4 if count < 20 else len(lines) > 4
    for first in range(0, len(lines), 4):  # a block: headings, three rows
        assert len({columns_of(line) for line in lines[first : first + 4]}) == 1
    assert sum(line.count("100.0") for line in lines) == count


def test_names_and_texts_stand_to_the_left_and_numbers_to_the_right() -> None:
    columns = {"classes": ["11", "150"], "splits": ["train, val", "val"]}
    table = Table(names=["camvid", "ade"], columns=columns, heading="set", left=["splits"])
    assert table.to_text().splitlines() == [
        "  set     classes  splits",
        "  camvid       11  train, val",
        "  ade         150  val",
    ]


def test_numbered_rows_and_names_of_a_given_width() -> None:
    columns = {"ms": [Cell("1.0", note="50 MB", kind="better"), "20.0"]}
    table = Table(names=["a", "a long name"], columns=columns, numbered=True, name_width=6)
    assert table.to_text().splitlines() == [
        "               ms",
        "   1 a        1.0",
        "   2 g name  20.0",
    ]


def test_html_escapes_what_strangers_wrote() -> None:
    columns = {STRANGE: [Cell(STRANGE, note=STRANGE, kind="worse"), STRANGE]}
    html = Table(names=[STRANGE, "b"], columns=columns, numbered=True).to_html()
    assert STRANGE not in html and '<td class="worse">' in html
    page = Page(html)
    assert page.text.count(STRANGE) == 5
    assert page.tags.count("tr") == 3 and page.tags.count("th") == 2 and page.tags.count("td") == 4
    assert f"background: {row_color(2)}" in html


@given(st.text(alphabet="a猫", max_size=30), st.integers(1, 12))
def test_a_name_takes_as_many_columns_as_it_is_given(name: str, width: int) -> None:
    fitted = fit(name, width)
    assert columns_of(fitted) == width
    assert name.endswith(fitted.rstrip())
