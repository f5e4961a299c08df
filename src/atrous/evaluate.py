"""A model and a dataset in, a confusion matrix out: the one place where prediction meets truth."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from atrous.files import InputError
from atrous.metrics import Confusion

if TYPE_CHECKING:
    from atrous.data.dataset import Sample

Predict = Callable[[NDArray[np.uint8]], NDArray[np.integer[Any]]]
"""An image, (H, W, 3) uint8 sRGB, to its labels, (H, W) train ids."""

Progress = Callable[[int, int], None]
"""Called after each image with how many are done, and of how many."""


def evaluate(
    predict: Predict,
    samples: "Sequence[Sample]",
    num_classes: int,
    progress: Progress | None = None,
) -> Confusion:
    """Predict each image at its native size and count the pixels against its label.

    Args:
        predict: image to labels of the same height and width.
        samples: images with their truth; each is read once, in order, and let go.
        num_classes: K, of the model and of the truth alike.
        progress: told of each image that is done.

    Raises:
        InputError: an image cannot be read, or a prediction or a label does not fit; the line
            names the image.
    """
    confusion = Confusion(num_classes)
    for index in range(len(samples)):
        sample = samples[index]
        prediction = predict(sample.image)
        try:
            confusion.update(prediction, sample.label)
        except InputError as error:
            raise InputError(f"{sample.key}: {error}") from None
        if progress is not None:
            progress(index + 1, len(samples))
    return confusion
