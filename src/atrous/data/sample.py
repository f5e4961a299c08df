"""Sample: one labelled image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.taxonomy import IGNORE_INDEX

__all__ = ["Sample"]


@dataclass(frozen=True)
class Sample:
    """One labelled image."""

    image: NDArray[np.uint8]
    """(H, W, C): sRGB, or the bands that the data set names."""
    label: NDArray[np.uint8]
    """(H, W) train ids, 255 = ignored."""
    key: str


def paired(
    image: NDArray[np.uint8],
    label: NDArray[np.uint8],
    key: str,
    label_name: str,
    image_name: str,
    has_data: NDArray[np.bool_] | None,
) -> Sample:
    """Return the sample of an image (H, W, C) and its label (H, W); errors use the names.

    The label is ignored where the image has no data, (H, W).
    """
    if image.shape[:2] != label.shape:
        raise InputError(
            f"{label_name}: {label.shape[1]}x{label.shape[0]}, but its image {image_name} is "
            f"{image.shape[1]}x{image.shape[0]}; a mask must have its image's size"
        )
    return Sample(image, without_data_ignored(label, has_data), key)


def without_data_ignored(
    label: NDArray[np.uint8], has_data: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Return a label (H, W) that is ignored where the image has no data (None: data everywhere).

    A label of another size stays as it is.
    """
    if has_data is None or has_data.shape != label.shape or has_data.all():
        return label
    return np.where(has_data, label, np.uint8(IGNORE_INDEX))
