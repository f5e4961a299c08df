"""Tables of scores fit into 80 columns, whatever the names."""

from unicodedata import east_asian_width

import numpy as np
import pytest

from atrous.metrics import PanopticQuality
from atrous.report.scores import panoptic_text, score_table
from atrous.text import amount


def columns_of(text: str) -> int:
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


@pytest.mark.parametrize("name", ["", "cat", "x" * 99, "道路標識" * 20, "x" + "猫" * 20])
@pytest.mark.parametrize("count", [1, 4])
def test_rows_fit_and_their_columns_are_aligned(name: str, count: int) -> None:
    columns = {f"s{i}": np.array([1.0, 0.5, np.nan]) for i in range(count)}
    header, *rows = score_table([name, "dog", "sky"], columns).splitlines()
    assert max(map(columns_of, [header, *rows])) <= 80
    ends = {columns_of(row.rstrip("█ ")) for row in rows}  # of the last number
    assert ends == {columns_of(header)}
    assert rows[0].endswith("█") and rows[2].endswith("-")


def test_of_many_classes_the_best_and_the_worst_are_shown() -> None:
    scores = np.linspace(1, 0, 50)
    scores[7] = np.nan
    _, *rows = score_table([str(i) for i in range(50)], {"PQ": scores}).splitlines()
    shown = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, "...", *range(40, 50)]
    assert [row.split()[0] for row in rows] == [str(k) for k in shown]


def test_panoptic_scores_are_sorted_and_fit() -> None:
    names = {1: "cat", 3: "x" * 60, 7: "dog", 90: "sky", 200: "road"}
    categories = [{"id": i, "name": name, "isthing": i < 90} for i, name in names.items()]
    quality = PanopticQuality(categories)
    thing, sky = {"id": 1, "category_id": 3}, {"id": 2, "category_id": 90}
    quality.update((np.array([[1, 1, 1, 2]]), [thing, sky]), (np.array([[1, 1, 1, 1]]), [thing]))
    lines = panoptic_text(quality.scores(), 1).splitlines()
    assert lines[0].startswith("1 image, 5 categories, ")
    assert lines[1] == "  all     PQ  37.5   SQ  37.5   RQ  50.0   of 2 that occur"
    assert lines[2] == "  things  PQ  75.0   SQ  75.0   RQ 100.0   of 1 that occur"
    assert lines[4].split() == ["PQ", "SQ", "RQ"]
    assert [line.split()[0] for line in lines[5:7]] == ["x" * 36, "sky"]
    assert lines[7].split()[1:] == ["-", "-", "-"]  # neither in truth nor in prediction
    assert max(map(len, lines)) <= 80


def test_one_of_a_thing_is_no_plural() -> None:
    assert [amount(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [amount(n, "image") for n in (0, 1)] == ["0 images", "1 image"]
