"""`atrous evaluate`: the score of a model, or of predictions in files, on a labelled data set."""

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

from cyclopts import Parameter

from atrous.cli.options import Flag, Json, ModelOptions
from atrous.cli.progress import say, say_fourth_band, track
from atrous.data.dataset import Dataset
from atrous.data.shards.read import Shards
from atrous.errors import InputError
from atrous.evaluation import evaluate as scoring
from atrous.evaluation.evaluate import Source, Truth
from atrous.evaluation.panoptic import evaluate_panoptic
from atrous.report.scores import evaluation_text, panoptic_text, title
from atrous.run import has_run
from atrous.weights.hub import zoo_names


@Parameter(name="*")
@dataclass(frozen=True)
class PredictionOptions:
    """Predictions to score in place of a model, and a reference to compare with."""

    predictions: Path | None = None
    """Score these files: a folder with KEY.png (or KEY.labels.png) of each image, or a COCO
    panoptic result (.json with its PNGs)."""
    ids: Literal["train", "dataset"] = "train"
    """Content of the files of --predictions: train ids, or the data set's own ids."""
    against: str | None = None
    """Compare with this: a model, which takes the same options; a folder of predictions; or a file
    of --save."""


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
    """Number of most frequent confusions to list."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ScoredModelOptions(ModelOptions):
    """How a model is run whose score must not depend on what `atrous bench` found fastest."""

    runtime: str = ""
    """Runtime, as of `atrous segment`. By default onnxruntime for bundles; for runs torch:cuda
    where torch finds CUDA, and torch elsewhere; auto for the one that `atrous bench` found fastest
    here."""


_NO_PREDICTIONS, _NO_EXTRAS, _DEFAULTS = PredictionOptions(), Extras(), ScoredModelOptions()


def evaluate(
    model: str,
    data: str | None = None,
    /,
    *,
    split: str = "val",
    root: Path | None = None,
    protocol: str = "pooled",
    given: PredictionOptions = _NO_PREDICTIONS,
    extras: Extras = _NO_EXTRAS,
    shard: str = "1/1",
    options: ScoredModelOptions = _DEFAULTS,
    save: Path | None = None,
    merge: tuple[Path, ...] = (),
    json_output: Json = False,
) -> None:
    """Score a model on a data set, per class, by a named protocol.

    Each image is labelled at its own size and compared with its mask; ignored pixels are left out.
    With --predictions or --merge there is no MODEL: atrous evaluate DATA --predictions FOLDER.

    Args:
        model: Name of a shipped or published model, hf://OWNER/NAME, a bundle (.onnx), or a
            run folder.
        data: Name of a built-in set, a folder with a dataset.toml, or such a file.
        split: Split of the data set to score.
        root: Folder that holds the images of a built-in set.
        protocol: Definition of the scores: pooled, mmseg, detectron2, kazuto, torchvision or
            per-image.
        given: Predictions to score in place of a model, and a reference to compare with.
        extras: Scores that are computed on request.
        shard: Score a part of the images: I/N, 1/N to N/N.
        options: How models are run.
        save: Write the counts to this file (.npz), to be merged or compared.
        merge: Files of --save, one for each part: score them as one.
        json_output: Print one JSON document instead of the tables.
    """
    predictions, has_model = given.predictions, data is not None
    if (predictions is not None) + bool(merge) + has_model != 1:
        raise InputError("give MODEL and DATA; or DATA alone, with --predictions or --merge")
    truth = Truth.of(Dataset.open(data or model, root), split)
    say_fourth_band(truth.dataset)
    _check_options(given, extras, options, has_model=has_model)
    if predictions is not None and _is_panoptic(predictions):
        if extras != _NO_EXTRAS or given.against or save or (shard, protocol) != ("1/1", "pooled"):
            raise InputError("a panoptic result has PQ, SQ and RQ: leave other scores out")
        _score_panoptic(predictions, truth, json_output)
        return
    truth = replace(truth, indices=_part(shard, save, len(truth.samples)))
    if merge:
        source = scoring.from_counts(merge, truth)
    elif predictions is not None:
        source = scoring.from_files(predictions, truth, given.ids)
    else:
        source = _from_model(model, truth, options, extras.calibration)
    reference = None if given.against is None else _reference(given, truth, options)
    if save is not None:
        _check_save(save)
    evaluation = scoring.evaluate(source, truth, protocol=protocol, **asdict(extras), track=track)
    _save_and_print(evaluation, source, reference, save, json_output)


def _save_and_print(
    evaluation: scoring.Evaluation,
    source: Source,
    reference: Source | None,
    save: Path | None,
    json_output: bool,
) -> None:
    """Save the counts, compare with the reference, and print the scores."""
    try:
        if save is not None:
            evaluation.confusion.save(save)
    finally:  # a disk that is full does not cost the scores
        if reference is not None:
            evaluation = scoring.compare_with(evaluation, reference, track)
        for note in dict.fromkeys(s.note for s in (source, reference) if s is not None and s.note):
            say(note)
        document = evaluation.to_dict()
        print(json.dumps(document, indent=2) if json_output else evaluation_text(evaluation))


def _check_options(
    given: PredictionOptions, extras: Extras, options: ModelOptions, *, has_model: bool
) -> None:
    """Refuse options that need label files, or a model."""
    predictions, against = given.predictions, given.against
    has_files = predictions is not None or (against is not None and _is_predictions(against))
    if given.ids == "dataset" and (not has_files or _is_panoptic(predictions)):
        raise InputError("--ids applies to label files: add --predictions FOLDER")
    if extras.calibration and not has_model:
        raise InputError("--calibration needs the probabilities of a MODEL")
    if (options.flip or options.scales or options.crf) and not has_model:
        raise InputError("--flip, --scales and --crf need a MODEL")


def _from_model(
    model: str, truth: Truth, options: ModelOptions, confidence: bool = False
) -> Source:
    loaded = options.load(model)
    return scoring.from_model(loaded, truth, name=model, confidence=confidence)


def _reference(given: PredictionOptions, truth: Truth, options: ModelOptions) -> Source:
    """Open the reference: counts, a folder of predictions, or a model."""
    assert given.against is not None
    path = Path(given.against)
    if path.suffix == ".npz":
        return scoring.from_counts([path], truth)
    if _is_predictions(given.against):
        return scoring.from_files(path, truth, given.ids)
    if path.is_file() and path.suffix not in ("", ".onnx"):
        raise InputError(
            f"--against {path}: give a model, a folder of predictions, or a .npz of --save"
        )
    return _from_model(given.against, truth, options)


def _is_predictions(against: str) -> bool:
    """Return whether `against` is a folder of predictions, not a model."""
    path = Path(against)
    return against not in zoo_names() and path.is_dir() and not has_run(path)


def _is_panoptic(predictions: Path | None) -> bool:
    """Return whether predictions are a COCO panoptic result."""
    return predictions is not None and predictions.suffix.lower() == ".json"


def _part(shard: str, save: Path | None, total: int) -> range:
    """Return the indices of part I of N: every Nth sample."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= total:
        raise InputError(f"--shard {shard}: write I/N, 1/N to N/N, and N at most {total} here")
    if save is None and int(match[2]) > 1:
        raise InputError("--shard scores a part: add --save FILE.npz, then --merge all files")
    return range(int(match[1]) - 1, total, int(match[2]))


def _check_save(path: Path) -> None:
    """Refuse a file that cannot be written, before hours of work."""
    if path.suffix != ".npz" or path.is_dir():
        raise InputError(f"--save {path}: give a file whose name ends in .npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise InputError(
            f"--save {path}: its folder cannot be written ({error.strerror}); give another one"
        ) from None


def _score_panoptic(result: Path, truth: Truth, json_output: bool) -> None:
    dataset, samples = truth.dataset, truth.samples
    if isinstance(samples, Shards):
        raise InputError(f"{dataset.name}: shards hold no segments; score on the unpacked set")
    with track("images") as progress:
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
