"""Evaluation of a model, of predictions in files, or of saved counts on a split of a data set.

In Python:

    truth = Truth.of(Dataset.open("camvid", root), "val")
    evaluation = evaluate(from_model(atrous.load("camvid"), truth), truth)
    evaluation.scores.miou
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import Dataset
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.decode import read_json
from atrous.errors import InputError, about
from atrous.evaluation.predictions import find_predictions, read_predictions
from atrous.evaluation.score import Predicted, Tally, check_same_classes, count, predict_batches
from atrous.infer.segmenter import Segmenter
from atrous.metrics import Boundary, Calibration, Confusion, Scores
from atrous.metrics.boundary import BoundaryScores
from atrous.metrics.confusion import Pair, TreeLevel, tree_scores
from atrous.metrics.interval import (
    BOUNDARY_MEANS,
    Interval,
    PairedTest,
    boundary_intervals,
    compare,
    intervals,
)
from atrous.metrics.protocols import check_protocol, without_nan
from atrous.progress import Track, untracked
from atrous.text import amount, one_line

__all__ = [
    "Evaluation",
    "Reference",
    "Source",
    "Truth",
    "compare_with",
    "evaluate",
    "from_counts",
    "from_files",
    "from_model",
]


@dataclass(frozen=True)
class Truth:
    """Samples of a data set that predictions are compared with."""

    dataset: Dataset
    split: str
    samples: Split | Shards
    indices: range
    """Indices of the samples that are scored."""

    @classmethod
    def of(cls, dataset: Dataset, split: str = "val") -> "Truth":
        """All samples of a split."""
        samples = dataset.split(split)
        return cls(dataset, split, samples, range(len(samples)))

    @property
    def classes(self) -> tuple[str, ...]:
        """K names."""
        return self.dataset.taxonomy.classes

    def about(self) -> dict[str, Any]:
        """Facts that counts must share to be merged or compared."""
        return {"data": self.dataset.name, "split": self.split, "classes": list(self.classes)}


class Source(NamedTuple):
    """Predictions of one model: a stream of images to be counted, or saved counts."""

    name: str
    images: Iterable[Predicted] | Confusion
    note: str = ""
    """A remark for the user, if there is one."""


@dataclass(frozen=True)
class Reference:
    """The model that an evaluation is compared with, on the same images."""

    name: str
    miou: float
    test: PairedTest


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Scores of one source of predictions."""

    name: str
    """Description: "camvid (int8, onnxruntime, 2 threads)"."""
    truth: Truth
    protocol: str
    confusion: Confusion
    scores: Scores
    intervals: Mapping[str, Interval]
    """95 % intervals of the means: miou, fwiou, macc, pacc; boundary_miou, boundary_mf."""
    boundary: BoundaryScores | None
    boundary_counts: NDArray[np.uint32] | None
    """(N, 7, K), as `Boundary.counts` returns them, if the boundaries were scored."""
    calibration: Calibration | None
    levels: Sequence[TreeLevel]
    """Scores of each depth of the class tree, if requested; the last one is of the classes."""
    pairs: Sequence[Pair] | None
    """Most frequent confusions, if requested."""
    reference: Reference | None = None

    @property
    def num_images(self) -> int:
        """Number of images that were scored."""
        return len(self.truth.indices)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; docs/evaluation.md describes them."""
        classes = self.truth.classes
        document: dict[str, Any] = {
            "model": self.name,
            "data": self.truth.dataset.name,
            "split": self.truth.split,
            "images": self.num_images,
            "missing": self.truth.samples.missing,
            **self.scores.to_dict(classes),
            "interval": self.intervals["miou"],
        }
        if self.boundary is not None:
            document |= self.boundary.to_dict(classes)
            document["boundary_intervals"] = {name: self.intervals[name] for name in BOUNDARY_MEANS}
        if self.calibration is not None:
            document["ece"] = self.calibration.ece()
            document["reliability"] = self.calibration.reliability()._asdict()
        if self.reference is not None:
            reference = {"model": self.reference.name, "miou": self.reference.miou}
            document["against"] = reference | self.reference.test._asdict()
        if self.levels:
            document["tree"] = [level.scores.to_dict(level.names) for level in self.levels]
        if self.pairs is not None:
            document["pairs"] = [
                pair._asdict() | {"true": classes[pair.true], "predicted": classes[pair.predicted]}
                for pair in self.pairs
            ]
        return without_nan(document | {"confusion": self.confusion.matrix})


def evaluate(
    source: Source,
    truth: Truth,
    *,
    protocol: str = "pooled",
    boundary: bool = False,
    calibration: bool = False,
    tree: bool = False,
    pairs: int = 0,
    track: Track = untracked,
) -> Evaluation:
    """Count predictions against their truth, and score the counts.

    Args:
        source: predictions, of `from_model`, `from_files` or `from_counts`.
        truth: the samples that the source predicts.
        protocol: one of `atrous.metrics.protocols.PROTOCOLS`.
        boundary: score the boundaries of each class, too; saved counts have none.
        calibration: compare the probabilities with the accuracy; needs a model with `confidence`.
        tree: score the groups of the class tree, too.
        pairs: number of most frequent confusions to list.
        track: shows the progress.
    """
    taxonomy, num_classes = truth.dataset.taxonomy, len(truth.classes)
    check_protocol(protocol)
    if tree and not taxonomy.groups:
        raise InputError(f"{taxonomy.name}: its classes have no groups, so there is no tree")
    if tree and protocol == "per-image":
        raise InputError("tree: groups cannot be scored per-image; take another protocol")
    if pairs < 0:
        raise InputError(f"pairs {pairs}: say how many, 1 or more")
    if boundary and isinstance(source.images, Confusion):
        raise InputError("boundary: saved counts do not hold any; score the predictions instead")
    tally = Tally(
        confusion := Confusion(num_classes),
        Boundary(num_classes) if boundary else None,
        Calibration() if calibration else None,
    )
    _fill(tally, source, truth, track)
    if len(truth.indices) == len(truth.samples) and not confusion.matrix.any():
        name, split = truth.dataset.name, truth.split
        raise InputError(f"{name}: no mask of split {split} holds a class to score by")
    confusion.about |= {"model": source.name, **truth.about()}
    ends = intervals(confusion.counts(), protocol)
    boundary_counts = None if tally.boundary is None else tally.boundary.counts()
    if boundary_counts is not None:
        ends |= boundary_intervals(boundary_counts)
    return Evaluation(
        name=source.name,
        truth=truth,
        protocol=protocol,
        confusion=confusion,
        scores=confusion.scores(protocol),
        intervals=ends,
        boundary=None if tally.boundary is None else tally.boundary.scores(),
        boundary_counts=boundary_counts,
        calibration=tally.calibration,
        levels=tree_scores(confusion, taxonomy.groups, truth.classes, protocol) if tree else (),
        pairs=confusion.pairs(pairs) if pairs else None,
    )


def compare_with(evaluation: Evaluation, reference: Source, track: Track = untracked) -> Evaluation:
    """Count `reference` on the same images, and test the difference in mIoU."""
    confusion, protocol = evaluation.confusion, evaluation.protocol
    other = Confusion(confusion.num_classes)
    _fill(Tally(other), reference, evaluation.truth, track)
    test = compare(confusion.counts(), other.counts(), protocol)
    miou = other.scores(protocol).miou
    return replace(evaluation, reference=Reference(reference.name, miou, test))


def from_model(
    segmenter: Segmenter, truth: Truth, *, name: str = "the model", confidence: bool = False
) -> Source:
    """Label the images by a model that knows the classes of the truth.

    Args:
        segmenter: the model.
        truth: images to label.
        name: of the model, in messages.
        confidence: predict probabilities, too, for a calibration.
    """
    classes = segmenter.metadata.taxonomy.classes
    check_same_classes(classes, truth.classes, name, truth.dataset.name)
    label = partial(segmenter.label, with_confidence=confidence)
    images = predict_batches(label, segmenter.batch_size, truth.samples, truth.indices)
    return Source(segmenter.description, images)


def from_files(folder: Path, truth: Truth, ids: Literal["train", "dataset"] = "train") -> Source:
    """Find the label files that any program wrote into `folder`.

    Args:
        folder: holds a file for each image.
        truth: images of the predictions.
        ids: what the files hold: train ids, or the ids (or colours) of the data set.
    """
    paths, passed_over = find_predictions(folder, truth.samples, truth.indices)
    for path in paths.values() if ids == "train" else ():
        _check_classes_beside(path, truth)
    encoding = truth.dataset.encoding if ids == "dataset" else None
    images = read_predictions(paths, truth.samples, len(truth.classes), encoding)
    note = f"{folder}: passed over {passed_over}" if passed_over else ""
    return Source(str(folder), images, note)


def from_counts(paths: Sequence[Path], truth: Truth) -> Source:
    """Load counts that `Confusion.save` wrote, which together hold each image exactly once.

    Args:
        paths: files of counts.
        truth: images of the counts.
    """
    whole = Confusion(len(truth.classes))
    models: dict[str, None] = {}
    for path in paths:
        part = Confusion.load(path)
        for key, value in truth.about().items():
            if part.about.get(key) != value:
                raise InputError(
                    f"{path}: counts of other {key}; score it on {truth.dataset.name}, "
                    f"split {truth.split}, again"
                )
        with about(path):
            whole.merge(part)
        models[one_line(part.about.get("model"))] = None
    keys = [truth.samples.keys[index] for index in truth.indices]
    images = dict(zip(whole.keys, whole.images, strict=True))
    if wrong := sorted(images.keys() ^ set(keys)):
        have = "also hold" if wrong[0] in images else "lack"
        raise InputError(
            f"{paths[0]}: {amount(len(images), 'image')} in {amount(len(paths), 'file')}, in place "
            f"of {amount(len(keys), 'image')} of split {truth.split}; they {have} {wrong[0]}; "
            "give each part of these images once"
        )
    whole.keys, whole.images = keys, [images[key] for key in keys]
    return Source(" + ".join(models), whole)


def _fill(tally: Tally, source: Source, truth: Truth, track: Track) -> None:
    if isinstance(source.images, Confusion):
        tally.confusion.merge(source.images)
        return
    with track("images") as progress:
        count(source.images, tally, len(truth.indices), progress)


class _Segmentation(msgspec.Struct):
    """The fields of the JSON file of `atrous segment` that are read here."""

    classes: list[str] | None = None


def _check_classes_beside(path: Path, truth: Truth) -> None:
    """Refuse labels by a model of other classes, which the JSON file of `atrous segment` names."""
    stem, ending, _ = path.name.rpartition(".labels.")
    beside = path.with_name(f"{stem}.json")
    if not ending or not beside.is_file():
        return
    try:
        classes = read_json(beside, _Segmentation).classes
    except InputError:  # written by another program
        return
    if classes is not None:
        check_same_classes(tuple(classes), truth.classes, str(beside), truth.dataset.name)
