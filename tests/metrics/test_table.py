"""Tables fit into 80 columns, whatever the names."""

from unicodedata import east_asian_width

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.metrics.table import class_table, fit
from atrous.text import amount


def columns_of(text: str) -> int:
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


@pytest.mark.parametrize("name", ["", "cat", "x" * 99, "道路標識" * 20, "x" + "猫" * 20])
@pytest.mark.parametrize("count", [1, 4])
def test_rows_fit_and_their_columns_are_aligned(name, count):
    columns = {f"s{i}": np.array([1.0, 0.5, np.nan]) for i in range(count)}
    header, *rows = class_table([name, "dog", "sky"], columns)
    assert max(map(columns_of, [header, *rows])) <= 80
    ends = {columns_of(row.rstrip("█ ")) for row in rows}  # of the last number
    assert ends == {columns_of(header)}
    assert rows[0].endswith("█") and rows[2].endswith("-")


def test_of_many_classes_the_best_and_the_worst_are_shown():
    scores = np.linspace(1, 0, 50)
    scores[7] = np.nan
    _, *rows = class_table([str(i) for i in range(50)], {"PQ": scores})
    shown = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, "...", *range(40, 50)]
    assert [row.split()[0] for row in rows] == [str(k) for k in shown]


@given(st.text(alphabet="a猫", max_size=30), st.integers(1, 12))
def test_a_name_takes_as_many_columns_as_it_is_given(name, width):
    fitted = fit(name, width)
    assert columns_of(fitted) == width
    assert name.endswith(fitted.rstrip())


def test_one_of_a_thing_is_no_plural():
    assert [amount(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [amount(n, "image") for n in (0, 1)] == ["0 images", "1 image"]
