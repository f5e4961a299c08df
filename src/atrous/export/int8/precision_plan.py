"""Which layers of a network stay in float: those whose rounding the logits feel most.

Each convolution of the float graph gets a second form that computes with what 8 bits leave of its
weights and of the values that it takes and gives; an `If` decides which of the two is run. So one
session tells what the rounding of each layer alone does to the logits, at the price of the float
network for each. The noises of layers are all but independent, so that a ranking is enough, and no
search over sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from atrous.export.int8.observer import Spread, steps
from atrous.export.int8.quantizable import Layer, weights_of
from atrous.infer.runtimes.onnx import import_onnxruntime
from atrous.progress import Progress

FLOAT_SHARE = 0.05
"""Of the work of all convolutions, that which may stay in float."""
_MOVE = 32
"""An element that is read or written counts as much work as this many multiply-adds."""
_WORTH = 0.01
"""Share of the noise that a layer must cause to be worth the change of precision around it."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The convolutions that stay in float, and what that does."""

    kept: tuple[str, ...]
    """Their names, the most sensitive for its work first, but for the classifier before all."""
    work: float
    """Their share of the work of all convolutions, as a fraction."""
    noise: float
    """Their share of what rounding each convolution alone adds to the logits, as a fraction."""
    num_layers: int

    def __str__(self) -> str:
        """One line, of 80 columns as a rule."""
        return (
            f"kept in float: {len(self.kept)} of {self.num_layers} convolutions"
            f" ({100 * self.work:.1f} % of the work, {100 * self.noise:.0f} % of the noise)"
        )


def choose_float(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    found: dict[str, Spread],
    images: NDArray[np.uint8],
    progress: Progress | None = None,
) -> Choice:
    """Keep the layers in float that cause most noise for their work, up to FLOAT_SHARE of it.

    The classifier is the first of them: 256 steps of a logit make ties where classes meet.

    Args:
        model: float.
        layers: its layers.
        found: the spread of each tensor that they take and give.
        images: (B, H, W, 3), calibration images to measure on.
        progress: told of each convolution that is measured.
    """
    convs = [layer for layer in layers if layer.is_conv]
    noise = _noise_of_each(model, convs, found, images, progress)
    weights = weights_of(model.graph)
    works = {layer.node.name: _work(layer, weights, found) for layer in convs}
    work = {name: cost / sum(works.values()) for name, cost in works.items()}
    *others, classifier = noise
    kept = [classifier]
    for name in sorted(others, key=lambda name: noise[name] / work[name], reverse=True):
        share = sum(work[other] for other in (*kept, name))
        if share <= FLOAT_SHARE and noise[name] > _WORTH:
            kept.append(name)
    return Choice(
        kept=tuple(kept),
        work=sum(work[name] for name in kept),
        noise=sum(noise[name] for name in kept),
        num_layers=len(convs),
    )


def _noise_of_each(
    model: onnx.ModelProto,
    convs: Sequence[Layer],
    found: dict[str, Spread],
    images: NDArray[np.uint8],
    progress: Progress | None,
) -> dict[str, float]:
    """By the name of each convolution, its share of the noise of all of them, as a fraction."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # Its rewriting of rounded values changes what they are, and makes nothing here faster.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        with_rounded_forms(model, convs, found).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )

    def logits(rounded: int) -> NDArray[np.float32]:
        (values,) = session.run(["logits"], {"image": images, "rounded": np.array(rounded)})
        return np.asarray(values, np.float32)

    exact = logits(-1)
    noise: dict[str, float] = {}
    for i, layer in enumerate(convs):
        noise[layer.node.name] = relative_noise(exact, logits(i))
        if progress is not None:
            progress(i + 1, len(convs))
    total = max(sum(noise.values()), 1e-30)
    return {name: value / total for name, value in noise.items()}


def relative_noise(exact: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
    """The variance of `logits` - `exact` over that of `exact`, (B, K, h, w) both.

    What all classes of a cell have in common decides nothing, and is left out.
    """
    error = logits - exact
    error -= error.mean(1, keepdims=True)
    signal = exact - exact.mean(1, keepdims=True)
    return float(np.mean(error**2) / max(np.mean(signal**2), 1e-30))


def _work(layer: Layer, weights: dict[str, NDArray[np.float32]], found: dict[str, Spread]) -> int:
    """What a convolution costs on one image: multiply-adds, and elements moved."""
    read, written = found[layer.reads[0]].cells, found[layer.writes].cells
    taps = int(weights[layer.node.input[1]][0].size)  # C / groups x k x k
    return written * taps + _MOVE * (read + written)


def with_rounded_forms(
    model: onnx.ModelProto, convs: Sequence[Layer], found: dict[str, Spread]
) -> onnx.ModelProto:
    """`model` with a second input, `rounded`: int64 (), which of `convs` computes in 8 bits."""
    weights = weights_of(model.graph)
    forms: dict[str, list[onnx.NodeProto]] = {}
    for i, layer in enumerate(convs):
        index, on = f"{layer.node.name}/index", f"{layer.node.name}/on"
        then = _rounded_form(layer, weights[layer.node.input[1]], found)
        plain = _branch(_renamed(layer.nodes, {layer.writes: "given"}))
        forms[layer.node.name] = [
            helper.make_node("Constant", [], [index], value_int=i),
            helper.make_node("Equal", ["rounded", index], [on]),
            helper.make_node("If", [on], [layer.writes], then_branch=then, else_branch=plain),
        ]
    inside = {node.name for layer in convs for node in layer.nodes[1:]}
    nodes = [node for node in model.graph.node if node.name not in inside]
    switched = onnx.ModelProto()
    switched.CopyFrom(model)
    graph = switched.graph
    graph.input.append(helper.make_tensor_value_info("rounded", TensorProto.INT64, []))
    del graph.value_info[:], graph.node[:]
    graph.node.extend(form for node in nodes for form in forms.get(node.name, [node]))
    return switched


def _rounded_form(
    layer: Layer, weight: NDArray[np.float32], found: dict[str, Spread]
) -> onnx.GraphProto:
    """The layer on 8 bits of its weights, (M, C / groups, k, k), and of what it takes and gives."""
    (taken,) = layer.reads
    names = {taken: "taken", layer.node.input[1]: "kernel", layer.writes: "exact"}
    nodes = [
        *_rounding(found[taken], taken, "taken"),
        *_renamed(layer.nodes, names),
        *_rounding(found[layer.writes], "exact", "given"),
    ]
    return _branch(nodes, numpy_helper.from_array(rounded_weight(weight), "kernel"))


def rounded_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """What int8 with a scale per output channel leaves of `weight`, (M, C / groups, k, k)."""
    step = np.abs(weight).max((1, 2, 3), keepdims=True) / np.float32(127)
    step[step == 0] = 1
    rounded: NDArray[np.float32] = np.round(weight / step) * step
    return rounded


def _rounding(spread: Spread, source: str, target: str) -> list[onnx.NodeProto]:
    """The nodes that leave of `source` what its 256 steps can hold."""
    step, zero = steps(*spread.range)
    scale = [f"{target}/step", f"{target}/zero"]
    point = numpy_helper.from_array(np.array(zero, np.uint8))
    return [
        helper.make_node("Constant", [], scale[:1], value_float=step),
        helper.make_node("Constant", [], scale[1:], value=point),
        helper.make_node("QuantizeLinear", [source, *scale], [f"{target}/steps"]),
        helper.make_node("DequantizeLinear", [f"{target}/steps", *scale], [target]),
    ]


def _renamed(nodes: Sequence[onnx.NodeProto], names: dict[str, str]) -> list[onnx.NodeProto]:
    """Copies of `nodes` whose tensors have the new `names`."""
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [names.get(name, name) for name in node.input]
        copy.output[:] = [names.get(name, name) for name in node.output]
        copies.append(copy)
    return copies


def _branch(nodes: Sequence[onnx.NodeProto], *constants: onnx.TensorProto) -> onnx.GraphProto:
    """One side of an `If`: `nodes`, the last of which gives the tensor "given"."""
    given = helper.make_tensor_value_info("given", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, "form", [], [given], constants)
