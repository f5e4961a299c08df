"""The layouts that are known, and the network among a checkpoint's tensors.

Training scripts put a network into others: names then begin with "module.", "_orig_mod.", "model."
or any other, in any order. One rule covers all of them: a layout's marks, found behind the same
beginning.
"""

import re
from dataclasses import dataclass

from torch import Tensor

from atrous.errors import InputError
from atrous.weights.importers.checkpoint import few, says_averaged
from atrous.weights.importers.places import State, begins

LAYOUTS: dict[str, tuple[str, ...]] = {
    "torchvision": ("classifier.4.weight",),
    "smp": ("segmentation_head.0.weight",),
    "kazuto1011": ("base.layer1", "base.aspp"),
    "vainf": ("backbone", "classifier.classifier"),
    "mmseg": ("backbone", "decode_head.conv_seg"),
}
"""The marks of each layout: a checkpoint belongs to it if every mark is a tensor's name, or whole
parts that one begins with. A layout's name is that of `atrous convert --layout`, and of the module
in this package whose `match` recognises the network."""

TENSORFLOW = "tensorflow"
"""The layout of TFLite files, which hold a graph in place of tensors with names."""

_CLASSIFIERS = ("fc", "classifier", "head")
"""Beginnings of the names of the last layers, which are matrices, of ImageNet's classifiers."""

_WRAPPED = r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
"""Parts that torch puts into names where a part of a network is compiled or wrapped."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A network among the tensors of a checkpoint."""

    layout: str
    prefix: str
    """Beginning of its names in the file, "model.module." for instance."""
    state: dict[str, Tensor]
    """Its tensors, without the prefix."""
    left_over: dict[str, Tensor]
    """Tensors beside it that its output does not need."""
    averaged: bool
    """Whether the names say that its weights are averages."""


def find_network(state: State, layout: str | None) -> Found:
    """Find the one network in `state`, all tensors of a checkpoint; the averaged one of several.

    `layout` is one of `LAYOUTS`, or None for any. Tensors beside the network that may change its
    output are refused.
    """
    layout, prefixes = _detect(state, layout)
    chosen = [prefix for prefix in prefixes if says_averaged(prefix)] or prefixes
    if len(chosen) > 1:
        names = ", ".join(f"{prefix}*" for prefix in chosen)
        raise InputError(f"holds several networks ({names}); save the state_dict() of one")
    prefix = chosen[0]
    others = tuple(other for other in prefixes if other != prefix)
    inside = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(prefix) and not _is_of_loss(name.removeprefix(prefix).split(".")[0])
    }
    left_over = {name: tensor for name, tensor in state.items() if name not in inside}
    if odd := [n for n, t in left_over.items() if not (n.startswith(others) or _is_harmless(n, t))]:
        raise InputError(
            f"beside the network under {prefix!r}, of layout {layout}, it holds {few(odd)}: they "
            "may change what comes out; save the state_dict() of that network alone"
        )
    averaged = says_averaged(prefix) or any(name.endswith("n_averaged") for name in left_over)
    own = {re.sub(_WRAPPED, "", name.removeprefix(prefix)): t for name, t in inside.items()}
    if len(own) < len(inside):
        raise InputError("holds a tensor twice, as it is and of a wrapper; save one state_dict()")
    return Found(layout=layout, prefix=prefix, state=own, left_over=left_over, averaged=averaged)


def _detect(state: State, layout: str | None) -> tuple[str, list[str]]:
    """Return the layout whose marks are outermost, and the prefixes of its networks."""
    if layout is not None:
        if layout not in LAYOUTS:
            raise InputError(
                f"--layout {layout}: no such layout. There are: {', '.join([*LAYOUTS, TENSORFLOW])}"
            )
        return layout, _prefixes(state, LAYOUTS[layout]) or [""]
    found = {name: _prefixes(state, marks) for name, marks in LAYOUTS.items()}
    if names := [name for name, prefixes in found.items() if prefixes]:
        layout = min(names, key=lambda name: found[name][0].count("."))
        return layout, found[layout]
    if any(begins(key, _CLASSIFIERS) and tensor.ndim == 2 for key, tensor in state.items()):
        raise InputError(
            "a classifier's weights, not a segmentation network's; to train from them: "
            "atrous train --backbone NAME --backbone-weights FILE"
        )
    looked = "; ".join(f"{name}: {' and '.join(marks)}" for name, marks in LAYOUTS.items())
    raise InputError(f"of no known layout; its names should begin with ({looked})")


def _prefixes(state: State, marks: tuple[str, ...]) -> list[str]:
    """Return what precedes all of `marks` in names of `state`, the shortest first."""
    before = [
        {
            name[: match.start()]
            for name in state
            for match in re.finditer(rf"(?<![^.]){re.escape(mark)}(?![^.])", name)
        }
        for mark in marks
    ]
    return sorted(set.intersection(*before), key=lambda prefix: (prefix.count("."), prefix))


def _is_of_loss(name: str) -> bool:
    return bool(re.search("loss|criterion", name.lower()))


def _is_harmless(name: str, tensor: Tensor) -> bool:
    """Return whether a tensor beside a network is a loss's, a counter, or a vector of no layer."""
    is_of_layer = name.rpartition(".")[2] in ("weight", "bias", "running_mean", "running_var")
    is_vector = tensor.squeeze().ndim < 2 and not is_of_layer
    return _is_of_loss(name) or not tensor.is_floating_point() or is_vector
