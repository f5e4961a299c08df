"""A checkpoint of another project in, a run folder of atrous out; strict in names and shapes."""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atrous.doctor.labels.values import is_background
from atrous.errors import InputError
from atrous.models.catalogue import build
from atrous.run import ImportReport, Normalization, Run, RunData, has_run, save_weights
from atrous.taxonomy import Taxonomy
from atrous.weights.importers.checkpoint import Checkpoint, read_checkpoint
from atrous.weights.importers.detection import LAYOUTS, Found, find_network
from atrous.weights.importers.hub_config import file_of, options_beside
from atrous.weights.importers.layout import Match, State, begins, place_of
from atrous.weights.importers.sigmoid import with_background


@dataclass(frozen=True, kw_only=True, eq=False)
class Imported:
    """A network of atrous with another project's weights."""

    layout: str
    options: dict[str, Any]
    """All arguments of `build`, defaults as well."""
    network: nn.Module
    threshold: float
    """Of the sigmoid that a network with one output is read by."""
    taken: str
    """Which tensors of the file these are, in words."""
    left_over: tuple[str, ...]
    """Their names of the tensors that the network has no use for."""
    others: tuple[str, ...]
    """Where the file holds other weights, which were not taken."""
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
        path: a .pth, .pt, .ckpt or .safetensors file, or a folder of save_pretrained.
        layout: one of `LAYOUTS`; by default the one whose marks the file has.
        output_stride: what the network was trained at, if not at the project's default.
        backbone: timm's name of it, where several have the same tensors: a "tf_" network pads
            otherwise than its namesake, which no weight tells.

    Raises:
        InputError: the file cannot be read, is of no known layout, or does not fit; the line names
            every tensor that found no place, got nothing or has another shape.
    """
    path = file_of(Path(path))
    checkpoint = read_checkpoint(path)
    beside = options_beside(path)
    inner = f"{path}: {checkpoint.key}" if checkpoint.key else f"{path}"
    try:
        found = find_network(checkpoint.state, layout)
        match = _recognised(found, output_stride or beside.output_stride)
        backbone = backbone or beside.backbone
        options = _whole(match.options | ({"backbone": backbone} if backbone else {}))
        with torch.device("meta"):  # nothing is drawn that is replaced at once
            network = build(**options)
        dropped = load_strictly(network, match)
    except InputError as error:
        raise InputError(f"{inner}: {error}") from None
    mean, std = _normalization(found, match)
    return Imported(
        layout=found.layout,
        options=options,
        network=network.eval(),
        threshold=match.threshold,
        taken=_taken(checkpoint, found),
        left_over=(*dropped, *found.left_over),
        others=checkpoint.others,
        mean=mean,
        std=std,
    )


def _taken(checkpoint: Checkpoint, found: Found) -> str:
    """Say which tensors of a file were taken."""
    words = [f"{len(found.state)} tensors"]
    words += [f"of {checkpoint.key}"] if checkpoint.key else []
    words += [f"named {found.prefix}*"] if found.prefix else []
    is_averaged = found.averaged or checkpoint.averaged
    return " ".join(words) + (", averaged weights" if is_averaged else "")


def _normalization(found: Found, match: Match) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of RGB in 0..1: those that the file holds, or the layout's."""
    own = {}
    for name, tensor in found.left_over.items():
        if name.rpartition(".")[2] in ("mean", "std") and tensor.numel() == 3:
            own[name.rpartition(".")[2]] = tensor.double().flatten()
    if own.keys() != {"mean", "std"} or own["std"].min() <= 0:
        return match.mean, match.std
    scale = 255 if own["mean"].max() > 1 else 1  # of 0..255
    return tuple((own["mean"] / scale).tolist()), tuple((own["std"] / scale).tolist())


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


def _recognised(found: Found, output_stride: int | None) -> Match:
    module, function = LAYOUTS[found.layout].match.split(":")
    try:
        match: Match = getattr(importlib.import_module(module), function)(
            found.state, output_stride
        )
    except KeyError as error:
        raise InputError(f"not of layout {found.layout}: it has no {error}") from None
    except (IndexError, TypeError, RuntimeError):  # a vector for a convolution, say
        raise InputError(f"not of layout {found.layout}: its tensors have other shapes") from None
    return match


def _whole(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of `build`, in its order: those of `options`, the others' defaults."""
    arguments = inspect.signature(build).bind(**options)
    arguments.apply_defaults()
    return dict(arguments.arguments)


def write_run(imported: Imported, taxonomy: Taxonomy, out: Path, about: RunData) -> None:
    """Write a run folder.

    Args:
        imported: the network; one output becomes the second of two classes.
        taxonomy: what its classes are; it must have as many.
        out: the folder; it must not hold a run yet.
        about: the data that the weights were trained on.

    Raises:
        InputError: the classes do not fit, or the folder holds a run already.
        OSError: the disk is full.
    """
    try:
        _check_classes(imported.options["num_classes"], taxonomy)
    except InputError as error:
        raise InputError(f"{about.source}: {error}") from None
    if has_run(out):
        raise InputError(f"{out}: holds a run already; give another --out")
    network, options = imported.network, imported.options
    has_one_output = options["num_classes"] == 1
    if has_one_output:
        network, options = with_background(network, options, imported.threshold)
    save_weights(out, network)
    run = Run(
        model=options,
        normalization=Normalization(mean=imported.mean, std=imported.std),
        taxonomy=taxonomy,
        data=about,
        layout=imported.layout,
        imported=ImportReport(
            taken=imported.taken,
            left_over=list(imported.left_over),
            others=list(imported.others),
            threshold=imported.threshold if has_one_output else None,
        ),
    )
    run.write(out)


def _check_classes(outputs: int, taxonomy: Taxonomy) -> None:
    """Refuse a taxonomy of other classes than the outputs of a network.

    Raises:
        InputError: with what to do.
    """
    names = taxonomy.classes
    if outputs == 1 and len(names) == 1:
        raise InputError(
            f"the checkpoint has one output, read by a sigmoid, which tells two classes apart; "
            f'{taxonomy.name} has one: list "background" before "{names[0]}" in its classes'
        )
    if outputs == 1 and len(names) == 2 and is_background(names[1]) and not is_background(names[0]):
        raise InputError(
            f"the one output of the checkpoint is for the second class, which in {taxonomy.name} "
            f'is "{names[1]}"; list it before "{names[0]}"'
        )
    if outputs != len(names) and not (outputs == 1 and len(names) == 2):
        has = "one output, for two classes" if outputs == 1 else f"{outputs} classes"
        raise InputError(
            f"the checkpoint has {has}, {taxonomy.name} has {len(names)}; "
            "name the data that it was trained on with --data"
        )
