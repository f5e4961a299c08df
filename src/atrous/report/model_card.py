"""The model card of a bundle: the README.md of its repository on the hub."""

import math
import re
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from atrous.infer.bundle import BundleMetadata
from atrous.metrics.protocols import PROTOCOLS
from atrous.report.page import render
from atrous.taxonomy import Taxonomy
from atrous.text import bytes_text, percent, percent_range, percent_share

_MEANS = {"miou": "mIoU", "fwiou": "fwIoU", "macc": "mAcc", "pacc": "pAcc"}
_KNOWN = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0")
"""Licences by the hub's names."""


def model_card(metadata: BundleMetadata, repository: str, size: int, picture: str) -> str:
    """Return the card as Markdown, with the head in YAML that the hub reads.

    Args:
        metadata: of the bundle.
        repository: OWNER/NAME.
        size: bytes of the bundle.
        picture: what example.jpg shows.
    """
    scores, name = metadata.scores, repository.partition("/")[2]
    shown = {key: mean for key, mean in _MEANS.items() if key in scores}
    means = [(mean, _percent(scores[key]), _ends(scores, key)) for key, mean in shown.items()]
    classes = [(key.replace("|", "/"), _percent(iou)) for key, iou in scores.get("iou", {}).items()]
    text = render(
        "model_card.md.jinja",
        {
            "head": _HEAD,
            "name": name,
            "repository": repository,
            "metadata": metadata,
            "num_classes": metadata.taxonomy.num_classes,
            "size": bytes_text(size),
            "picture": picture,
            "scores": scores,
            "means": means,
            "protocol": PROTOCOLS.get(scores.get("protocol", ""), "as its name says"),
            "reference": _percent(scores.get("torch_fp32", {}).get("miou")),
            "agreement": percent_share(scores.get("agreement") or math.nan),
            "classes": classes,
        },
    )
    return text.replace(_HEAD, _head(metadata, name), 1)


def swatches(taxonomy: Taxonomy) -> Image.Image:
    """Draw the names of the classes beside their colours, in columns."""
    font = ImageFont.load_default(_STEP * 0.6)
    width = 2 * _STEP + math.ceil(max(map(font.getlength, taxonomy.classes)))
    columns = math.ceil(taxonomy.num_classes / _ROWS)
    rows = min(_ROWS, taxonomy.num_classes)
    picture = Image.new("RGB", (columns * width, rows * _STEP), "white")
    draw = ImageDraw.Draw(picture)
    for k, (name, color) in enumerate(zip(taxonomy.classes, taxonomy.colors, strict=True)):
        x, y = k // _ROWS * width, k % _ROWS * _STEP
        draw.rectangle((x + 4, y + 4, x + _STEP - 4, y + _STEP - 4), fill=color)
        draw.text((x + _STEP + 4, y + _STEP / 2), name, "black", font, anchor="lm")
    return picture


_STEP = 24
"""Pixels from row to row of a picture of the classes."""
_ROWS = 20
_HEAD = "HEAD\n"
"""Stands for the head, in which nothing is escaped."""


def _head(metadata: BundleMetadata, name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    scores, licence = metadata.scores, metadata.licence.lower()
    data = str(scores.get("data") or metadata.taxonomy.name)
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=data,
            dataset_name=data,
            dataset_split=scores.get("split"),
            metric_type="mean_iou" if key == "miou" else key,
            metric_name=f"{mean} (protocol {scores.get('protocol')}, 0 to 1)",
            metric_value=scores[key],
        )
        for key, mean in _MEANS.items()
        if isinstance(scores.get(key), float)
    ]
    card = ModelCardData(
        license=licence if licence in _KNOWN else "other",
        license_name=None if licence in _KNOWN else metadata.licence,
        library_name="atrous",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "onnx"],
        datasets=[data] if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", data) else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"{card.to_yaml()}\n"


def _percent(value: float | None) -> str:
    return percent(math.nan if value is None else value).strip()


def _ends(scores: Mapping[str, Any], key: str) -> str:
    ends = scores.get("intervals", {}).get(key)
    return percent_range(*ends) if ends else "-"
