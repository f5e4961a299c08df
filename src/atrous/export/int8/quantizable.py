"""The layers of a float graph that can be computed in 8 bits, and the tensors between them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

_OPERATORS = ("Conv", "Add", "Concat", "Resize")
_ACTIVATIONS = ("Clip", "Relu")


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A node that can be computed in 8 bits, with the activation after it.

    The two are one layer: the steps of 8 bits are not spent on values that the activation clips.
    """

    node: onnx.NodeProto
    activation: onnx.NodeProto | None
    reads: tuple[str, ...]
    """Input tensors, without weights and sizes."""

    @property
    def is_conv(self) -> bool:
        """Whether the layer has weights; the others follow their input tensors."""
        return self.node.op_type == "Conv"

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """The node, and its activation if there is one."""
        return [node for node in (self.node, self.activation) if node is not None]

    @property
    def writes(self) -> str:
        """Output tensor, after the activation."""
        return str(self.nodes[-1].output[0])


def layers_of(graph: onnx.GraphProto) -> list[Layer]:
    """Return the layers in the order of the graph, from the first convolution on.

    Args:
        graph: a float graph with its inner shapes inferred.
    """
    tensors = _image_tensors(graph)
    nodes = list(graph.node)
    first = next(i for i, node in enumerate(nodes) if node.op_type == "Conv")
    return [
        Layer(
            node=node,
            activation=_activation_behind(node, nodes),
            reads=tuple(name for name in node.input if name in tensors),
        )
        for node in nodes[first:]
        if node.op_type in _OPERATORS and node.output[0] in tensors
    ]


def rounded_tensors(layers: Sequence[Layer], kept: Collection[str]) -> set[str]:
    """Return the tensors rounded to 8 bits if the convolutions named in `kept` stay in float.

    These are the inputs and outputs of all other convolutions, and of each layer without weights
    that has an input rounded already.
    """
    rounded: set[str] = set()
    for layer in layers:
        if layer.is_conv and layer.node.name not in kept:
            rounded |= {*layer.reads, layer.writes}
    for layer in layers:
        if not layer.is_conv and not rounded.isdisjoint(layer.reads):
            rounded |= {*layer.reads, layer.writes}
    return rounded


def weights_of(graph: onnx.GraphProto) -> dict[str, NDArray[np.float32]]:
    """Return the float constants: name -> array, (M, C / groups, k, k) of a convolution."""
    return {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }


def _image_tensors(graph: onnx.GraphProto) -> set[str]:
    """Return the float32 tensors that depend on the image: neither sizes nor weights."""
    tensors = (*graph.value_info, *graph.input, *graph.output)
    floats = {t.name for t in tensors if t.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return floats - {tensor.name for tensor in graph.initializer}


def _activation_behind(
    node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]
) -> onnx.NodeProto | None:
    readers = [reader for reader in nodes if node.output[0] in reader.input]
    alone = len(readers) == 1 and readers[0].op_type in _ACTIVATIONS
    return readers[0] if alone else None
