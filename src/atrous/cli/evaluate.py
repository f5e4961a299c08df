"""`atrous evaluate`: the score of a model, or of predictions in files, on a labelled data set."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from atrous.cli.convert import fetched
from atrous.cli.rasters import say_fourth_band
from atrous.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from atrous.cli.scores import Rival
    from atrous.data.dataset import Dataset
    from atrous.data.shards.read import Shards
    from atrous.data.split import Split
    from atrous.evaluation.score import Labels, Predicted, Tally
    from atrous.infer.segmenter import Segmenter
    from atrous.metrics import Confusion
    from atrous.taxonomy import Taxonomy

Flag = Annotated[bool, Parameter(negative=())]


def evaluate(
    model: str,
    data: str | None = None,
    /,
    *,
    split: str = "val",
    root: Path | None = None,
    protocol: str = "pooled",
    predictions: Path | None = None,
    ids: Literal["train", "dataset"] = "train",
    against: str | None = None,
    boundary: Flag = False,
    calibration: Flag = False,
    tree: Flag = False,
    pairs: int = 0,
    shard: str = "1/1",
    runtime: str = "auto",
    threads: int | None = None,
    flip: Flag = False,
    scales: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative=())] = (),
    crf: str | None = None,
    save: Path | None = None,
    merge: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative=())] = (),
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Score a model on a data set, per class, by a named protocol.

    Each image is labelled at its own size and compared with its mask; ignored pixels are left out.
    With --predictions or --merge there is no MODEL: atrous evaluate DATA --predictions FOLDER.

    Args:
        model: Name of a shipped or published model, a bundle (.onnx), or a run folder.
        data: Name of a built-in set, a folder with a dataset.toml, or such a file.
        split: Split of the data set to score.
        root: Folder that holds the images of a built-in set.
        protocol: How the score is computed: pooled, mmseg, detectron2, kazuto, torchvision or
            per-image.
        predictions: Score these files: a folder with KEY.png (or KEY.labels.png) of each image, or
            a COCO panoptic result (.json with its PNGs).
        ids: What the files of --predictions hold: train ids, or the data set's own ids.
        against: Compare with this: a model, a folder of predictions, or a file of --save.
        boundary: Score the boundaries of each class, too.
        calibration: Say how far the model's probabilities are from its accuracy.
        tree: Score the groups of the class tree, too.
        pairs: List so many of the most frequent confusions.
        shard: Score a part of the images: I/N, 1/N to N/N.
        runtime: What computes MODEL, and one of --against: auto, onnxruntime, openvino, torch, ...
        threads: How many a model uses; by default as many as this process may run on.
        flip: A model sees each image mirrored, too, and the mean is taken.
        scales: A model sees each image at these parts of its size, and the mean is taken.
        crf: Refine a model's labels by a dense CRF, with these parameters: deeplab, kazuto or
            kraehenbuehl.
        save: Write the counts to this file (.npz), to be merged or compared.
        merge: Files of --save, one for each part: score them as one.
        json_output: Print one JSON document instead of the tables.
    """
    # numpy and onnxruntime, which `atrous evaluate --help` shall not pay for
    from atrous.cli.scores import Evaluation
    from atrous.data.dataset import Dataset
    from atrous.evaluation.score import Tally
    from atrous.infer.segmenter import load
    from atrous.metrics import Boundary, Calibration, Confusion
    from atrous.metrics.protocols import check_protocol

    # Whatever can be refused is refused before the work.
    given = (predictions is not None) + bool(merge)
    if given > 1 or (data is None) != bool(given):
        raise InputError("give MODEL and DATA; or DATA alone, with --predictions or --merge")
    check_protocol(protocol)
    dataset = Dataset.open(data or model, root)
    groups, num_classes = dataset.taxonomy.groups, dataset.taxonomy.num_classes
    samples = dataset.split(split)
    say_fourth_band(dataset)
    panoptic = predictions is not None and predictions.suffix.lower() == ".json"
    besides = (boundary, calibration, tree, pairs, against, save, shard != "1/1")
    files = predictions is not None or (against is not None and _is_predictions(against))
    for line, wrong in (
        ("a panoptic result has PQ, SQ and RQ: leave other scores out",
         panoptic and (any(besides) or protocol != "pooled")),
        ("--ids tells of label files: add --predictions FOLDER",
         ids == "dataset" and (panoptic or not files)),
        ("--calibration needs the probabilities of a MODEL", calibration and data is None),
        ("--flip, --scales and --crf need a MODEL", (flip or scales or crf) and data is None),
        ("--boundary: its counts are not in the files of --save", boundary and merge),
        (f"{dataset.name}: its classes have no groups, so there is no --tree", tree and not groups),
        ("--tree: groups cannot be scored per-image; take another --protocol",
         tree and protocol == "per-image"),
        (f"--pairs {pairs}: say how many, 1 or more", pairs < 0),
    ):  # fmt: skip
        if wrong:
            raise InputError(line)
    if predictions is not None and panoptic:
        _score_panoptic(predictions, dataset, split, samples, json_output)
        return
    truth = _Truth(dataset, split, samples, _part(shard, save, len(samples)))

    def opened(model: str) -> "Segmenter":
        return load(fetched(model), threads, runtime, flip=flip, scales=scales, crf=crf)

    if merge:
        source = _parts(merge, truth)
    elif predictions is not None:
        source = _files(predictions, ids, truth)
    else:
        source = _model(opened(model), model, calibration, truth)
    rival = None if against is None else _rival(against, ids, truth, opened)
    if save is not None:
        _check_save(save)

    tally = Tally(
        confusion := Confusion(num_classes),
        Boundary(num_classes) if boundary else None,
        Calibration() if calibration else None,
    )
    _fill(tally, source, len(truth.indices))
    if shard == "1/1" and not confusion.matrix.any():
        raise InputError(f"{dataset.name}: no mask of split {split} holds a class to score by")
    confusion.about |= {"model": source.name, **truth.about()}
    try:
        if save is not None:
            confusion.save(save)
    finally:  # a disk that is full does not cost the scores
        evaluation = Evaluation(
            name=source.name,
            data=dataset.name,
            split=split,
            here=len(samples),
            missing=samples.missing,
            taxonomy=dataset.taxonomy,
            tally=tally,
            protocol=protocol,
            tree=tree,
            pairs=pairs,
            rival=None if rival is None else _compared(confusion, rival, protocol),
        )
        for note in dict.fromkeys(s.note for s in (source, rival) if s is not None and s.note):
            print(note, file=sys.stderr)
        print(json.dumps(evaluation.to_dict(), indent=2) if json_output else evaluation)


@dataclass(frozen=True)
class _Truth:
    """What predictions are compared with."""

    dataset: "Dataset"
    split: str
    samples: "Split | Shards"
    indices: range
    """Of the samples that are scored."""

    def about(self) -> dict[str, Any]:
        """What counts must share to be merged or compared."""
        classes = list(self.dataset.taxonomy.classes)
        return {"data": self.dataset.name, "split": self.split, "classes": classes}


class _Source(NamedTuple):
    """What is scored: it is known to be there."""

    name: str
    images: "Iterable[Predicted] | Confusion"
    """Yet to be counted, or counted already."""
    note: str = ""
    """What a person should know of it."""


def _model(segmenter: "Segmenter", model: str, confidence: bool, truth: _Truth) -> _Source:
    """Take a model, which is called `model`, if it knows the classes of the truth."""
    from atrous.evaluation.score import predicted

    dataset = truth.dataset
    classes = segmenter.metadata.taxonomy.classes
    check_same_classes(classes, dataset.taxonomy.classes, model, dataset.name)

    def predict(image: "NDArray[np.uint8]") -> "tuple[Labels, None]":
        return segmenter.predict(image), None

    choice = segmenter.predict_with_confidence if confidence else predict
    return _Source(segmenter.description, predicted(choice, truth.samples, truth.indices))


def _files(folder: Path, ids: str, truth: _Truth) -> _Source:
    """Find the predictions that any program wrote."""
    from atrous.evaluation.predictions import find_predictions
    from atrous.evaluation.score import read_predictions

    paths, passed_over = find_predictions(folder, truth.samples, truth.indices)
    taxonomy = truth.dataset.taxonomy
    for path in paths.values() if ids == "train" else ():
        _check_classes_beside(path, taxonomy, truth.dataset.name)
    encoding = truth.dataset.encoding if ids == "dataset" else None
    images = read_predictions(paths, truth.samples, taxonomy.num_classes, encoding)
    note = f"{folder}: passed over {passed_over}" if passed_over else ""
    return _Source(str(folder), images, note)


def _check_classes_beside(path: Path, taxonomy: "Taxonomy", place: str) -> None:
    """Refuse labels by a model of other classes, where `atrous segment` wrote which beside them.

    Raises:
        InputError: they are.
    """
    stem, ours, _ = path.name.rpartition(".labels.")
    beside = path.with_name(f"{stem}.json")
    if not ours or not beside.is_file():
        return
    from atrous.json_file import read_json

    try:
        classes = read_json(beside).get("classes")
    except InputError:  # another program's
        return
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        check_same_classes(tuple(classes), taxonomy.classes, str(beside), place)


def _parts(paths: Sequence[Path], truth: _Truth) -> _Source:
    """Load counts of these images that --save wrote."""
    from atrous.evaluation.score import merge_parts

    keys = [truth.samples.keys[index] for index in truth.indices]
    whole = merge_parts(paths, keys, truth.about())
    return _Source(whole.about["model"], whole)


def _rival(against: str, ids: str, truth: _Truth, opened: "Callable[[str], Segmenter]") -> _Source:
    """Open what the model is compared with: counts, a folder of predictions, or a model."""
    path = Path(against)
    if path.suffix == ".npz":
        return _parts([path], truth)
    if _is_predictions(against):
        return _files(path, ids, truth)
    if path.is_file() and path.suffix not in ("", ".onnx"):
        raise InputError(
            f"--against {path}: a model, a folder of predictions or a .npz of --save can be there"
        )
    return _model(opened(against), against, False, truth)


def _is_predictions(against: str) -> bool:
    """Whether it is a folder of predictions, and no model."""
    from atrous.infer.bundle import zoo_names

    path = Path(against)
    return against not in zoo_names() and path.is_dir() and not (path / "run.json").exists()


def _fill(tally: "Tally", source: _Source, total: int) -> None:
    """Count the `total` images of `source`."""
    from atrous.cli.progress import watched
    from atrous.evaluation.score import count
    from atrous.metrics import Confusion

    if isinstance(source.images, Confusion):
        tally.confusion.merge(source.images)
        return
    with watched("images") as progress:
        count(source.images, tally, total, progress)


def _compared(confusion: "Confusion", source: _Source, protocol: str) -> "Rival":
    """Count the rival on the same images, and compare."""
    from atrous.cli.scores import Rival
    from atrous.evaluation.score import Tally
    from atrous.metrics import Confusion
    from atrous.metrics.interval import compare

    other = Confusion(confusion.num_classes)
    _fill(Tally(other), source, len(confusion.images))
    comparison = compare(confusion.counts(), other.counts(), protocol)
    return Rival(name=source.name, miou=other.scores(protocol).miou, comparison=comparison)


def _part(shard: str, save: Path | None, total: int) -> range:
    """The samples of part I of N: every Nth one."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= total:
        raise InputError(f"--shard {shard}: write I/N, 1/N to N/N, and N at most {total} here")
    if save is None and int(match[2]) > 1:
        raise InputError("--shard scores a part: add --save FILE.npz, then --merge all files")
    return range(int(match[1]) - 1, total, int(match[2]))


def _check_save(path: Path) -> None:
    """Refuse a file that could not be written, before hours of work for it."""
    if path.suffix != ".npz" or path.is_dir():
        raise InputError(f"--save {path}: give a file whose name ends in .npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise InputError(
            f"--save {path}: its folder cannot be written ({error.strerror}); give another one"
        ) from None


def _score_panoptic(
    result: Path, dataset: "Dataset", split: str, samples: "Split | Shards", json_output: bool
) -> None:
    """Print the panoptic quality of a result in COCO's format."""
    from atrous.cli.progress import watched
    from atrous.cli.scores import title
    from atrous.data.shards.read import Shards
    from atrous.evaluation.score import evaluate_panoptic

    if isinstance(samples, Shards):
        raise InputError(f"{dataset.name}: shards hold no segments; score on the unpacked set")
    with watched("images") as progress:
        quality = evaluate_panoptic(result, samples, dataset.taxonomy, progress)
    scores = quality.scores()
    if json_output:
        document = {
            "model": str(result),
            "data": dataset.name,
            "split": split,
            "images": len(samples),
            "missing": samples.missing,
            "protocol": "panopticapi",
            **scores.to_dict(),
        }
        print(json.dumps(document, indent=2))
    else:
        lines = title(str(result), dataset.name, split, len(samples), samples.missing)
        print("\n".join([*lines, scores.table(len(samples))]))


def check_same_classes(model: Sequence[str], data: Sequence[str], name: str, place: str) -> None:
    """Refuse to compare labels that mean different things.

    Raises:
        InputError: the classes differ, or their order does.
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
        for kind, names in (("lacks", wanted - known), ("has besides", known - wanted))
        if names
    ]
    raise InputError(
        f"{name}: knows {len(model)} classes, where {place} has {len(data)}:"
        f" it {' and '.join(parts)}; evaluate a model that was trained on these classes"
    )
