"""The range of each tensor over images.

onnxruntime's own calibration keeps every tensor of every image in memory; here each image leaves
only extremes and a sample. A range is not the extremes but the part of them that rounds and
clips the sample with the least squared error (as in Banner et al. 2019, arXiv:1810.05723, by search
instead of by formula).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from atrous.infer.runtimes.onnx import import_onnxruntime

_SAMPLE = 2048
"""Values of each tensor that an image leaves behind."""


@dataclass(eq=False)
class Spread:
    """How the values of one tensor spread over the images seen so far."""

    low: float = 0.0
    high: float = 0.0
    sample: list[NDArray[np.float32]] = field(default_factory=list)  # (about _SAMPLE,) each
    cells: int = 0
    """Values per image, in the last one."""

    def update(self, tensor: NDArray[np.float32]) -> None:  # (1, C, h, w)
        """Add what one image gave."""
        values = tensor.ravel()
        self.low, self.high = min(self.low, values.min()), max(self.high, values.max())
        step = max(1, values.size // _SAMPLE)
        self.sample.append(values[len(self.sample) % step :: step].copy())
        self.cells = values.size

    @cached_property
    def range(self) -> tuple[float, float]:
        """What 8 bits shall span: the lower end is 0 or less, the upper 0 or more."""
        return best_range(np.concatenate(self.sample), float(self.low), float(self.high))


def spreads(
    model: onnx.ModelProto, names: Sequence[str], images: Iterable[NDArray[np.uint8]]
) -> dict[str, Spread]:
    """Run `model` on each image, (H, W, 3), and watch the tensors `names`, (1, C, h, w) each."""
    session = _session_with_outputs(model, names)
    found = {name: Spread() for name in names}
    for image in images:
        tensors = session.run(list(names), {"image": image[None]})
        for name, tensor in zip(names, tensors, strict=True):
            found[name].update(tensor)
    return found


def _session_with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> Any:
    """A session of `model` that also returns its inner tensors `names`."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    returned = {output.name for output in model.graph.output}
    for name in names:
        if name not in returned:
            opened.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return import_onnxruntime().InferenceSession(
        opened.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def best_range(values: NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    """The part of [low, high] whose 256 steps give `values` the least squared error.

    Args:
        values: (N,) a sample of what will be rounded and clipped.
        low: its lower extreme, 0 or less.
        high: its upper extreme, 0 or more.
    """
    candidates = [(low * part, high * part) for part in np.linspace(0.3, 1, 29)]
    return min(candidates, key=lambda limits: _squared_error(values, *limits))


def _squared_error(values: NDArray[np.float32], low: float, high: float) -> float:
    """The mean squared error of rounding `values` to 256 steps from `low` to `high`."""
    step, zero = steps(low, high)
    rounded = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return float(np.mean((rounded - values) ** 2))


def steps(low: float, high: float) -> tuple[float, int]:
    """The width of the 256 steps from `low` to `high`, and which of them stands for 0."""
    step = max((high - low) / 255, 1e-12)
    return step, round(-low / step)
