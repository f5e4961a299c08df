"""TFLite files: the operators of a graph, and its constants as float32.

The schema is that of the package tflite; a file is bytes that a stranger wrote, and nothing in it
is trusted: whatever does not read is one error.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.files import read_bytes
from atrous.text import one_line, printable

Floats = NDArray[np.float32]

_MAX_BYTES = 1 << 30
_MOST = 10_000
"""Tables of a kind; a network has hundreds."""
_LONGEST = 60
"""Letters of a name that an error shows: a converter joins those of all that it merged."""

_STORED: dict[int, Any] = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT8: np.int8,
    tflite.TensorType.UINT8: np.uint8,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.INT64: np.int64,
}


def _names(enum: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


_OPERATORS, _TYPES = _names(tflite.BuiltinOperator), _names(tflite.TensorType)


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """A tensor of the graph."""

    number: int
    name: str
    shape: tuple[int, ...]
    kind: int
    """Of tflite.TensorType."""
    content: bytes
    """Empty for what is computed."""
    scale: tuple[float, ...]
    zero: tuple[int, ...]
    axis: int
    """Along which there is a scale for each index, if there are several."""

    @cached_property
    def numbers(self) -> Floats:
        """The values of a constant, dequantised."""
        return self._finite(self._dequantised())

    @property
    def lowest(self) -> int:
        """The least value of its type, if that is one of bytes."""
        return -128 if self.kind == tflite.TensorType.INT8 else 0

    @property
    def whole(self) -> list[int]:
        """The values of a constant of integers that is no weight, such as a size."""
        if self.kind not in (tflite.TensorType.INT32, tflite.TensorType.INT64) or self.scale:
            raise InputError(f"{self.name}: {_TYPES.get(self.kind)}, where integers belong")
        return [int(value) for value in self._stored().ravel()]

    def _stored(self) -> NDArray[Any]:
        if self.kind not in _STORED:
            kind = _TYPES.get(self.kind, "another type")
            raise InputError(f"{self.name}: {kind}; float32, float16, int8 and uint8 are read")
        kind = np.dtype(_STORED[self.kind])
        if prod(self.shape) * kind.itemsize != len(self.content):
            raise InputError(f"{self.name}: {len(self.content)} bytes for {list(self.shape)}")
        return np.frombuffer(self.content, kind).reshape(self.shape)

    def _dequantised(self) -> Floats:
        stored = self._stored()
        if stored.dtype.kind == "f":
            return stored.astype(np.float32)
        if not self.scale:
            raise InputError(f"{self.name}: integers without a scale, where weights belong")
        along = [1] * stored.ndim
        if len(self.scale) > 1:
            along[self.axis] = len(self.scale)
        zero = np.array(self.zero or (0,) * len(self.scale), np.float64).reshape(along)
        scale = np.array(self.scale, np.float64).reshape(along)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray((stored - zero) * scale, np.float32)

    def _finite(self, values: Floats) -> Floats:
        if not np.isfinite(values).all():
            raise InputError(f"{self.name}: holds NaN or infinity; take another file")
        return values


@dataclass(frozen=True, kw_only=True, eq=False)
class Operator:
    """An operator of the graph."""

    number: int
    kind: str
    """Name in tflite.BuiltinOperator: "CONV_2D"."""
    inputs: tuple[int, ...]
    """Numbers of tensors; -1 for one that is left out."""
    outputs: tuple[int, ...]
    options: Any
    """A table of the kind's options; None if it has none that this package reads."""
    title: str
    """What an error calls it."""

    def error(self, reason: str) -> InputError:
        """Return the error for an operator that has no place."""
        return InputError(f"{self.title}: {reason}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """The content of a file."""

    values: tuple[Value, ...]
    operators: tuple[Operator, ...]
    input: Value
    output: Value


_OPTIONS: dict[str, Any] = {
    "CONV_2D": tflite.Conv2DOptions,
    "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions,
    "ADD": tflite.AddOptions,
    "MUL": tflite.MulOptions,
    "AVERAGE_POOL_2D": tflite.Pool2DOptions,
    "CONCATENATION": tflite.ConcatenationOptions,
    "RESIZE_BILINEAR": tflite.ResizeBilinearOptions,
}


def read_graph(path: Path) -> Graph:
    """Read a TFLite file of one graph with one input and one output."""
    content = read_bytes(path, _MAX_BYTES, "no network of this size is known")
    if content[4:8] != b"TFL3":
        raise InputError("no TFLite file, or damaged; fetch it again")
    try:
        return _graph(content)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("damaged: it does not read as a TFLite file; fetch it again") from None


def _graph(content: bytes) -> Graph:
    model = tflite.Model.GetRootAs(content, 0)
    if model.SubgraphsLength() != 1:
        raise InputError(f"holds {model.SubgraphsLength()} graphs; files of one are read")
    graph = model.Subgraphs(0)
    buffers = list(_items(model.BuffersLength, model.Buffers, content))
    values = tuple(
        _value(i, tensor, buffers)
        for i, tensor in enumerate(_items(graph.TensorsLength, graph.Tensors, content))
    )
    codes = [
        _OPERATORS.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "of another kind")
        for code in _items(model.OperatorCodesLength, model.OperatorCodes, content)
    ]
    operators = tuple(
        _operator(i, operator, codes, values)
        for i, operator in enumerate(_items(graph.OperatorsLength, graph.Operators, content))
    )
    ends = _array(graph, "Inputs"), _array(graph, "Outputs")
    if [len(end) for end in ends] != [1, 1]:
        sizes = " inputs and ".join(str(len(end)) for end in ends)
        raise InputError(f"its graph has {sizes} outputs; those of one each are read")
    (first,), (last,) = ends
    return Graph(values=values, operators=operators, input=values[first], output=values[last])


def _items(length: Callable[[], int], item: Callable[[int], Any], content: bytes) -> Iterator[Any]:
    """Yield the tables of a vector; each takes at least the four bytes of its place."""
    count = length()
    if 4 * count > len(content) or count > _MOST:
        raise ValueError
    return (item(i) for i in range(count))


def _array(table: Any, name: str) -> tuple[Any, ...]:
    """Return a vector of numbers."""
    found = getattr(table, f"{name}AsNumpy")()
    return tuple(found.tolist()) if isinstance(found, np.ndarray) else ()


def _value(number: int, tensor: Any, buffers: list[Any]) -> Value:
    name = _short(tensor.Name() or b"", number)
    if tensor.Sparsity() is not None:
        raise InputError(f"{name}: sparse; dense tensors are read")
    data = buffers[tensor.Buffer()].DataAsNumpy()
    shape, quantization = _array(tensor, "Shape"), tensor.Quantization()
    scale = _array(quantization, "Scale") if quantization else ()
    zero = _array(quantization, "ZeroPoint") if quantization else ()
    axis = quantization.QuantizedDimension() if quantization else 0
    if len(shape) > 8 or any(side < -1 for side in shape):
        raise ValueError
    if len(zero) not in (0, len(scale)) or (len(scale) > 1 and len(scale) != shape[axis]):
        raise InputError(f"{name}: {len(scale)} scales do not fit its shape {list(shape)}")
    return Value(
        number=number,
        name=name,
        shape=shape,
        kind=tensor.Type(),
        content=data.tobytes() if isinstance(data, np.ndarray) else b"",
        scale=scale,
        zero=zero,
        axis=axis,
    )


def _short(name: bytes, number: int) -> str:
    text = printable(one_line(name.decode("utf-8", "replace"))).partition(";")[0]
    return f"tensor {number}" + (f" {text[:_LONGEST]}" if text else "")


def _operator(number: int, operator: Any, codes: list[str], values: tuple[Value, ...]) -> Operator:
    kind = codes[operator.OpcodeIndex()]
    inputs, outputs = _array(operator, "Inputs"), _array(operator, "Outputs")
    numbers = (0, *inputs, *outputs)
    if not outputs or min(numbers) < -1 or max(numbers) >= len(values) or min(outputs) < 0:
        raise ValueError
    options, table = None, operator.BuiltinOptions()
    if kind in _OPTIONS:
        options = _OPTIONS[kind]()
        expected = getattr(tflite.BuiltinOptions, _OPTIONS[kind].__name__)
        if table is None or operator.BuiltinOptionsType() != expected:
            raise ValueError
        options.Init(table.Bytes, table.Pos)
    title = f"operator {number} {kind} ({values[outputs[0]].name})"
    return Operator(
        number=number, kind=kind, inputs=inputs, outputs=outputs, options=options, title=title
    )
