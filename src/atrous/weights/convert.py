"""A checkpoint of another project in, a run folder of atrous out; strict in names and shapes."""

import importlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from atrous.doctor.labels.values import is_background
from atrous.errors import InputError
from atrous.models.create import create_model, options_of
from atrous.models.network import Network
from atrous.run import ImportReport, Normalization, Run, RunData, check_free, save_weights
from atrous.taxonomy import Taxonomy
from atrous.weights.importers.checkpoint import (
    Checkpoint,
    file_of,
    is_graph,
    options_beside,
    read_checkpoint,
)
from atrous.weights.importers.layouts import TENSORFLOW, Found, find_network
from atrous.weights.importers.places import Match, load_strictly

__all__ = ["Imported", "import_weights", "write_run"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Imported:
    """A network of atrous with another project's weights."""

    layout: str
    config: Network.Config
    num_classes: int
    """Outputs of the network; one is read by a sigmoid."""
    network: Network
    normalization: Normalization
    report: ImportReport

    @property
    def options(self) -> dict[str, Any]:
        """The network as run.json describes it."""
        return options_of(self.config, self.num_classes)


def import_weights(
    path: Path | str,
    layout: str | None = None,
    output_stride: int | None = None,
    backbone: str | None = None,
) -> Imported:
    """Build the network that a checkpoint is of, and load all of it.

    An error names every tensor that has no place, gets nothing or has another shape.

    Args:
        path: a .pth, .pt, .ckpt, .safetensors or .tflite file, or a folder of save_pretrained.
        layout: one of `LAYOUTS`, or `TENSORFLOW`; by default the one whose marks the file has.
        output_stride: that of the training, if not the project's default.
        backbone: timm's name of it, where several have the same tensors: a "tf_" network pads
            otherwise than its namesake, which no weight shows.
    """
    path = file_of(Path(path))
    if layout == TENSORFLOW or is_graph(path):
        return _import_graph(path, layout, output_stride, backbone)
    checkpoint = read_checkpoint(path)
    beside = options_beside(path)
    try:
        found = find_network(checkpoint.state, layout)
        match = _recognised(found, output_stride or beside.output_stride)
        config = match.config
        if name := backbone or beside.backbone:
            config = replace(config, backbone=replace(config.backbone, name=name))
        with torch.device("meta"):  # nothing is drawn that is replaced at once
            network = create_model(config, match.num_classes)
        dropped = load_strictly(network, match, config.name)
    except InputError as error:
        inner = f"{path}: {checkpoint.key}" if checkpoint.key else f"{path}"
        raise InputError(f"{inner}: {error}") from None
    return Imported(
        layout=found.layout,
        config=config,
        num_classes=match.num_classes,
        network=network.eval(),
        normalization=_normalization(found, match),
        report=ImportReport(
            taken=_taken(checkpoint, found),
            left_over=(*dropped, *found.left_over),
            others=checkpoint.others,
            threshold=match.threshold if match.num_classes == 1 else None,
        ),
    )


def _import_graph(
    path: Path, layout: str | None, output_stride: int | None, backbone: str | None
) -> Imported:
    """As `import_weights`, of a TFLite file."""
    from atrous.weights.importers import tensorflow

    if layout not in (None, TENSORFLOW):
        raise InputError(f"--layout {layout}: {path} is a TFLite file, which is of {TENSORFLOW}")
    if output_stride or backbone:
        raise InputError(f"{path}: a graph, which says output stride and backbone; leave them out")
    try:
        match = tensorflow.match(path)
        with torch.device("meta"):
            network = create_model(match.config, match.num_classes)
        load_strictly(network, match, match.config.name)
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{path}: {reason}") from None
    return Imported(
        layout=TENSORFLOW,
        config=match.config,
        num_classes=match.num_classes,
        network=network.eval(),
        normalization=Normalization(mean=match.mean, std=match.std),
        report=ImportReport(
            taken="all constants of the graph",
            left_over=(),
            others=(),
            threshold=match.threshold if match.num_classes == 1 else None,
        ),
    )


def write_run(imported: Imported, taxonomy: Taxonomy, out: Path, about: RunData) -> None:
    """Write a run folder.

    Args:
        imported: the network; one output becomes the second of two classes.
        taxonomy: its classes.
        out: the folder; it must not hold a run yet.
        about: the data that the weights were trained on.
    """
    try:
        _check_classes(imported.num_classes, taxonomy)
    except InputError as error:
        raise InputError(f"{about.source}: {error}") from None
    check_free(out, "give another --out")
    written = _with_background(imported) if imported.num_classes == 1 else imported
    save_weights(out, written.network)
    run = Run(
        model=written.options,
        normalization=imported.normalization,
        taxonomy=taxonomy,
        data=about,
        layout=imported.layout,
        imported=imported.report,
    )
    run.write(out)


def _recognised(found: Found, output_stride: int | None) -> Match:
    module = importlib.import_module(f"atrous.weights.importers.{found.layout}")
    try:
        return cast(Match, module.match(found.state, output_stride))
    except KeyError as error:
        raise InputError(f"not of layout {found.layout}: it has no {error}") from None
    except (IndexError, TypeError, RuntimeError):  # a vector for a convolution, say
        raise InputError(f"not of layout {found.layout}: its tensors have other shapes") from None


def _taken(checkpoint: Checkpoint, found: Found) -> str:
    """Say which tensors of a file are used."""
    words = [f"{len(found.state)} tensors"]
    words += [f"of {checkpoint.key}"] if checkpoint.key else []
    words += [f"named {found.prefix}*"] if found.prefix else []
    is_averaged = found.averaged or checkpoint.averaged
    return " ".join(words) + (", averaged weights" if is_averaged else "")


def _normalization(found: Found, match: Match) -> Normalization:
    """Return mean and deviation of RGB in 0..1: those that the file holds, or the layout's."""
    own = {}
    for name, tensor in found.left_over.items():
        if name.rpartition(".")[2] in ("mean", "std") and tensor.numel() == 3:
            own[name.rpartition(".")[2]] = tensor.double().flatten()
    if own.keys() != {"mean", "std"} or own["std"].min() <= 0:
        return Normalization(mean=match.mean, std=match.std)
    scale = 255 if own["mean"].max() > 1 else 1  # of 0..255
    values = {name: tuple((tensor / scale).tolist()) for name, tensor in own.items()}
    return Normalization(**values)


def _with_background(imported: Imported) -> Imported:
    """Put a first class before the one output z of a network.

    The logit b of the first class is the same everywhere, so that argmax(b, z) is
    sigmoid(z) > threshold, enlarged or not: an interpolation of equal values changes nothing.
    """
    with torch.device("meta"):
        wider = create_model(imported.config, num_classes=2)
    shapes = {name: tensor.shape for name, tensor in wider.state_dict().items()}
    tensors = {
        name: tensor
        if tensor.shape == shapes[name]
        else torch.cat([torch.zeros_like(tensor), tensor])
        for name, tensor in imported.network.state_dict().items()
    }
    threshold = imported.report.threshold or 0.5
    tensors["head.1.bias"][0] = math.log(threshold / (1 - threshold))
    wider.load_state_dict(tensors, assign=True)
    return replace(imported, network=wider.eval(), num_classes=2)


def _check_classes(outputs: int, taxonomy: Taxonomy) -> None:
    """Refuse a taxonomy that does not fit the outputs of a network."""
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
