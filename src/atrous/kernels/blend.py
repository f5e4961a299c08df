"""A photo under its labels' colours: blend.c and its NumPy reference."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.kernels import call, is_available


def blend(
    image: NDArray[np.uint8],  # (H, W, 3)
    labels: NDArray[np.integer[Any]],  # (H, W), 0 to 255
    weights: NDArray[np.uint16],  # (256,)
    colors: NDArray[np.uint16],  # (256, 3)
    canvas: NDArray[np.uint8],  # (h, w, 3), contiguous
) -> None:
    """Fill the upper left of `canvas`: the image times its label's weight, plus its colour.

    Weights and colours are in 256ths.
    """
    height, width = labels.shape
    if not is_available("blend"):
        labels = labels.astype(np.uint8)
        canvas[:height, :width] = (image * weights[labels][:, :, None] + colors[labels]) >> 8
        return
    image, labels = np.ascontiguousarray(image), np.ascontiguousarray(labels, np.uint8)
    call("blend", image, labels, weights, colors, canvas, height, width, canvas.strides[0])
