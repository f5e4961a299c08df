"""`atrous evaluate`: the score of a model, or of predictions in files, on a labelled data set."""

import json
import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Literal

from cyclopts import Parameter

from atrous.cli.options import MODEL_DEFAULTS, Flag, Json, ModelOptions
from atrous.cli.progress import say_fourth_band
from atrous.errors import InputError

if TYPE_CHECKING:
    from atrous.evaluation.evaluate import Source, Truth


@Parameter(name="*")
@dataclass(frozen=True)
class Extras:
    """Scores that are computed on request."""

    boundary: Flag = False
    """Score the boundaries of each class, too."""
    calibration: Flag = False
    """Compare the model's probabilities with its accuracy."""
    tree: Flag = False
    """Score the groups of the class tree, too."""
    pairs: int = 0
    """List so many of the most frequent confusions."""


_NO_EXTRAS = Extras()


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
    extras: Extras = _NO_EXTRAS,
    shard: str = "1/1",
    options: ModelOptions = MODEL_DEFAULTS,
    save: Path | None = None,
    merge: tuple[Path, ...] = (),
    json_output: Json = False,
) -> None:
    """Score a model on a data set, per class, by a named protocol.

    Each image is labelled at its own size and compared with its mask; ignored pixels are left out.
    With --predictions or --merge there is no MODEL: atrous evaluate DATA --predictions FOLDER.

    Args:
        model: Name of a shipped or published model, a bundle (.onnx), or a run folder.
        data: Name of a built-in set, a folder with a dataset.toml, or such a file.
        split: Split of the data set to score.
        root: Folder that holds the images of a built-in set.
        protocol: Definition of the scores: pooled, mmseg, detectron2, kazuto, torchvision or
            per-image.
        predictions: Score these files: a folder with KEY.png (or KEY.labels.png) of each image, or
            a COCO panoptic result (.json with its PNGs).
        ids: Content of the files of --predictions: train ids, or the data set's own ids.
        against: Compare with this: a model, which takes the same options; a folder of predictions;
            or a file of --save.
        extras: Scores that are computed on request.
        shard: Score a part of the images: I/N, 1/N to N/N.
        options: How models are run.
        save: Write the counts to this file (.npz), to be merged or compared.
        merge: Files of --save, one for each part: score them as one.
        json_output: Print one JSON document instead of the tables.
    """
    # numpy and onnxruntime, which `atrous evaluate --help` need not load
    from atrous.cli.progress import watched
    from atrous.data.dataset import Dataset
    from atrous.evaluation.evaluate import Truth, compare_with, from_counts, from_files
    from atrous.evaluation.evaluate import evaluate as score
    from atrous.report.scores import evaluation_text

    given = (predictions is not None) + bool(merge)
    if given > 1 or (data is None) != bool(given):
        raise InputError("give MODEL and DATA; or DATA alone, with --predictions or --merge")
    dataset = Dataset.open(data or model, root)
    truth = Truth.of(dataset, split)
    say_fourth_band(dataset)
    panoptic = predictions is not None and predictions.suffix.lower() == ".json"
    files = predictions is not None or (against is not None and _is_predictions(against))
    _check_options(extras, options, ids, files=files and not panoptic, model=data is not None)
    if predictions is not None and panoptic:
        if extras != _NO_EXTRAS or against or save or shard != "1/1" or protocol != "pooled":
            raise InputError("a panoptic result has PQ, SQ and RQ: leave other scores out")
        _score_panoptic(predictions, truth, json_output)
        return
    truth = replace(truth, indices=_part(shard, save, len(truth.samples)))

    if merge:
        source = from_counts(merge, truth)
    elif predictions is not None:
        source = from_files(predictions, truth, ids)
    else:
        source = _from_model(model, truth, options, extras.calibration)
    reference = None if against is None else _reference(against, ids, truth, options)
    if save is not None:
        _check_save(save)
    evaluation = score(source, truth, protocol=protocol, **asdict(extras), track=watched)
    try:
        if save is not None:
            evaluation.confusion.save(save)
    finally:  # a disk that is full does not cost the scores
        if reference is not None:
            evaluation = compare_with(evaluation, reference, watched)
        for note in dict.fromkeys(s.note for s in (source, reference) if s is not None and s.note):
            print(note, file=sys.stderr)
        document = evaluation.to_dict()
        print(json.dumps(document, indent=2) if json_output else evaluation_text(evaluation))


def _check_options(
    extras: Extras, options: ModelOptions, ids: str, *, files: bool, model: bool
) -> None:
    """Refuse options that need label files, or a model."""
    if ids == "dataset" and not files:
        raise InputError("--ids applies to label files: add --predictions FOLDER")
    if extras.calibration and not model:
        raise InputError("--calibration needs the probabilities of a MODEL")
    if (options.flip or options.scales or options.crf) and not model:
        raise InputError("--flip, --scales and --crf need a MODEL")


def _from_model(
    model: str, truth: "Truth", options: ModelOptions, confidence: bool = False
) -> "Source":
    from atrous.evaluation.evaluate import from_model

    return from_model(options.load(model), truth, name=model, confidence=confidence)


def _reference(
    against: str, ids: Literal["train", "dataset"], truth: "Truth", options: ModelOptions
) -> "Source":
    """Open what MODEL is compared with: counts, a folder of predictions, or a model."""
    from atrous.evaluation.evaluate import from_counts, from_files

    path = Path(against)
    if path.suffix == ".npz":
        return from_counts([path], truth)
    if _is_predictions(against):
        return from_files(path, truth, ids)
    if path.is_file() and path.suffix not in ("", ".onnx"):
        raise InputError(
            f"--against {path}: a model, a folder of predictions or a .npz of --save can be there"
        )
    return _from_model(against, truth, options)


def _is_predictions(against: str) -> bool:
    """Whether `against` is a folder of predictions, not a model."""
    from atrous.run import has_run
    from atrous.weights.hub import zoo_names

    path = Path(against)
    return against not in zoo_names() and path.is_dir() and not has_run(path)


def _part(shard: str, save: Path | None, total: int) -> range:
    """Indices of part I of N: every Nth sample."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= total:
        raise InputError(f"--shard {shard}: write I/N, 1/N to N/N, and N at most {total} here")
    if save is None and int(match[2]) > 1:
        raise InputError("--shard scores a part: add --save FILE.npz, then --merge all files")
    return range(int(match[1]) - 1, total, int(match[2]))


def _check_save(path: Path) -> None:
    """Refuse a file that cannot be written, before hours of work for it."""
    if path.suffix != ".npz" or path.is_dir():
        raise InputError(f"--save {path}: give a file whose name ends in .npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise InputError(
            f"--save {path}: its folder cannot be written ({error.strerror}); give another one"
        ) from None


def _score_panoptic(result: Path, truth: "Truth", json_output: bool) -> None:
    from atrous.cli.progress import watched
    from atrous.data.shards.read import Shards
    from atrous.evaluation.panoptic import evaluate_panoptic
    from atrous.report.scores import panoptic_text, title

    dataset, samples = truth.dataset, truth.samples
    if isinstance(samples, Shards):
        raise InputError(f"{dataset.name}: shards hold no segments; score on the unpacked set")
    with watched("images") as progress:
        scores = evaluate_panoptic(result, samples, dataset.taxonomy, progress).scores()
    document = {
        "model": str(result),
        "data": dataset.name,
        "split": truth.split,
        "images": len(samples),
        "missing": samples.missing,
        "protocol": "panopticapi",
        **scores.to_dict(),
    }
    lines = [*title(str(result), truth), panoptic_text(scores, len(samples))]
    print(json.dumps(document, indent=2) if json_output else "\n".join(lines))
