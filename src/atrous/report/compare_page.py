"""The page of `atrous compare`: tables, charts and pictures, in one file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from atrous.evaluation.compare import Scene, Weighed, Weighing
from atrous.evaluation.score import Labels
from atrous.files import replacing
from atrous.images.photos import shown
from atrous.metrics.interval import MEANS, SIGNIFICANT
from atrous.metrics.protocols import PROTOCOLS, percent
from atrous.metrics.table import between, signed
from atrous.report import page
from atrous.report.chart import Chart, chart
from atrous.report.page import css_color, data_uri
from atrous.text import amount

_PICTURE = (320, 320)
"""(width, height) that a picture is fitted into."""
_MARK = (255, 0, 200)
_DARKER = 0.4
_HEADINGS = ("mIoU", "fwIoU", "mAcc", "pAcc")


@dataclass(frozen=True)
class Cell:
    """Of a table."""

    text: str
    note: str = ""
    """Small, below."""
    kind: str = ""
    """How it is coloured: "better", "worse" or not at all."""


@dataclass(frozen=True)
class Row:
    """A model as the page shows it, in whatever table."""

    number: int
    name: str
    color: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Picture:
    """One of a scene."""

    caption: str
    image: str
    """As a data URI."""


def write_page(path: Path, weighing: Weighing, scenes: Iterable[Scene]) -> None:
    """Write the page of a comparison; `scenes` are taken one at a time.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(render(weighing, scenes), "utf-8", errors="replace")


def render(weighing: Weighing, scenes: Iterable[Scene]) -> str:
    """The page as HTML."""
    runtimes = list(dict.fromkeys(r for m in weighing.models for r in m.speeds))
    models, taxonomy = weighing.models, weighing.taxonomy
    values = {
        "weighing": weighing,
        "meaning": PROTOCOLS[weighing.protocol],
        "significant": SIGNIFICANT,
        "threads": amount(weighing.machine["threads"], "thread"),
        "scores": _rows(weighing, [_scores(model) for model in models]),
        "score_headings": [*_HEADINGS, "b-IoU", "b-F"],
        "costs": _rows(weighing, [_costs(model, runtimes) for model in models]),
        "cost_headings": ["parameters", "multiply-adds", *runtimes],
        "differences": _rows(weighing, [_differences(weighing, i) for i in range(len(models))]),
        "pairs": list(map(str, weighing.differences)),
        "charts": _charts(weighing, runtimes),
        "classes": _classes(weighing),
        "models": _rows(weighing, [[Cell(model.model)] for model in models]),
        "legend": [
            (name, css_color(color))
            for name, color in zip(taxonomy.classes, taxonomy.colors, strict=True)
        ],
        "scenes": [(scene.sample.key, _pictures(scene, weighing)) for scene in scenes],
    }
    return page.render("compare.html", values)


def _rows(weighing: Weighing, cells: Sequence[Sequence[Cell]]) -> list[Row]:
    return [
        Row(place + 1, model.name, _color(place), cells[place])
        for place, model in enumerate(weighing.models)
    ]


def _color(place: int) -> str:
    """A hue far from those of its neighbours: turned by the golden angle."""
    return f"hsl({137.5 * place % 360:.0f} 60% 42%)"


def _scores(model: Weighed) -> list[Cell]:
    means = [
        Cell(_percent(getattr(model.scores, name)), between(*model.intervals[name]))
        for name in MEANS
    ]
    return [*means, Cell(_percent(model.boundary.miou)), Cell(_percent(model.boundary.mf))]


def _percent(fraction: float) -> str:
    return percent(fraction).strip()


def _costs(model: Weighed, runtimes: Sequence[str]) -> list[Cell]:
    cells = [
        Cell(f"{model.cost.parameters / 1e6:.2f} M"),
        Cell(f"{model.cost.multiply_adds / 1e9:.2f} G"),
    ]
    for runtime in runtimes:
        speed = model.speeds.get(runtime)
        memory = f"{speed.memory / 1e6:.0f} MB" if speed and speed.memory else ""
        cells.append(Cell(f"{1e3 * speed.seconds:.1f} ms" if speed else "-", memory))
    return cells


def _differences(weighing: Weighing, row: int) -> list[Cell]:
    """The model `row` against each: how much better it is, in points."""
    names = [model.name for model in weighing.models]
    cells = [Cell("") for _ in names]
    for pair in weighing.differences:
        sides = [names.index(pair.first), names.index(pair.second)]
        if row in sides:
            difference = pair.comparison.difference * (1 if row == sides[0] else -1)
            kind = ("better" if difference > 0 else "worse") if pair.real else ""
            note = "" if np.isnan(pair.p_adjusted) else f"p {pair.p_adjusted:.2g}"
            other = sides[1] if row == sides[0] else sides[0]
            cells[other] = Cell(signed(difference), note, kind)
    return cells


def _charts(weighing: Weighing, runtimes: Sequence[str]) -> list[Chart]:
    """Accuracy over what it costs: multiply-adds, and time in each runtime."""
    models = weighing.models
    colors = [_color(place) for place in range(len(models))]
    ends = [(m.scores.miou, *m.intervals["miou"]) for m in models]
    heights = [(100 * middle, 100 * low, 100 * high) for middle, low, high in ends]
    costs = {"multiply-adds, G": [m.cost.multiply_adds / 1e9 for m in models]}
    for runtime in runtimes:
        speeds = [m.speeds.get(runtime) for m in models]
        costs[f"{runtime}, ms"] = [1e3 * s.seconds if s else np.nan for s in speeds]
    return [chart(title, colors, values, heights) for title, values in costs.items()]


def _classes(weighing: Weighing) -> list[tuple[str, str, list[Row]]]:
    """Each class, best first: its name, its colour, and the IoU of each model."""
    taxonomy = weighing.taxonomy
    best = weighing.models[0].scores.iou
    order = np.argsort(-np.nan_to_num(best, nan=-1.0), kind="stable").tolist()
    return [
        (
            taxonomy.classes[k],
            css_color(taxonomy.colors[k]),
            _rows(weighing, [[Cell(_percent(m.scores.iou[k]))] for m in weighing.models]),
        )
        for k in order
    ]


def _pictures(scene: Scene, weighing: Weighing) -> list[Picture]:
    """Photo, truth, where the models differ, and what each of them made of it."""
    photo = Image.fromarray(shown(scene.sample.image))
    photo.thumbnail(_PICTURE)
    taxonomy = weighing.taxonomy
    seen = [
        Picture(
            f"{i}  {_percent(miou)}  {model.name}",
            data_uri(page.overlay(photo, labels, taxonomy)),
        )
        for i, (model, miou, labels) in enumerate(
            zip(weighing.models, scene.mious, scene.predictions, strict=True), start=1
        )
    ]
    return [
        Picture("photo", data_uri(photo)),
        Picture("truth", data_uri(page.overlay(photo, scene.sample.label, taxonomy))),
        Picture("where they differ", data_uri(_marked(photo, scene.predictions))),
        *seen,
    ]


def _marked(photo: Image.Image, predictions: Sequence[Labels]) -> Image.Image:
    """The photo in dark grey, and over it the pixels that not all models label alike."""
    differ = np.any([labels != predictions[0] for labels in predictions[1:]], axis=0)  # (H, W)
    share = Image.fromarray(255 * differ.astype(np.uint8)).resize(photo.size, Image.Resampling.BOX)
    dark = photo.convert("L").point(lambda value: _DARKER * value).convert("RGB")
    dark.paste(_MARK, mask=share)
    return dark
