"""Which layers of a network stay in float: those whose rounding the logits feel most.

The float graph is given a switch for each tensor and each weight: behind it stands what 8 bits
leave of the values. So one session tells what the rounding of each layer alone does to the logits.
The noises of layers are all but independent (their sum is within a fifth of the noise of all at
once, measured on EfficientNet-Lite2), so that a ranking is enough, and no search over sets.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from atrous.export.calibrate import Spread, steps
from atrous.export.layers import Layer, rounded_tensors, weights_of
from atrous.infer.onnx_runtime import import_onnxruntime

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
    """Their names, the most sensitive for its work first."""
    work: float
    """Their share of the work of all convolutions, as a fraction."""
    noise_of_all: float
    """The variance of the logits' error over that of the logits if all layers are in 8 bits."""
    noise: float
    """The same with the kept layers in float."""
    num_layers: int

    def __str__(self) -> str:
        """One line, of 80 columns as a rule."""
        return (
            f"kept in float: {len(self.kept)} of {self.num_layers} convolutions"
            f" ({100 * self.work:.1f} % of the work);"
            f" noise of the logits {100 * self.noise_of_all:.2g} % -> {100 * self.noise:.2g} %"
        )


class Switched:
    """A network whose layers can be rounded to 8 bits one by one."""

    def __init__(
        self, model: onnx.ModelProto, layers: Sequence[Layer], found: dict[str, Spread]
    ) -> None:
        """Build the session; `found` holds the spread of each tensor that layers take and give."""
        self._layers = layers
        self._convs = [layer for layer in layers if layer.is_conv]
        self._switches = {name: i for i, name in enumerate(found)}
        for layer in self._convs:
            self._switches[layer.node.name] = len(self._switches)
        switched = _with_switches(model, layers, found, self._switches)
        self._session = import_onnxruntime().InferenceSession(
            switched.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def logits(
        self, images: NDArray[np.uint8], kept: Collection[str]
    ) -> NDArray[np.float32]:  # (B, H, W, 3) -> (B, K, h, w)
        """The logits with the convolutions named in `kept` in float and all others rounded."""
        on = np.zeros(len(self._switches), np.bool_)
        for name in rounded_tensors(self._layers, kept):
            on[self._switches[name]] = True
        for layer in self._convs:
            on[self._switches[layer.node.name]] = layer.node.name not in kept
        (logits,) = self._session.run(["logits"], {"image": images, "switches": on})
        return np.asarray(logits, np.float32)


def choose_float(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    found: dict[str, Spread],
    images: NDArray[np.uint8],
    progress: Callable[[int, int], None] | None = None,
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
    switched = Switched(model, layers, found)
    convs = [layer for layer in layers if layer.is_conv]
    names = [layer.node.name for layer in convs]
    exact = switched.logits(images, kept=names)
    noise: dict[str, float] = {}
    for name in names:
        noise[name] = relative_noise(exact, switched.logits(images, set(names) - {name}))
        if progress is not None:
            progress(len(noise), len(names))
    weights = weights_of(model.graph)
    work = {layer.node.name: _work(layer, weights, found) for layer in convs}
    kept = [names[-1]]
    for name in sorted(names[:-1], key=lambda name: noise[name] / work[name], reverse=True):
        share = sum(work[other] for other in (*kept, name)) / sum(work.values())
        if share <= FLOAT_SHARE and noise[name] > _WORTH * sum(noise.values()):
            kept.append(name)
    return Choice(
        kept=tuple(kept),
        work=sum(work[name] for name in kept) / sum(work.values()),
        noise_of_all=relative_noise(exact, switched.logits(images, kept=())),
        noise=relative_noise(exact, switched.logits(images, kept)),
        num_layers=len(names),
    )


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


def rounded_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """What int8 with a scale per output channel leaves of `weight`, (M, C / groups, k, k)."""
    step = np.abs(weight).max((1, 2, 3), keepdims=True) / np.float32(127)
    step[step == 0] = 1
    rounded: NDArray[np.float32] = np.round(weight / step) * step
    return rounded


def _with_switches(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    found: dict[str, Spread],
    switches: dict[str, int],
) -> onnx.ModelProto:
    """`model` with a second input, `switches`: bool (N,), which of its parts are rounded."""
    switched = onnx.ModelProto()
    switched.CopyFrom(model)
    graph, weights = switched.graph, weights_of(model.graph)
    graph.input.append(helper.make_tensor_value_info("switches", TensorProto.BOOL, [len(switches)]))

    def constant(name: str, value: NDArray[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def switch(name: str, rounded: str, plain: str) -> list[onnx.NodeProto]:
        index = constant(f"{name}/index", np.array(switches[name]))
        return [
            helper.make_node("Gather", ["switches", index], [f"{name}/on"]),
            helper.make_node("Where", [f"{name}/on", rounded, plain], [f"{name}/switched"]),
        ]

    nodes: list[onnx.NodeProto] = []
    behind = {layer.activation.name for layer in layers if layer.activation is not None}
    convs = {layer.node.name for layer in layers if layer.is_conv}
    for node in graph.node:
        if node.name not in behind:  # an activation sees what its layer has computed
            for i, name in enumerate(node.input):
                if name in found:
                    node.input[i] = f"{name}/switched"
        if node.name in convs:
            weight = node.input[1]
            rounded = constant(f"{node.name}/rounded", rounded_weight(weights[weight]))
            nodes += switch(node.name, rounded, weight)
            node.input[1] = f"{node.name}/switched"
        nodes.append(node)
        for name in node.output:
            if name in found:
                step, zero = steps(*found[name].range)
                scale = constant(f"{name}/scale", np.array(step, np.float32))
                point = constant(f"{name}/zero", np.array(zero, np.uint8))
                steps_of = [f"{name}/steps", scale, point]
                nodes += [
                    helper.make_node("QuantizeLinear", [name, scale, point], steps_of[:1]),
                    helper.make_node("DequantizeLinear", steps_of, [f"{name}/rounded"]),
                    *switch(name, f"{name}/rounded", name),
                ]
    del graph.node[:]
    graph.node.extend(nodes)
    return switched
