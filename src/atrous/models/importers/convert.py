"""A checkpoint of another project in, a run folder of atrous out; strict in names and shapes."""

import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from atrous.files import InputError, replacing
from atrous.models.catalogue import build
from atrous.models.importers.checkpoint import read_checkpoint
from atrous.models.importers.layout import Match, State, begins, place_of
from atrous.taxonomy import Taxonomy


class Entry(NamedTuple):
    """Where a layout is, and how its checkpoints are known."""

    match: str
    """MODULE:FUNCTION"""
    marks: tuple[str, ...]
    """Names, or whole parts that names begin with: a checkpoint that has them all is of it."""


LAYOUTS = {
    "torchvision": Entry("atrous.models.importers.torchvision:match", ("classifier.4.weight",)),
    "smp": Entry("atrous.models.importers.smp:match", ("segmentation_head.0.weight",)),
    "kazuto1011": Entry("atrous.models.importers.kazuto:match", ("base.layer1", "base.aspp")),
    "vainf": Entry("atrous.models.importers.vainf:match", ("backbone", "classifier.classifier")),
    "mmseg": Entry("atrous.models.importers.mmseg:match", ("backbone", "decode_head.conv_seg")),
}
"""By the name that `atrous convert --layout` takes."""

CLASSIFIERS = ("fc", "classifier", "head")
"""Beginnings of the names of the last layers, which are matrices, of ImageNet's classifiers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Imported:
    """A network of atrous with another project's weights."""

    layout: str
    options: dict[str, Any]
    """All arguments of `build`, defaults as well."""
    network: nn.Module
    dropped: tuple[str, ...]
    """Their names of the tensors that the network has no use for."""
    mean: tuple[float, ...]
    """Of RGB in 0..1."""
    std: tuple[float, ...]


def import_weights(
    path: Path | str,
    layout: str | None = None,
    output_stride: int | None = None,
    backbone: str | None = None,
) -> Imported:
    """Build the network that a checkpoint is of, and load all of it.

    Args:
        path: a .pth, .pt or .safetensors file.
        layout: one of `LAYOUTS`; by default the one whose marks the file has.
        output_stride: what the network was trained at, if not at the project's default.
        backbone: timm's name of it, where several have the same tensors: a "tf_" network pads
            otherwise than its namesake, which no weight tells.

    Raises:
        InputError: the file cannot be read, is of no known layout, or does not fit; the line names
            every tensor that found no place, got nothing or has another shape.
    """
    path = Path(path)
    state = read_checkpoint(path)
    try:
        layout = layout or detect(state)
        match = _recognised(state, layout, output_stride)
        options = _whole(match.options | ({"backbone": backbone} if backbone else {}))
        with torch.device("meta"):  # nothing is drawn that is replaced at once
            network = build(**options)
        dropped = load_strictly(network, match)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Imported(
        layout=layout,
        options=options,
        network=network.eval(),
        dropped=dropped,
        mean=match.mean,
        std=match.std,
    )


def detect(state: State) -> str:
    """Return the name of the layout that `state` is of.

    Raises:
        InputError: of none; the line says what was looked for.
    """
    for name, entry in LAYOUTS.items():
        if all(any(begins(key, (mark,)) for key in state) for mark in entry.marks):
            return name
    if any(begins(key, CLASSIFIERS) and tensor.ndim == 2 for key, tensor in state.items()):
        raise InputError(
            "a classifier's weights, not a segmentation network's; to train from them: "
            "atrous train --backbone NAME --backbone-weights FILE"
        )
    looked = "; ".join(f"{name}: {' and '.join(entry.marks)}" for name, entry in LAYOUTS.items())
    raise InputError(f"of no known layout; its names should begin with ({looked})")


def load_strictly(network: nn.Module, match: Match) -> tuple[str, ...]:
    """Copy the tensors of `match` into `network`, and return the names of those dropped.

    Counters of batches (num_batches_tracked) may be missing; files older than they are have none.
    The network may be without data, on the meta device.

    Raises:
        InputError: not all of them fit; the line names every tensor that does not.
    """
    dropped = tuple(name for name in match.state if begins(name, match.dropped))
    theirs = {name: tensor for name, tensor in match.state.items() if name not in dropped}
    places = {name: place_of(name, match.places) for name in theirs}
    ours = network.state_dict()
    faults = _faults(theirs, places, ours)
    if faults:
        raise InputError(f"does not fit {match.options['name']}: {'; '.join(faults)}")
    tensors = {places[name]: tensor for name, tensor in theirs.items()}
    network.load_state_dict(
        {
            our: tensors.get(our, torch.zeros(())).to(like.dtype, copy=True).contiguous()
            for our, like in ours.items()
        },
        assign=True,
    )
    return dropped


def _faults(theirs: State, places: Mapping[str, str], ours: State) -> list[str]:
    """Return what does not fit, each kind with all its names; empty if everything does."""
    unplaced = [name for name, place in places.items() if place not in ours]
    needed = {name for name in ours if not name.endswith("num_batches_tracked")}
    empty = sorted(needed - set(places.values()))
    misshapen = [
        f"{name} {_size(theirs[name])} for {_size(ours[place])}"
        for name, place in places.items()
        if place in ours and theirs[name].shape != ours[place].shape
    ]
    whole = [
        name
        for name, place in places.items()
        if place in ours
        and ours[place].is_floating_point()
        and not theirs[name].is_floating_point()
    ]
    by_place: dict[str, list[str]] = {}
    for name, place in places.items():
        if place in ours:
            by_place.setdefault(place, []).append(name)
    twice = [f"{a} and {b}" for a, *others in by_place.values() for b in others]
    kinds = {
        "no place for": unplaced,
        "nothing for": empty,
        "another shape:": misshapen,
        "whole numbers:": whole,
        "one place for": twice,
    }
    return [f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names]


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _recognised(state: State, layout: str, output_stride: int | None) -> Match:
    if layout not in LAYOUTS:
        raise InputError(f"--layout {layout}: no such layout. There are: {', '.join(LAYOUTS)}")
    module, function = LAYOUTS[layout].match.split(":")
    try:
        match: Match = getattr(importlib.import_module(module), function)(state, output_stride)
    except KeyError as error:
        raise InputError(f"not of layout {layout}: it has no {error}") from None
    except (IndexError, TypeError, RuntimeError):  # a vector for a convolution, say
        raise InputError(f"not of layout {layout}: its tensors have other shapes") from None
    return match


def _whole(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of `build`, in its order: those of `options`, the others' defaults."""
    arguments = inspect.signature(build).bind(**options)
    arguments.apply_defaults()
    return dict(arguments.arguments)


def write_run(imported: Imported, taxonomy: Taxonomy, out: Path, about: Mapping[str, Any]) -> None:
    """Write a run folder: best.safetensors, then run.json, without which it is none.

    Args:
        imported: the network.
        taxonomy: what its classes are; it must have as many.
        out: the folder; it must not hold a run yet.
        about: the content of run.json's "data": name, licence and source of what the weights were
            trained on.

    Raises:
        InputError: the classes do not fit, or the folder holds a run already.
        OSError: the disk is full.
    """
    classes = imported.options["num_classes"]
    if classes != taxonomy.num_classes:
        raise InputError(
            f"the checkpoint has {classes} classes, {taxonomy.name} has {taxonomy.num_classes}; "
            "name the data that it was trained on with --data"
        )
    if (out / "run.json").exists():
        raise InputError(f"{out}: holds a run already; give another --out")
    description = {
        "format": 1,
        "model": imported.options,
        "normalization": {"mean": list(imported.mean), "std": list(imported.std)},
        "taxonomy": taxonomy.to_dict(),
        "data": dict(about),
        "layout": imported.layout,
    }
    weights = {name: tensor.contiguous() for name, tensor in imported.network.state_dict().items()}
    with replacing(out / "best.safetensors") as temporary:
        temporary.write_bytes(save(weights))
    with replacing(out / "run.json") as temporary:
        temporary.write_text(json.dumps(description, indent=2) + "\n", "utf-8")
