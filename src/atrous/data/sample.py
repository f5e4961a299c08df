"""Sample: one image with its labels, wherever it was read from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atrous.files import InputError


@dataclass(frozen=True)
class Sample:
    """One labelled image."""

    image: NDArray[np.uint8]
    """(H, W, 3) sRGB."""
    label: NDArray[np.uint8]
    """(H, W) train ids, 255 = ignored."""
    key: str


def paired(
    image: NDArray[np.uint8], label: NDArray[np.uint8], key: str, label_name: str, image_name: str
) -> Sample:
    """The sample of an image (H, W, 3) and its label (H, W), which the names are for.

    Raises:
        InputError: they differ in size.
    """
    if image.shape[:2] != label.shape:
        raise InputError(
            f"{label_name}: {label.shape[1]}x{label.shape[0]}, but its image {image_name} is "
            f"{image.shape[1]}x{image.shape[0]}; a mask must have its image's size"
        )
    return Sample(image, label, key)
