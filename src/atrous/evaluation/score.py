"""Predictions and truth in, exact counts out.

Predictions are a stream of `Predicted`, one for each image. Two threads read the next images, and
another one counts the previous image, so only a few images are in memory. On a GPU images are
labelled in batches, and all cores read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.data.sample import Sample
from atrous.errors import InputError, about
from atrous.infer.batches import BatchSize, Label, label_stream
from atrous.infer.ordered_map import in_order
from atrous.kernels import usable_cores
from atrous.metrics import Boundary, Calibration, Confusion
from atrous.progress import Progress, silent

Labels = NDArray[np.integer[Any]]

Predict = Callable[[NDArray[np.uint8]], Labels]
"""An image, (H, W, C) uint8, to its labels, (H, W) train ids."""

PredictWithConfidence = Callable[[NDArray[np.uint8]], tuple[Labels, NDArray[np.float32] | None]]
"""An image to its labels and the probability of each label, (H, W)."""


class Predicted(NamedTuple):
    """Prediction and truth of one image."""

    key: str
    prediction: Labels  # (H, W) train ids
    label: NDArray[np.uint8]  # (H, W) train ids, 255 = ignored
    confidence: NDArray[np.float32] | None = None  # (H, W) probability of the predicted class


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of all images, by each requested metric."""

    confusion: Confusion
    boundary: Boundary | None = None
    calibration: Calibration | None = None

    def update(self, image: Predicted) -> None:
        """Count one image."""
        key, prediction, label, confidence = image
        with about(key):
            self.confusion.update(prediction, label, key)
            if self.boundary is not None:
                self.boundary.update(prediction, label)
            if self.calibration is not None and confidence is not None:
                self.calibration.update(confidence, prediction, label)


def count_samples(
    predict: Predict,
    samples: Sequence[Sample],
    num_classes: int,
    progress: Progress = silent,
    indices: Sequence[int] | None = None,
) -> Confusion:
    """Predict each image at its native size and count the pixels against its label.

    Args:
        predict: image to labels of the same height and width; called in this thread.
        samples: images with their truth; each is read once, in order.
        num_classes: K, of predictions and truth.
        progress: called after each image.
        indices: of the samples; by default all.
    """
    confusion = Confusion(num_classes)
    indices = range(len(samples)) if indices is None else indices
    count(predict_samples(predict, samples, indices), Tally(confusion), len(indices), progress)
    return confusion


def predict_samples(
    predict: Predict | PredictWithConfidence, samples: Sequence[Sample], indices: Sequence[int]
) -> Iterator[Predicted]:
    """Predict the samples of `indices`, in order, while two threads read the next ones."""
    with ThreadPoolExecutor(2) as readers:
        for sample in in_order(readers, samples.__getitem__, indices, ahead=3):
            with about(sample.key):
                result = predict(sample.image)
            labels, confidence = result if isinstance(result, tuple) else (result, None)
            yield Predicted(sample.key, labels, sample.label, confidence)


def predict_batches(
    label: Label, batch_size: BatchSize, samples: Sequence[Sample], indices: Sequence[int]
) -> Iterator[Predicted]:
    """Predict the samples of `indices`, in order, as many at a time as `batch_size` says.

    Args:
        label: images (B, H, W, C) to their labels, (B, H, W) train ids, and perhaps probabilities;
            called in this thread for single images, and in another one for batches.
        batch_size: size (H, W) to the number of images in a batch; 1 for the smallest: no batches.
        samples: images with their truth.
        indices: of the samples.
    """
    if batch_size((1, 1)) == 1:

        def predict(image: NDArray[np.uint8]) -> tuple[Labels, NDArray[np.float32] | None]:
            labels, confidence = label(image[None])
            return labels[0], None if confidence is None else confidence[0]

        yield from predict_samples(predict, samples, indices)
        return
    stream = label_stream(
        indices,
        samples.__getitem__,
        lambda sample: sample.image,
        label,
        batch_size,
        usable_cores(),
    )
    for sample, result, _ in stream:
        if isinstance(result, InputError):
            raise InputError(f"{sample.key}: {result}")
        yield Predicted(sample.key, result[0], sample.label, result[1])


def count(
    images: Iterable[Predicted], tally: Tally, total: int, progress: Progress = silent
) -> None:
    """Count `images`, `total` of them, into `tally`, each while the next one is predicted."""
    with ThreadPoolExecutor(1) as counter:
        for done, _ in enumerate(in_order(counter, tally.update, images, ahead=2), start=1):
            progress(done, total)


def check_same_classes(model: Sequence[str], data: Sequence[str], name: str, place: str) -> None:
    """Refuse to compare labels of different classes.

    Args:
        model: class names of the predictions, in order.
        data: class names of the truth, in order.
        name: of the model, for the message.
        place: of the truth, for the message.
    """
    if model == data:
        return
    if sorted(model) == sorted(data):
        raise InputError(
            f"{place}: its classes stand in another order than those of {name};"
            f" order them so: {', '.join(model)}"
        )
    known, wanted = set(model), set(data)
    parts = [
        f"{kind} {', '.join(sorted(names)[:4])}{', ...' if len(names) > 4 else ''}"
        for kind, names in (("lacks", wanted - known), ("also has", known - wanted))
        if names
    ]
    raise InputError(
        f"{name}: knows {len(model)} classes, where {place} has {len(data)}:"
        f" it {' and '.join(parts)}; take a model that was trained on these classes"
    )
