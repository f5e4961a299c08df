"""The page of a comparison: tables, charts and pictures, in one file."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from atrous.evaluation.compare import Comparison, Scene
from atrous.evaluation.score import Labels
from atrous.files import write_text
from atrous.images.photos import shown
from atrous.metrics.interval import SIGNIFICANT
from atrous.metrics.protocols import PROTOCOLS
from atrous.report import page
from atrous.report.chart import RADIUS, Chart, chart
from atrous.report.comparison import (
    TESTED_NAMES,
    cost_columns,
    difference_columns,
    model_table,
    score_columns,
    sentence,
)
from atrous.report.page import css_color, data_uri
from atrous.report.tables import row_color
from atrous.text import amount, percent

_PICTURE = (320, 320)
"""(width, height) that a picture is fitted into."""
_MARK = (255, 0, 200)
_DARKER = 0.4


def write_page(path: Path, comparison: Comparison, scenes: Iterable[Scene]) -> None:
    """Write the page of a comparison; one of `scenes` is in memory at a time."""
    taxonomy = comparison.truth.dataset.taxonomy
    values = {
        "comparison": comparison,
        "truth": comparison.truth,
        "meaning": PROTOCOLS[comparison.protocol],
        "significant": SIGNIFICANT,
        "threads": amount(comparison.machine["threads"], "thread"),
        "scores": model_table(comparison, score_columns(comparison)).to_html(),
        "costs": model_table(comparison, cost_columns(comparison)).to_html(),
        "differences": [
            (name, model_table(comparison, difference_columns(comparison, score)).to_html())
            for score, name in TESTED_NAMES.items()
        ],
        "pairs": list(map(sentence, comparison.pairs)),
        "charts": _charts(comparison),
        "radius": RADIUS,
        "classes": _classes(comparison),
        "colors": [row_color(number) for number in range(1, len(comparison.models) + 1)],
        "legend": [
            (name, css_color(color))
            for name, color in zip(taxonomy.classes, taxonomy.colors, strict=True)
        ],
        "scenes": [(scene.sample.key, _pictures(scene, comparison)) for scene in scenes],
    }
    write_text(path, page.render("compare.html", values))


def _charts(comparison: Comparison) -> list[Chart]:
    """Return charts of accuracy over each cost: multiply-adds, and time in each runtime."""
    models = comparison.models
    ends = [(m.scores.miou, *m.evaluation.intervals["miou"]) for m in models]
    heights = [(100 * middle, 100 * low, 100 * high) for middle, low, high in ends]
    costs = {"multiply-adds, G": [m.cost.multiply_adds / 1e9 for m in models]}
    for runtime in comparison.runtimes:
        speeds = [m.speeds.get(runtime) for m in models]
        costs[f"{runtime}, ms"] = [1e3 * s.seconds if s else np.nan for s in speeds]
    return [chart(title, values, heights) for title, values in costs.items()]


def _classes(comparison: Comparison) -> list[tuple[str, str, list[str]]]:
    """Return name, colour and IoU in percent by each model, of each class, best first."""
    taxonomy = comparison.truth.dataset.taxonomy
    iou = np.stack([model.scores.iou for model in comparison.models])  # (models, K)
    order = np.argsort(-np.nan_to_num(iou[0], nan=-1.0), kind="stable").tolist()
    return [
        (
            taxonomy.classes[k],
            css_color(taxonomy.colors[k]),
            [percent(value).strip() for value in iou[:, k]],
        )
        for k in order
    ]


def _pictures(scene: Scene, comparison: Comparison) -> list[tuple[str, str]]:
    """Return captions and data URIs: photo, truth, differences, and each prediction."""
    photo = Image.fromarray(shown(scene.sample.image))
    photo.thumbnail(_PICTURE)
    taxonomy = comparison.truth.dataset.taxonomy
    predictions = zip(comparison.models, scene.mious, scene.predictions, strict=True)
    pictures = {
        "photo": photo,
        "truth": page.overlay(photo, scene.sample.label, taxonomy),
        "where they differ": _marked(photo, scene.predictions),
    }
    for i, (model, miou, labels) in enumerate(predictions, start=1):
        caption = f"{i}  {percent(miou).strip()}  {model.name}"
        pictures[caption] = page.overlay(photo, labels, taxonomy)
    return [(caption, data_uri(picture)) for caption, picture in pictures.items()]


def _marked(photo: Image.Image, predictions: Sequence[Labels]) -> Image.Image:
    """Return the photo in dark grey; pixels that models label differently are marked."""
    differ = np.any([labels != predictions[0] for labels in predictions[1:]], axis=0)  # (H, W)
    share = Image.fromarray(255 * differ.astype(np.uint8)).resize(photo.size, Image.Resampling.BOX)
    dark = photo.convert("L").point(lambda value: _DARKER * value).convert("RGB")
    dark.paste(_MARK, mask=share)
    return dark
