"""Predictions and truth in, counts out: the one place where prediction meets truth.

Predictions come from a model, or from files that any program wrote. Both become a stream of
`Predicted`, one image after the other; masks and photos are decoded ahead of it in threads, and
counted behind it in another. No more than a few images are in memory, whatever their number.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import UNKNOWN, Encoding, color_name, read_index, read_rgb
from atrous.data.encodings.panoptic import PanopticEntry, read_annotations
from atrous.data.schema import one_line
from atrous.errors import InputError
from atrous.evaluation.predictions import stems
from atrous.images.photos import read_colors, read_label
from atrous.infer.ordered_map import in_order
from atrous.metrics import Confusion, Panoptic, PanopticQuality
from atrous.progress import Progress
from atrous.taxonomy import IGNORE_INDEX, Taxonomy
from atrous.text import amount

if TYPE_CHECKING:
    from atrous.data.sample import Sample
    from atrous.data.shards.read import Shards
    from atrous.data.split import Split
    from atrous.metrics.boundary import Boundary
    from atrous.metrics.calibration import Calibration

Labels = NDArray[np.integer[Any]]

Predict = Callable[[NDArray[np.uint8]], Labels]
"""An image, (H, W, 3) uint8 sRGB, to its labels, (H, W) train ids."""

"""Called after each image with how many are done, and of how many."""


class Predicted(NamedTuple):
    """One image's prediction beside its truth."""

    key: str
    prediction: Labels  # (H, W) train ids
    label: NDArray[np.uint8]  # (H, W) train ids, 255 = ignored
    confidence: NDArray[np.float32] | None = None  # (H, W) probability of the predicted class


@dataclass(frozen=True, eq=False)
class Tally:
    """What is counted of each image."""

    confusion: Confusion
    boundary: "Boundary | None" = None
    calibration: "Calibration | None" = None

    def update(self, image: Predicted) -> None:
        """Count one image.

        Raises:
            InputError: the prediction or the label does not fit; the line names the image.
        """
        key, prediction, label, confidence = image
        try:
            self.confusion.update(prediction, label, key)
            if self.boundary is not None:
                self.boundary.update(prediction, label)
            if self.calibration is not None and confidence is not None:
                self.calibration.update(confidence, prediction, label)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None


def evaluate(
    predict: Predict,
    samples: "Sequence[Sample]",
    num_classes: int,
    progress: Progress | None = None,
    indices: range | None = None,
) -> Confusion:
    """Predict each image at its native size and count the pixels against its label.

    Args:
        predict: image to labels of the same height and width; called in this thread.
        samples: images with their truth; each is read once, in order, and let go.
        num_classes: K, of the model and of the truth alike.
        progress: told of each image that is done.
        indices: which of the samples; all of them if left out.

    Raises:
        InputError: an image cannot be read, or a prediction or a label does not fit; the line
            names the image.
    """
    tally = Tally(Confusion(num_classes))
    indices = range(len(samples)) if indices is None else indices
    images = predicted(lambda image: (predict(image), None), samples, indices)
    count(images, tally, len(indices), progress)
    return tally.confusion


def predicted(
    predict: Callable[[NDArray[np.uint8]], tuple[Labels, NDArray[np.float32] | None]],
    samples: "Sequence[Sample]",
    indices: Sequence[int],
) -> Iterator[Predicted]:
    """Predict the samples of `indices`, in order, while two threads read the next ones.

    Args:
        predict: image to labels (H, W), and to their probabilities (H, W) or None.
        samples: images with their truth.
        indices: which of them.

    Raises:
        InputError: an image or its label cannot be read, or the image cannot be predicted.
    """
    with ThreadPoolExecutor(2) as readers:
        for sample in in_order(readers, samples.__getitem__, indices, ahead=3):
            try:
                prediction, confidence = predict(sample.image)
            except InputError as error:
                raise InputError(f"{sample.key}: {error}") from None
            yield Predicted(sample.key, prediction, sample.label, confidence)


def read_predictions(
    paths: Mapping[int, Path],
    samples: "Split | Shards",
    num_classes: int,
    encoding: Encoding | None = None,
) -> Iterator[Predicted]:
    """Read predictions and their truth, in order, in two threads; no image is read.

    Args:
        paths: index of the sample -> its label file; `atrous.evaluation.predictions` finds them.
        samples: the truth.
        num_classes: K.
        encoding: that of the data set, where the files hold its dataset ids (or its colours);
            None where they hold train ids.

    Raises:
        InputError: a file cannot be read, has another size than its truth, or holds no class where
            a class is wanted; the line names the file.
    """
    if encoding is not None and not encoding.nearest:  # the unknown is refused where it counts
        table = np.where(encoding.table == UNKNOWN, np.int16(IGNORE_INDEX), encoding.table)
        encoding = replace(encoding, table=table)

    def read(index: int) -> Predicted:
        path, label = paths[index], samples.label(index)
        prediction = _read_ids(path, encoding)
        if prediction.shape != label.shape:
            height, width = label.shape
            raise InputError(
                f"{path}: {prediction.shape[1]}x{prediction.shape[0]}, but its truth is "
                f"{width}x{height}; predict at the size of the image"
            )
        wrong = (label != IGNORE_INDEX) & ((prediction < 0) | (prediction >= num_classes))
        if wrong.any():
            raise _no_class(path, wrong, num_classes, encoding)
        return Predicted(samples.keys[index], prediction, label)

    with ThreadPoolExecutor(2) as readers:
        yield from in_order(readers, read, paths, ahead=3)


def _read_ids(path: Path, encoding: Encoding | None) -> Labels:
    """Read a prediction, (H, W) train ids."""
    if encoding is None:
        return read_label(path)
    return read_rgb(path, encoding) if encoding.name == "rgb" else read_index(path, encoding)


def _no_class(
    path: Path, wrong: NDArray[np.bool_], num_classes: int, encoding: Encoding | None
) -> InputError:
    """What to say of a prediction that is no class at the pixels `wrong`, (H, W)."""
    colors = encoding is not None and encoding.name == "rgb"
    values = np.unique((read_colors(path) if colors else read_label(path))[wrong]).tolist()
    named = ", ".join(color_name(value) if colors else str(value) for value in values[:5])
    named += ", ..." if len(values) > 5 else ""
    if encoding is not None:
        mend = "predict one for every pixel"
        return InputError(f"{path}: holds {named}, no class, where the truth is one; {mend}")
    ids = f"train ids 0 to {num_classes - 1}"
    if values == [IGNORE_INDEX]:
        mend = f"predict every pixel, by {ids}"
        return InputError(f"{path}: holds 255 (ignored) where the truth is a class; {mend}")
    mend = "if these are the ids of the data set's own files, say --ids dataset"
    return InputError(f"{path}: holds {named}, where {ids} can be; {mend}")


def merge_parts(paths: Sequence[Path], keys: Sequence[str], about: Mapping[str, Any]) -> Confusion:
    """Load counts that `Confusion.save` wrote, all of the images `keys` and each once.

    Args:
        paths: the files.
        keys: of the images, in the order that the result shall have them.
        about: what each file must say: the `data`, the `split` and its `classes`.

    Returns:
        The sum, with the `model` of each file in its `about`.

    Raises:
        InputError: a file holds no such counts, or counts of other images.
    """
    whole = Confusion(len(about["classes"]))
    models: dict[str, None] = {}
    for path in paths:
        part = Confusion.load(path)
        wrong = [key for key, value in about.items() if part.about.get(key) != value]
        if wrong:
            raise InputError(
                f"{path}: counts of other {wrong[0]}; score it on {about['data']}, "
                f"split {about['split']}, again"
            )
        try:
            whole.merge(part)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        models[one_line(part.about.get("model"))] = None
    images = dict(zip(whole.keys, whole.images, strict=True))
    if wrong := sorted(images.keys() ^ set(keys)):
        have = "hold besides" if wrong[0] in images else "lack"
        raise InputError(
            f"{paths[0]}: {amount(len(images), 'image')} in {amount(len(paths), 'file')}, in place "
            f"of {amount(len(keys), 'image')} of split {about['split']}; they {have} {wrong[0]}; "
            "give each part of these images once"
        )
    whole.keys, whole.images = list(keys), [images[key] for key in keys]
    whole.about["model"] = " + ".join(models)
    return whole


def count(images: Iterable[Predicted], tally: Tally, total: int, progress: Progress | None) -> None:
    """Count `images`, `total` of them, into `tally`, each while the next one is being predicted.

    Raises:
        InputError: an image cannot be read, or a prediction or a label does not fit.
    """
    with ThreadPoolExecutor(1) as counter:
        for done, _ in enumerate(in_order(counter, tally.update, images, ahead=2), start=1):
            if progress is not None:
                progress(done, total)


def evaluate_panoptic(
    result: Path, truth: "Split", taxonomy: Taxonomy, progress: Progress | None = None
) -> PanopticQuality:
    """Score a panoptic result in COCO's format.

    Args:
        result: JSON; its PNGs lie in the folder of the same name beside it, or beside itself. Its
            categories are the data set's own ids.
        truth: a split whose masks hold segments.
        taxonomy: its classes.
        progress: told of each image that is done.

    Raises:
        InputError: a file is not what it should be, or an image has no result.
    """
    truth.panoptic(0)  # refuses a data set without segments, before its result is looked at
    predictions = _panoptic_predictions(result, truth)
    quality = PanopticQuality(taxonomy.categories())

    def read(index: int) -> tuple[Panoptic, Panoptic]:
        return predictions.panoptic(index), truth.panoptic(index)

    with ThreadPoolExecutor(2) as readers:
        pairs = in_order(readers, read, range(len(truth)), ahead=3)
        for index, (predicted, true) in enumerate(pairs):
            try:
                quality.update(predicted, true)
            except InputError as error:
                raise InputError(f"{truth.keys[index]}: {error}") from None
            if progress is not None:
                progress(index + 1, len(truth))
    return quality


def _panoptic_predictions(result: Path, truth: "Split") -> "Split":
    """The segments that `result` holds for each key of `truth`, to be read as a split."""
    known = np.flatnonzero(truth.encoding.table[:-1] != UNKNOWN).tolist()
    categories = [{"id": i, "name": str(i), "isthing": 0} for i in known]
    entries = read_annotations(result, categories).images
    found: dict[str, PanopticEntry] = {}
    for key, names in zip(truth.keys, stems([[key] for key in truth.keys]), strict=True):
        stem = next((name for name in names if name in entries), None)
        if stem is None:
            looked = " or ".join(f"{name}.png" for name in names)
            raise InputError(f"{result}: no result of {key}; looked for the file_name {looked}")
        found[entries[stem].file_name] = entries[stem]
    return replace(
        truth,
        folder=folder if (folder := result.with_suffix("")).is_dir() else result.parent,
        labels="{key}",
        keys=tuple(found),
        encoding=replace(truth.encoding, name="coco-panoptic"),
        annotations=found,
    )
