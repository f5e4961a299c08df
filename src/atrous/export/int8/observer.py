"""Ranges of tensors over images.

onnxruntime's own calibration keeps every tensor of every image in memory; here only the extremes
and a sample of each image are kept. A range is the part between the extremes that rounds and clips
the sample with the least squared error (as in Banner et al. 2019, arXiv:1810.05723, by search
instead of by formula).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from atrous.infer.runtimes.onnx import import_onnxruntime

_SAMPLE = 2048
"""Number of values of each tensor that are kept of an image."""


@dataclass(eq=False)
class Observer:
    """Values of one tensor over the images so far."""

    low: float = 0.0
    high: float = 0.0
    sample: list[NDArray[np.float32]] = field(default_factory=list)  # (about _SAMPLE,) each
    num_values: int = 0
    """Number of values in the last image."""

    def update(self, tensor: NDArray[np.float32]) -> None:
        """Add the tensor of one image, (1, C, h, w)."""
        values = tensor.ravel()
        self.low, self.high = min(self.low, values.min()), max(self.high, values.max())
        step = max(1, values.size // _SAMPLE)
        self.sample.append(values[len(self.sample) % step :: step].copy())
        self.num_values = values.size

    @cached_property
    def range(self) -> tuple[float, float]:
        """Limits of the 8-bit values: one of 0 or less, one of 0 or more."""
        return best_range(np.concatenate(self.sample), float(self.low), float(self.high))


def observe(
    model: onnx.ModelProto, names: Sequence[str], images: Iterable[NDArray[np.uint8]]
) -> dict[str, Observer]:
    """Run `model` on each image, (H, W, C), and observe the tensors `names`, (1, C, h, w) each."""
    with_outputs = onnx.ModelProto()
    with_outputs.CopyFrom(model)
    returned = {output.name for output in model.graph.output}
    with_outputs.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in returned
    )
    session = import_onnxruntime().InferenceSession(
        with_outputs.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    observers = {name: Observer() for name in names}
    for image in images:
        tensors = session.run(list(names), {"image": image[None]})
        for name, tensor in zip(names, tensors, strict=True):
            observers[name].update(tensor)
    return observers


def best_range(values: NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    """Return the part of [low, high] whose 256 steps give `values` the least squared error.

    Args:
        values: (N,) a sample of the values that will be rounded and clipped.
        low: lower extreme, 0 or less.
        high: upper extreme, 0 or more.
    """
    candidates = [(low * part, high * part) for part in np.linspace(0.3, 1, 29)]
    return min(candidates, key=lambda limits: _squared_error(values, *limits))


def _squared_error(values: NDArray[np.float32], low: float, high: float) -> float:
    """Return the mean squared error of rounding `values` to 256 steps from `low` to `high`."""
    step, zero = steps(low, high)
    rounded = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return float(np.mean((rounded - values) ** 2))


def steps(low: float, high: float) -> tuple[float, int]:
    """Return the width of the 256 steps from `low` to `high`, and the number of the one for 0."""
    step = max((high - low) / 255, 1e-12)
    return step, round(-low / step)
