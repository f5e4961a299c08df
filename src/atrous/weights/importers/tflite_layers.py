"""The layers of a TFLite graph: its operators, less what quantisation and dilation add to them.

Constants become float32, what quantises or dequantises features is passed over, a dilated
convolution is one layer (converters may rearrange the pixels around it), and what follows a
convolution channel by channel (factors, sums, activations) is merged into it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import tflite

from atrous.errors import InputError
from atrous.weights.importers.tflite_file import Floats, Graph, Operator, Value

_ACTIVATIONS = {
    tflite.ActivationFunctionType.NONE: "none",
    tflite.ActivationFunctionType.RELU: "relu",
    tflite.ActivationFunctionType.RELU6: "relu6",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A layer of a network."""

    operator: Operator
    kind: str
    """conv, depthwise, add, mean, resize, concat, softmax, argmax or cast."""
    inputs: tuple[int, ...]
    """Numbers of the tensors that it takes, without constants."""
    output: int
    weight: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    """(outputs, inputs, k, k) of a conv, (channels, 1, k, k) of a depthwise; otherwise empty."""
    bias: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    """(outputs,)."""
    stride: int = 1
    dilation: int = 1
    activation: str = "none"
    """none, relu or relu6."""


class Layers:
    """The layers of a graph."""

    def __init__(self, graph: Graph) -> None:
        """Read all operators; one that is no layer and belongs to none is an error."""
        self.graph = graph
        self.by_output: dict[int, Layer] = {}
        """By the tensor that each computes, in the order of the graph."""
        self._same: dict[int, int] = {graph.input.number: graph.input.number}
        """What is computed, to the layer's output that it is, maybe quantised or rearranged."""
        self._constants: dict[int, Value] = {v.number: v for v in graph.values if v.content}
        self._used: set[int] = set()
        self._rearranged: dict[int, tuple[int, int]] = {}
        """Tensors of rearranged pixels: the dilation, and the rows and columns put before."""
        self._reads: Counter[int] = Counter()
        self._stale: set[int] = set()
        """Tensors before what was merged into their layer."""
        for operator in graph.operators:
            if operator.kind not in _READERS:
                raise operator.error("no layer of DeepLab")
            if any(out in self._same or out in self._constants for out in operator.outputs):
                raise operator.error("computes what is there already")
            _READERS[operator.kind](self, operator)
        if left := [v.name for v in graph.values if v.content and v.number not in self._used]:
            raise InputError(f"{left[0]}: no operator uses it")
        self.output = self._same.get(graph.output.number, -1)

    def shape(self, number: int) -> tuple[int, ...]:
        """Return the shape of a tensor of features, (B, h, w, C)."""
        return self.graph.values[number].shape

    # What operators take.

    def _features(self, operator: Operator, position: int = 0) -> int:
        """Return the layer's output that an operator takes."""
        number = self._taken(operator, position)
        if number in self._rearranged:
            raise operator.error("takes rearranged pixels, as only a convolution can")
        self._reads[self._same[number]] += 1
        return self._same[number]

    def _taken(self, operator: Operator, position: int = 0) -> int:
        number = operator.inputs[position] if position < len(operator.inputs) else -1
        if number not in self._same or number in self._stale:
            raise operator.error("takes what no layer before it computes")
        if len(self.shape(number)) != 4:
            raise operator.error(f"takes a tensor of shape {list(self.shape(number))}")
        return number

    def _constant(self, operator: Operator, position: int) -> Value | None:
        number = operator.inputs[position] if position < len(operator.inputs) else -1
        value = self._constants.get(number)
        if value is not None:
            self._used.add(number)
            self._used.add(value.number)
        return value

    def _needed(self, operator: Operator, position: int) -> Value:
        value = self._constant(operator, position)
        if value is None:
            raise operator.error(f"its input {position} is no constant")
        return value

    def _add(self, layer: Layer) -> None:
        self.by_output[layer.output] = layer
        self._same[layer.output] = layer.output

    # What operators are.

    def _pass(self, operator: Operator) -> None:
        """A change of the numbers' type, of features or of a constant."""
        if value := self._constant(operator, 0):
            self._constants[operator.outputs[0]] = value
            return
        number = self._taken(operator)
        self._same[operator.outputs[0]] = self._same[number]
        if number in self._rearranged:
            self._rearranged[operator.outputs[0]] = self._rearranged[number]

    def _to_batch(self, operator: Operator) -> None:
        block, pads = self._needed(operator, 1).whole, self._needed(operator, 2).whole
        number, (output, *_) = self._taken(operator), operator.outputs
        if len({*block}) != 1 or len(block) != 2 or len(pads) != 4 or pads[0] != pads[2]:
            raise operator.error(f"blocks of {block} with {pads} around")
        if number in self._rearranged or block[0] < 1:
            raise operator.error("rearranged twice")
        self._same[output] = self._same[number]
        self._rearranged[output] = block[0], pads[0]

    def _from_batch(self, operator: Operator) -> None:
        block, crops = self._needed(operator, 1).whole, self._needed(operator, 2).whole
        number, (output, *_) = self._taken(operator), operator.outputs
        layer = self.by_output.get(self._same[number])
        if layer is None or self._rearranged.get(number) != (block[0], -1):
            raise operator.error("its input is no convolution of rearranged pixels")
        whole = self.shape(layer.inputs[0])[1:3]
        if len({*block}) != 1 or any(crops[::2]) or self.shape(output)[1:3] != whole:
            raise operator.error("gives pixels other places than they had")
        self._merge(operator, number, layer)

    def _conv(self, operator: Operator) -> None:
        depthwise = operator.kind == "DEPTHWISE_CONV_2D"
        weight, bias = self._needed(operator, 1).numbers, self._constant(operator, 2)
        if weight.ndim != 4 or weight.size == 0:
            raise operator.error(f"its weights have the shape {list(weight.shape)}")
        if bias is None and len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            raise operator.error("its input 2 is no constant")
        weight = weight.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        if depthwise and (weight.shape[1] != 1 or operator.options.DepthMultiplier() != 1):
            raise operator.error("several outputs for a channel")
        zeros = np.zeros(len(weight), np.float32)
        number = self._taken(operator)
        layer = Layer(
            operator=operator,
            kind="depthwise" if depthwise else "conv",
            inputs=(self._same[number],),
            output=operator.outputs[0],
            weight=np.ascontiguousarray(weight),
            bias=zeros if bias is None else bias.numbers.reshape(-1),
            stride=operator.options.StrideH(),
            dilation=self._dilation(operator, number, weight.shape[2]),
            activation=self._activation(operator),
        )
        if layer.bias.shape != zeros.shape or layer.stride != operator.options.StrideW():
            raise operator.error("its bias or its strides do not fit its weights")
        if weight.shape[2] != weight.shape[3] or weight.shape[2] % 2 == 0:
            raise operator.error("its kernel is no square of odd sides")
        sides = self.shape(number)[1:3]
        if layer.stride == 2 and not all(side % 2 for side in sides):
            raise operator.error(
                f"a stride of 2 on {sides[1]}x{sides[0]} cells, which moves their centres; export "
                "it for sizes of 16 n + 1, such as 513x513, as it was trained"
            )
        self._reads[self._same[number]] += 1
        self._add(layer)

    def _dilation(self, operator: Operator, number: int, kernel: int) -> int:
        """Return a convolution's dilation; refuse borders other than zeros that keep the size."""
        options = operator.options
        dilation: int = options.DilationHFactor()
        is_same = options.Padding() == tflite.Padding.SAME
        if number in self._rearranged:
            block, before = self._rearranged[number]
            if is_same or dilation != 1 or options.StrideH() != 1 or before != kernel // 2 * block:
                raise operator.error("no dilated convolution that keeps the size")
            self._rearranged[operator.outputs[0]] = block, -1
            return block
        if options.DilationWFactor() != dilation or (kernel > 1 and not is_same):
            raise operator.error("no convolution that keeps the size")
        return dilation

    def _activation(self, operator: Operator) -> str:
        kind = operator.options.FusedActivationFunction()
        if kind not in _ACTIVATIONS:
            raise operator.error(f"an activation of kind {kind}; relu and relu6 are read")
        return _ACTIVATIONS[kind]

    def _merge(self, operator: Operator, number: int, layer: Layer) -> None:
        """Give a layer another output, after which the one before is not to be had."""
        if self._reads[layer.output]:
            raise operator.error("changes what another operator took before")
        self._stale |= {raw for raw, same in self._same.items() if same == layer.output}
        del self.by_output[layer.output]
        self._add(replace(layer, output=operator.outputs[0]))

    def _channelwise(self, operator: Operator) -> None:
        """A factor or an addend for each channel, or an activation; or a sum of features."""
        constants = [
            i for i in range(len(operator.inputs)) if operator.inputs[i] in self._constants
        ]
        if operator.kind == "ADD" and not constants:
            if self._activation(operator) != "none":
                raise operator.error("an activation after a sum")
            inputs = self._features(operator, 0), self._features(operator, 1)
            return self._add(self._plain(operator, "add", inputs))
        number = self._taken(operator, 1 if constants == [0] else 0)
        layer = self.by_output.get(self._same[number])
        is_conv = layer is not None and layer.kind in ("conv", "depthwise")
        if layer is None or not is_conv or layer.activation != "none" or number in self._rearranged:
            raise operator.error("follows no convolution that it could be merged into")
        weight, bias, outputs = layer.weight, layer.bias, len(layer.bias)
        if operator.kind in ("RELU", "RELU6"):
            activation = operator.kind.lower()
        else:
            numbers = self._needed(operator, constants[0] if constants else 1).numbers.reshape(-1)
            if len(numbers) not in (1, outputs):
                raise operator.error(f"{len(numbers)} numbers for {outputs} channels")
            activation = self._activation(operator)
            if operator.kind == "MUL":
                weight, bias = weight * numbers.reshape(-1, 1, 1, 1), bias * numbers
            else:
                bias = bias + numbers
        changed = replace(layer, weight=weight, bias=bias, activation=activation)
        return self._merge(operator, number, changed)

    def _plain(self, operator: Operator, kind: str, inputs: tuple[int, ...]) -> Layer:
        return Layer(operator=operator, kind=kind, inputs=inputs, output=operator.outputs[0])

    def _mean(self, operator: Operator) -> None:
        number = self._features(operator)
        if operator.kind == "MEAN":
            if sorted(self._needed(operator, 1).whole) != [1, 2]:
                raise operator.error("a mean over other axes than height and width")
        else:
            options = operator.options
            window = options.FilterHeight(), options.FilterWidth()
            if window != self.shape(number)[1:3] or options.Padding() != tflite.Padding.VALID:
                raise operator.error("a mean over less than the whole image")
            if self._activation(operator) != "none":
                raise operator.error("an activation after a mean")
        self._add(self._plain(operator, "mean", (number,)))

    def _resize(self, operator: Operator) -> None:
        number, (output, *_) = self._taken(operator), operator.outputs
        self._needed(operator, 1)
        size = self.shape(number)[1:3]
        if len(self.shape(output)) == 4 and self.shape(output)[1:3] == size:
            return self._pass(operator)
        aligned = operator.options.AlignCorners() and not operator.options.HalfPixelCenters()
        if size != (1, 1) and not aligned:
            raise operator.error("resizes without align_corners, with which DeepLab was trained")
        return self._add(self._plain(operator, "resize", (self._features(operator),)))

    def _concat(self, operator: Operator) -> None:
        if operator.options.Axis() not in (3, -1) or self._activation(operator) != "none":
            raise operator.error("joins other things than channels")
        inputs = tuple(self._features(operator, i) for i in range(len(operator.inputs)))
        self._add(self._plain(operator, "concat", inputs))

    def _last(self, operator: Operator) -> None:
        """What follows the logits and does not change which is the largest."""
        if operator.kind == "ARG_MAX" and self._needed(operator, 1).whole not in ([3], [-1]):
            raise operator.error("the largest along another axis than the classes")
        number = operator.inputs[0] if operator.inputs else -1
        if number not in self._same or number in self._stale | self._rearranged.keys():
            raise operator.error("takes what no layer before it computes")
        self._reads[self._same[number]] += 1
        kinds = {"ARG_MAX": "argmax", "SOFTMAX": "softmax", "CAST": "cast"}
        self._add(self._plain(operator, kinds[operator.kind], (self._same[number],)))


_READERS: dict[str, Callable[[Layers, Operator], None]] = {
    "CONV_2D": Layers._conv,
    "DEPTHWISE_CONV_2D": Layers._conv,
    "SPACE_TO_BATCH_ND": Layers._to_batch,
    "BATCH_TO_SPACE_ND": Layers._from_batch,
    "QUANTIZE": Layers._pass,
    "DEQUANTIZE": Layers._pass,
    "ADD": Layers._channelwise,
    "MUL": Layers._channelwise,
    "RELU": Layers._channelwise,
    "RELU6": Layers._channelwise,
    "AVERAGE_POOL_2D": Layers._mean,
    "MEAN": Layers._mean,
    "RESIZE_BILINEAR": Layers._resize,
    "CONCATENATION": Layers._concat,
    "SOFTMAX": Layers._last,
    "ARG_MAX": Layers._last,
    "CAST": Layers._last,
}
