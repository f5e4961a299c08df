import re
from dataclasses import replace
from itertools import combinations
from math import dist
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from samples_in_memory import truth_of

from atrous.data.sample import Sample
from atrous.evaluation.compare import Comparison, ModelResult, scenes
from atrous.evaluation.cost import Cost
from atrous.evaluation.evaluate import Source, Truth, evaluate
from atrous.evaluation.score import predict_samples
from atrous.evaluation.timing import Speed
from atrous.report.chart import BOTTOM, LEFT, RADIUS, RIGHT, TOP, WIDTH, chart, marks
from atrous.report.compare_page import write_page
from atrous.taxonomy import Taxonomy

STRANGE = "<img src=x onerror=alert(1)>"
TAXONOMY = Taxonomy(name="x", classes=("a", STRANGE), colors=((255, 0, 0), (0, 0, 255)))


def result(name: str, truth: Truth, wrong: int) -> ModelResult:
    """A model that gets `wrong` rows of each image wrong."""
    images = predict_samples(predict(wrong), truth.samples, truth.indices)
    speeds = {"onnxruntime": Speed(0.1 * wrong + 0.1, 50_000_000)} if wrong < 3 else {}
    return ModelResult(
        name=name,
        evaluation=evaluate(Source(f"{name} (fp32, torch)", images), truth, boundary=True),
        cost=Cost(1_500_000, 10**9 * (1 + wrong)),
        speeds=speeds,
    )


def predict(wrong: int):
    def labels(image: np.ndarray) -> np.ndarray:
        seen = image[:, :, 0] // 255
        seen[:wrong] = 1 - seen[:wrong]
        return seen

    return labels


def written(path: Path, timed: bool) -> str:
    """Write the page of four models, the last of which no runtime runs; return it."""
    label = np.zeros((40, 60), np.uint8)
    label[:, 30:] = 1
    image = np.stack([255 * label] * 3, 2)
    samples = [Sample(image, np.roll(label, n, 0), f"{STRANGE}{n}") for n in range(7)]
    truth = truth_of(TAXONOMY, samples, missing=3)
    models = [result(name, truth, n) for n, name in enumerate(["best", STRANGE, "c", "last"])]
    if not timed:
        models = [replace(model, speeds={}) for model in models]
    comparison = Comparison(
        size=(40, 60),
        machine={"processor": "any", "threads": 1},
        unavailable={"openvino": "not installed"} if timed else {},
        models=models,
    )
    by_name = {model.name: predict(n) for n, model in enumerate(models)}
    write_page(path, comparison, scenes(comparison, by_name, samples))
    return path.read_text("utf-8")


@pytest.fixture
def page(tmp_path: Path) -> tuple[str, Page]:
    text = written(tmp_path / "page.html", timed=True)
    return text, Page(text)


def test_a_page_is_one_file_that_loads_nothing(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert parsed.sources and all(s.startswith("data:image/jpeg;base64,") for s in parsed.sources)
    assert not {"script", "link", "iframe"} & {*parsed.tags}
    assert not re.search(r"url\(|@import|https?://", text)
    assert STRANGE in parsed.text and STRANGE not in text
    # two of seven images lie five apart: photo, truth, differences and four models for each
    assert parsed.tags.count("img") == 2 * (3 + 4)
    for part in (
        "best",
        "1.50 M",
        "4.00 G",
        "200.0 ms",
        "50 MB",
        "openvino: not installed",
        "6 pairs",
    ):
        assert part in parsed.text


def test_the_scores_say_in_which_runtime(page: tuple[str, Page]) -> None:
    scores = page[0].partition("<h2>Scores</h2>")[2].partition("<h2>")[0]
    assert scores.count("(fp32, torch)") == 4
    assert "<dd>best: best (fp32, torch)</dd>" in scores


def test_costs_name_only_what_is_shown(page: tuple[str, Page], tmp_path: Path) -> None:
    untimed = written(tmp_path / "untimed.html", timed=False)
    assert "One image of 60x40: parameters and multiply-adds.</p>" in untimed
    assert "peak memory" not in untimed and "thread." not in untimed
    assert "peak memory of a process that does nothing else. any, 1 thread.</p>" in page[0]


def test_each_chart_shows_the_models_that_were_measured(page: tuple[str, Page]) -> None:
    text, _ = page
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert [each.count("<circle") for each in charts] == [4, 3]
    assert "nan" not in "".join(charts).lower()


def test_points_stand_between_their_marks() -> None:
    drawn = chart("x", [5.0, 20.0], [(50.0, 40.0, 60.0), (70.0, np.nan, np.nan)])
    assert [text for _, text in drawn.columns] == ["0", "5", "10", "15", "20"]
    assert [text for _, text in drawn.rows] == ["40", "50", "60", "70"]
    first, second = drawn.points
    assert (first.x, second.x) == (LEFT + (RIGHT - LEFT) / 4, RIGHT)
    assert (first.low, second.y, second.low, second.high) == (BOTTOM, TOP, TOP, TOP)
    assert first.y == pytest.approx(BOTTOM - (BOTTOM - TOP) / 3, abs=0.06)


@pytest.mark.parametrize("x", [[5.0] * 8, [20.0] * 8, [0.0] * 3, [4.9, 5.0, 5.1, 20.0]])
def test_no_number_covers_another(x: list[float]) -> None:
    drawn = chart("x", [*x, 10.0], [(50.0 + i / 100, 40.0, 60.0) for i in range(len(x) + 1)])
    discs = [(point.disc, point.y) for point in drawn.points]
    assert all(dist(one, other) > 2 * RADIUS - 0.2 for one, other in combinations(discs, 2))
    assert all(RADIUS <= disc <= WIDTH - RADIUS for disc, _ in discs)
    assert drawn.points[0].disc == drawn.points[0].x


def test_a_chart_without_points_is_empty() -> None:
    assert not chart("x", [np.nan], [(50.0, 40.0, 60.0)]).points
    assert marks([3.0, 3.0])[0] <= 3 <= marks([3.0, 3.0])[-1]
