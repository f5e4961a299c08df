"""TFLite files of our networks, written operator by operator: what TensorFlow's converter makes.

Only layers and their order are shared with the importer: shapes, padding and constants are written
here, from the schema.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tflite
import torch

from atrous.models.layers import ASPP, ConvNormAct, SeparableConv

TYPES = {
    "float32": tflite.TensorType.FLOAT32,
    "float16": tflite.TensorType.FLOAT16,
    "int8": tflite.TensorType.INT8,
    "uint8": tflite.TensorType.UINT8,
    "int32": tflite.TensorType.INT32,
    "int64": tflite.TensorType.INT64,
}
ACTIVATIONS = {"none": 0, "relu": 1, "relu6": 3}
OPTIONS = {
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "ADD": "Add",
    "MUL": "Mul",
    "AVERAGE_POOL_2D": "Pool2D",
    "CONCATENATION": "Concatenation",
    "RESIZE_BILINEAR": "ResizeBilinear",
    "ARG_MAX": "ArgMax",
}


@dataclass(eq=False)
class Graph:
    """A graph that grows by operators; tensors are numbers."""

    tensors: list[dict[str, Any]] = field(default_factory=list)
    operators: list[tuple[str, list[int], int, dict[str, int]]] = field(default_factory=list)

    def tensor(self, shape, kind="float32", content=b"", scale=(), zero=(), axis=0) -> int:
        name = f"t{len(self.tensors)}"
        self.tensors.append(
            {"shape": list(shape), "kind": kind, "content": content, "name": name}
            | {"scale": list(scale), "zero": list(zero), "axis": axis}
        )
        return len(self.tensors) - 1

    def constant(self, values: np.ndarray, **quantization: Any) -> int:
        return self.tensor(values.shape, str(values.dtype), values.tobytes(), **quantization)

    def operator(self, kind: str, inputs: list[int], shape, dtype="float32", **options: int) -> int:
        out = self.tensor(shape, dtype)
        self.operators.append((kind, inputs, out, options))
        return out

    def shape(self, number: int) -> list[int]:
        return self.tensors[number]["shape"]

    def write(self, path: Path, first: int, last: int) -> Path:
        path.write_bytes(self.content(first, last))
        return path

    def content(self, first: int, last: int) -> bytes:
        """The file's bytes."""
        b = flatbuffers.Builder(1 << 16)
        kinds = sorted({kind for kind, *_ in self.operators})
        buffers = [self._table(b, "Buffer")]
        tensors = []
        for t in self.tensors:
            if t["content"]:
                data = b.CreateByteVector(t["content"])
                buffers.append(self._table(b, "Buffer", Data=data))
            quantization = {}
            if t["scale"]:
                scale = b.CreateNumpyVector(np.array(t["scale"], np.float32))
                zero = b.CreateNumpyVector(np.array(t["zero"], np.int64))
                quantization["Quantization"] = self._table(
                    b,
                    "QuantizationParameters",
                    Scale=scale,
                    ZeroPoint=zero,
                    QuantizedDimension=t["axis"],
                )
            shape, name = (
                b.CreateNumpyVector(np.array(t["shape"], np.int32)),
                b.CreateString(t["name"]),
            )
            buffer = len(buffers) - 1 if t["content"] else 0
            tensors.append(
                self._table(
                    b,
                    "Tensor",
                    Shape=shape,
                    Type=TYPES[t["kind"]],
                    Buffer=buffer,
                    Name=name,
                    **quantization,
                )
            )
        operators = [self._operator(b, kinds, *operator) for operator in self.operators]
        codes = [self._code(b, kind) for kind in kinds]
        graph = self._table(
            b,
            "SubGraph",
            Tensors=_offsets(b, tensors),
            Inputs=b.CreateNumpyVector(np.array([first], np.int32)),
            Outputs=b.CreateNumpyVector(np.array([last], np.int32)),
            Operators=_offsets(b, operators),
        )
        model = self._table(
            b,
            "Model",
            Version=3,
            OperatorCodes=_offsets(b, codes),
            Subgraphs=_offsets(b, [graph]),
            Buffers=_offsets(b, buffers),
        )
        b.Finish(model, b"TFL3")
        return bytes(b.Output())

    def _operator(self, b, kinds, kind, inputs, out, options) -> int:
        table = {}
        if kind in OPTIONS:
            name = f"{OPTIONS[kind]}Options"
            table["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, name)
            table["BuiltinOptions"] = self._table(b, name, **options)
        ins = b.CreateNumpyVector(np.array(inputs, np.int32))
        outs = b.CreateNumpyVector(np.array([out], np.int32))
        index = kinds.index(kind)
        return self._table(b, "Operator", OpcodeIndex=index, Inputs=ins, Outputs=outs, **table)

    def _code(self, b, kind: str) -> int:
        number = getattr(tflite.BuiltinOperator, kind)
        version = 2 if kind in ("DEPTHWISE_CONV_2D", "DEQUANTIZE") else 1
        return self._table(
            b,
            "OperatorCode",
            DeprecatedBuiltinCode=number,
            BuiltinCode=number,
            Version=version,
        )

    @staticmethod
    def _table(b, name: str, **values: Any) -> int:
        getattr(tflite, f"{name}Start")(b)
        for key, value in values.items():
            getattr(tflite, f"{name}Add{key}")(b, value)
        return int(getattr(tflite, f"{name}End")(b))


def _offsets(b, tables: list[int]) -> int:
    b.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        b.PrependUOffsetTRelative(table)
    return int(b.EndVector())


class Written(Graph):
    """A network of ours as a TFLite graph.

    Args:
        network: a DeepLabV3 or DeepLabV3Plus on one of TensorFlow's MobileNetV2.
        size: (H, W) of the image.
        weights: type of the weights: float32, float16, int8 or uint8.
        per_channel: a scale for each output, where they are quantised.
        rearranged: dilated convolutions by SPACE_TO_BATCH_ND, their norms apart.
        labels: end in an ARG_MAX.
    """

    def __init__(
        self, network, size, weights="float32", *, per_channel=True, rearranged=False, labels=False
    ) -> None:
        super().__init__()
        self.weights, self.per_channel, self.rearranged = weights, per_channel, rearranged
        self.first = x = self.tensor([1, *size, 3])
        backbone = network.backbone.network
        x = self.conv(x, backbone.conv_stem, backbone.bn1, "relu6")
        low_level = -1
        for stage, blocks in enumerate(backbone.blocks):
            for i, block in enumerate(blocks):
                x, inner = self.block(x, block)
                low_level = inner if (stage, i) == (1, 1) else low_level
        x = self.pyramid(x, network.aspp)
        if hasattr(network, "reduce"):
            low = self.conv_norm_act(low_level, network.reduce)
            x = self.resize(x, self.shape(low)[1:3])
            x = self.joined([x, self.resize(low, self.shape(low)[1:3])])
            for conv in network.decoder:
                x = self.spatial(x, conv)
        x = self.conv(x, network.head[1], None, "none")
        x = self.resize(self.resize(x, self.shape(x)[1:3]), size)
        self.last = x
        if labels:
            axis = self.constant(np.array(3, np.int32))
            self.last = self.operator("ARG_MAX", [x, axis], [1, *size], "int64", OutputType=4)

    def save(self, path: Path) -> Path:
        return self.write(path, self.first, self.last)

    def block(self, x: int, block) -> tuple[int, int]:
        """An inverted residual; returns what its last 1x1 takes, too."""
        start = x
        if hasattr(block, "conv_pwl"):
            x = self.conv(x, block.conv_pw, block.bn1, "relu6")
            inner = self.conv(x, block.conv_dw, block.bn2, "relu6")
            x = self.conv(inner, block.conv_pwl, block.bn3, "none")
        else:
            inner = self.conv(x, block.conv_dw, block.bn1, "relu6")
            x = self.conv(inner, block.conv_pw, block.bn2, "none")
        if block.has_skip:
            x = self.operator("ADD", [x, start], self.shape(x))
        return x, inner

    def pyramid(self, x: int, aspp: ASPP) -> int:
        branches = [self.spatial(x, branch) for branch in aspp.branches]
        weight = aspp.project[0].weight
        if aspp.image_pooling is not None:  # TensorFlow joins it first
            _, height, width, channels = self.shape(x)
            mean = self.operator(
                "AVERAGE_POOL_2D",
                [x],
                [1, 1, 1, channels],
                Padding=1,
                StrideW=width,
                StrideH=height,
                FilterWidth=width,
                FilterHeight=height,
            )
            mean = self.conv_norm_act(mean, aspp.image_pooling)
            branches.insert(0, self.resize(mean, (height, width)))
            last = self.shape(mean)[3]
            weight = torch.cat([weight[:, -last:], weight[:, :-last]], 1)
        joined = self.joined(branches) if len(branches) > 1 else branches[0]
        return self.conv(joined, aspp.project[0], aspp.project[1], "relu", weight)

    def spatial(self, x: int, module) -> int:
        if isinstance(module, SeparableConv):
            for part in module:
                x = self.conv_norm_act(x, part)
            return x
        return self.conv_norm_act(x, module)

    def conv_norm_act(self, x: int, module: ConvNormAct) -> int:
        return self.conv(x, module[0], module[1], "relu")

    def joined(self, tensors: list[int]) -> int:
        channels = sum(self.shape(t)[3] for t in tensors)
        return self.operator(
            "CONCATENATION", tensors, [*self.shape(tensors[0])[:3], channels], Axis=3
        )

    def resize(self, x: int, size) -> int:
        to = self.constant(np.array(size, np.int32))
        shape = [1, *size, self.shape(x)[3]]
        return self.operator("RESIZE_BILINEAR", [x, to], shape, AlignCorners=1)

    @torch.no_grad()
    def conv(self, x: int, conv, norm, activation: str, weight=None) -> int:
        """A convolution with its norm folded in."""
        weight = conv.weight if weight is None else weight
        factor, bias = torch.ones(len(weight)), conv.bias
        if norm is not None:
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            bias = norm.bias - norm.running_mean * factor
        depthwise = conv.groups > 1
        stride, dilation = conv.stride[0], conv.dilation[0]
        apart = self.rearranged and dilation > 1
        folded = weight if apart else weight * factor.reshape(-1, 1, 1, 1)
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        weights = self.weight(folded.permute(order).numpy(), 3 if depthwise else 0)
        shape = [1, *(-(-side // stride) for side in self.shape(x)[1:3]), len(weight)]
        if apart:
            zeros = self.constant(np.zeros(len(weight), np.float32))
            x = self.dilated(x, [weights, zeros], conv, depthwise)
            x = self.operator("MUL", [x, self.constant(factor.numpy())], shape)
            addend = self.constant(bias.numpy())
            fused = ACTIVATIONS[activation]
            return self.operator("ADD", [x, addend], shape, FusedActivationFunction=fused)
        inputs = [x, weights, self.constant(bias.numpy())]
        return self.convolution(inputs, shape, conv, depthwise, activation)

    def convolution(self, inputs, shape, conv, depthwise, activation, padding=0) -> int:
        dilation = 1 if padding else conv.dilation[0]
        options = {"Padding": padding, "StrideW": conv.stride[0], "StrideH": conv.stride[0]}
        options |= {"DilationWFactor": dilation, "DilationHFactor": dilation}
        options |= {"FusedActivationFunction": ACTIVATIONS[activation]}
        if depthwise:
            return self.operator("DEPTHWISE_CONV_2D", inputs, shape, **options, DepthMultiplier=1)
        return self.operator("CONV_2D", inputs, shape, **options)

    def dilated(self, x: int, constants: list[int], conv, depthwise: bool) -> int:
        d, margin = conv.dilation[0], conv.dilation[0] * (conv.kernel_size[0] // 2)
        _, height, width, channels = self.shape(x)
        more = [-(side + 2 * margin) % d for side in (height, width)]
        block = self.constant(np.array([d, d], np.int32))
        pads = self.constant(np.array([[margin, margin + n] for n in more], np.int32))
        crops = self.constant(np.array([[0, n] for n in more], np.int32))
        sides = [(n + 2 * margin + m) // d for n, m in zip((height, width), more, strict=True)]
        x = self.operator("SPACE_TO_BATCH_ND", [x, block, pads], [d * d, *sides, channels])
        shape = [d * d, *(side - 2 * (conv.kernel_size[0] // 2) for side in sides)]
        shape.append(conv.out_channels)
        x = self.convolution([x, *constants], shape, conv, depthwise, "none", padding=1)
        out = [1, height, width, conv.out_channels]
        return self.operator("BATCH_TO_SPACE_ND", [x, block, crops], out)

    def weight(self, values: np.ndarray, axis: int) -> int:
        """A weight in the file's type, and the operator that makes it float32 again."""
        if self.weights == "float32":
            return self.constant(np.ascontiguousarray(values))
        if self.weights == "float16":
            stored = self.constant(values.astype(np.float16))
        else:
            lowest = np.iinfo(self.weights).min
            others = tuple(i for i in range(4) if i != axis)
            low, high = values.min(others), values.max(others)
            if not self.per_channel:
                low, high = low.min(keepdims=True), high.max(keepdims=True)
            low, high = np.minimum(low, 0), np.maximum(high, 1e-3)
            if self.weights == "int8":  # which must be symmetric
                scale = np.maximum(-low, high) / 127
                zero = np.zeros_like(scale, np.int64)
            else:
                scale = (high - low) / 255
                zero = np.round(lowest - low / scale).astype(np.int64)
            along = [1] * 4
            along[axis] = len(scale)
            steps = values / scale.reshape(along) + zero.reshape(along)
            info = np.iinfo(self.weights)
            numbers = np.clip(np.round(steps), info.min, info.max).astype(self.weights)
            stored = self.constant(np.ascontiguousarray(numbers), scale=scale, zero=zero, axis=axis)
        return self.operator("DEQUANTIZE", [stored], values.shape)
