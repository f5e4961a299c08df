"""Test-time augmentation: a runtime that averages over flips and scales of each image.

The mean is of probabilities, and its logarithm is returned as logits, so that argmax, upsampling
and confidence work as for one image. (As DeepLab's evaluation, Chen et al. 2017, arXiv:1706.05587,
section 4, which averages over scales 0.5 to 1.75 and both directions.)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.images.photos import resized
from atrous.infer.runtimes.base import Runtime
from atrous.kernels.upsample import interpolate

_GRID = 32
"""A multiple of every output stride, to which a network pads at the right and at the bottom."""


class AugmentedRuntime(Runtime):
    """A runtime whose logits are the mean over scales and, with `flip`, over mirror images."""

    def __init__(self, runtime: Runtime, flip: bool, scales: Sequence[float] = ()):
        """Wrap `runtime`.

        Args:
            runtime: images to logits.
            flip: whether to average over mirrored images, too.
            scales: factors of the images' sizes; none: 1 alone.
        """
        if wrong := [scale for scale in scales if not 0.1 <= scale <= 8]:
            raise InputError(
                f"--scales {wrong[0]:g}: give scales from 0.1 to 8, such as 0.75 1 1.25"
            )
        self._runtime, self._flip, self._scales = runtime, flip, tuple(scales) or (1.0,)
        self.name, self.threads, self.precision = runtime.name, runtime.threads, runtime.precision
        self.metadata = runtime.metadata
        what = ["flip"] * flip + [f"scales {' '.join(f'{s:g}' for s in scales)}"] * bool(scales)
        self.model_name = " with ".join([runtime.model_name, " and ".join(what)])

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images (B, H, W, C) to logits (B, K, ceil(H / stride), ceil(W / stride))."""
        return np.stack([self._mean(image) for image in images])

    def _mean(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:  # (H, W, C) -> (K, h, w)
        sizes = [_scaled(image.shape[:2], scale) for scale in self._scales]
        stride = self.metadata.stride
        cells = -(-image.shape[0] // stride), -(-image.shape[1] // stride)  # (h, w)
        # An image is resized between pixel areas: the first cell's centre in strides from its edge.
        center = 0.5 / stride if self.metadata.aligned else 0.5
        total: NDArray[np.float32] | float = 0.0
        for height, width in sizes:
            steps = height / image.shape[0], width / image.shape[1]
            scaled = image if steps == (1, 1) else resized(image, (height, width))
            for probabilities in self._probabilities(scaled):  # (K, h', w')
                total = total + interpolate(probabilities, steps, cells, center)
        mean = np.asarray(total, np.float32) / (len(sizes) * (1 + self._flip))
        return np.log(np.maximum(mean, np.finfo(np.float32).tiny))

    def _probabilities(self, image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return the probabilities (K, h, w) of one image (H, W, C), and of its mirror image."""
        if not self._flip:
            return [_softmax(self._runtime(image[None])[0])]
        # A network pads at the right: only a width that needs no padding keeps its cells in place
        # when it is mirrored.
        width = image.shape[1]
        missing = (int(self.metadata.aligned) - width) % _GRID
        padded = np.pad(image, ((0, 0), (0, missing), (0, 0)), mode="edge")
        pair = self._runtime(np.stack([padded, padded[:, ::-1]]))  # (2, K, h, w')
        cells = -(-width // self.metadata.stride)
        return [_softmax(pair[0])[..., :cells], _softmax(pair[1])[..., ::-1][..., :cells]]


def _scaled(size: Sequence[int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:  # (K, h, w)
    powers = np.exp(logits - logits.max(0))
    return np.asarray(powers / powers.sum(0), np.float32)
