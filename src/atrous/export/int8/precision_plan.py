"""Mixed precision: the convolutions that stay in float, since the logits suffer most from them.

Each convolution of the float graph gets a second form with rounded inputs, weights and outputs; an
`If` decides which of the two runs. So one session measures what the rounding of each layer alone
does to the logits, at the cost of one run of the float network for each layer. The noises of layers
are nearly independent, so a ranking suffices, and no search over sets is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from atrous.export.int8.observer import Observer, steps
from atrous.export.int8.quantizable import Layer, weights_of
from atrous.infer.runtimes.onnx import import_onnxruntime
from atrous.progress import Progress, silent

FLOAT_SHARE = 0.05
"""Largest fraction of the work of all convolutions that stays in float."""
_MOVE = 32
"""Multiply-adds that reading or writing one element costs as much as."""
_MIN_NOISE = 0.01
"""Smallest fraction of the noise that is worth a change of precision around a layer."""


@dataclass(frozen=True, kw_only=True)
class PrecisionPlan:
    """The convolutions that stay in float, and what they cost and save."""

    kept: tuple[str, ...]
    """Names: the classifier, then the others by noise per work, highest first."""
    work: float
    """Fraction of the work of all convolutions that is theirs."""
    noise: float
    """Fraction of the summed noise of the convolutions, each rounded alone, that is theirs."""
    num_layers: int
    """Number of all convolutions."""

    def __str__(self) -> str:
        """Return one line, usually of at most 80 columns."""
        return (
            f"kept in float: {len(self.kept)} of {self.num_layers} convolutions"
            f" ({100 * self.work:.1f} % of the work, {100 * self.noise:.0f} % of the noise)"
        )


def plan_precision(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    observers: Mapping[str, Observer],
    images: NDArray[np.uint8],
    progress: Progress = silent,
) -> PrecisionPlan:
    """Keep convolutions with the most noise per work in float, up to FLOAT_SHARE of the work.

    The classifier is always kept: logits of 256 steps would tie at the borders of classes.

    Args:
        model: float graph.
        layers: its layers.
        observers: by the tensors that the layers read and write.
        images: (B, H, W, C), calibration images to measure on.
        progress: called after each convolution that is measured.
    """
    convs = [layer for layer in layers if layer.is_conv]
    noise = _noise_by_name(model, convs, observers, images, progress)
    weights = weights_of(model.graph)
    works = {layer.node.name: _work(layer, weights, observers) for layer in convs}
    work = {name: cost / sum(works.values()) for name, cost in works.items()}
    *others, classifier = noise
    kept = [classifier]
    for name in sorted(others, key=lambda name: noise[name] / work[name], reverse=True):
        share = sum(work[other] for other in (*kept, name))
        if share <= FLOAT_SHARE and noise[name] > _MIN_NOISE:
            kept.append(name)
    return PrecisionPlan(
        kept=tuple(kept),
        work=sum(work[name] for name in kept),
        noise=sum(noise[name] for name in kept),
        num_layers=len(convs),
    )


def _noise_by_name(
    model: onnx.ModelProto,
    convs: Sequence[Layer],
    observers: Mapping[str, Observer],
    images: NDArray[np.uint8],
    progress: Progress,
) -> dict[str, float]:
    """Return the fraction of all noise that each convolution causes, by its name."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # Optimisation would change the rounded values, and gains no speed here.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        with_rounded_forms(model, convs, observers).SerializeToString(),
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
        progress(i + 1, len(convs))
    total = max(sum(noise.values()), 1e-30)
    return {name: value / total for name, value in noise.items()}


def relative_noise(exact: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
    """Return the variance of `logits` - `exact` over that of `exact`, (B, K, h, w) both.

    The mean over classes is left out: it does not change the argmax.
    """
    error = logits - exact
    error -= error.mean(1, keepdims=True)
    signal = exact - exact.mean(1, keepdims=True)
    return float(np.mean(error**2) / max(np.mean(signal**2), 1e-30))


def _work(
    layer: Layer, weights: Mapping[str, NDArray[np.float32]], observers: Mapping[str, Observer]
) -> int:
    """Return the cost of a convolution on one image: multiply-adds and moved elements."""
    read, written = observers[layer.reads[0]].num_values, observers[layer.writes].num_values
    taps = int(weights[layer.node.input[1]][0].size)  # C / groups x k x k
    return written * taps + _MOVE * (read + written)


def with_rounded_forms(
    model: onnx.ModelProto, convs: Sequence[Layer], observers: Mapping[str, Observer]
) -> onnx.ModelProto:
    """Return `model` with a second input, `rounded`: int64 (), index of the conv in 8 bits."""
    weights = weights_of(model.graph)
    forms: dict[str, list[onnx.NodeProto]] = {}
    for i, layer in enumerate(convs):
        index, on = f"{layer.node.name}/index", f"{layer.node.name}/on"
        then = _rounded_form(layer, weights[layer.node.input[1]], observers)
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
    layer: Layer, weight: NDArray[np.float32], observers: Mapping[str, Observer]
) -> onnx.GraphProto:
    """Return the layer with its input, weight (M, C / groups, k, k) and output rounded."""
    (taken,) = layer.reads
    names = {taken: "taken", layer.node.input[1]: "kernel", layer.writes: "exact"}
    nodes = [
        *_rounding(observers[taken], taken, "taken"),
        *_renamed(layer.nodes, names),
        *_rounding(observers[layer.writes], "exact", "given"),
    ]
    return _branch(nodes, numpy_helper.from_array(rounded_weight(weight), "kernel"))


def rounded_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round `weight`, (M, C / groups, k, k), to int8 with a scale per output channel."""
    step = np.abs(weight).max((1, 2, 3), keepdims=True) / np.float32(127)
    step[step == 0] = 1
    rounded: NDArray[np.float32] = np.round(weight / step) * step
    return rounded


def _rounding(observer: Observer, source: str, target: str) -> list[onnx.NodeProto]:
    """Return the nodes that round the tensor `source` to the 256 steps of its range."""
    step, zero = steps(*observer.range)
    scale = [f"{target}/step", f"{target}/zero"]
    point = numpy_helper.from_array(np.array(zero, np.uint8))
    return [
        helper.make_node("Constant", [], scale[:1], value_float=step),
        helper.make_node("Constant", [], scale[1:], value=point),
        helper.make_node("QuantizeLinear", [source, *scale], [f"{target}/steps"]),
        helper.make_node("DequantizeLinear", [f"{target}/steps", *scale], [target]),
    ]


def _renamed(nodes: Sequence[onnx.NodeProto], names: dict[str, str]) -> list[onnx.NodeProto]:
    """Return copies of `nodes` whose tensors have new names: old -> new."""
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [names.get(name, name) for name in node.input]
        copy.output[:] = [names.get(name, name) for name in node.output]
        copies.append(copy)
    return copies


def _branch(nodes: Sequence[onnx.NodeProto], *constants: onnx.TensorProto) -> onnx.GraphProto:
    """Return one branch of an `If`, whose last node writes the tensor "given"."""
    given = helper.make_tensor_value_info("given", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, "form", [], [given], constants)
