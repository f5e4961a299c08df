"""Scores of panoptic results in COCO's format."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from atrous.data.encodings.masks import UNKNOWN
from atrous.data.encodings.panoptic import PanopticEntry, read_annotations
from atrous.data.split import Split
from atrous.errors import InputError, about
from atrous.evaluation.predictions import stems
from atrous.files import no_such_file
from atrous.infer.ordered_map import in_order
from atrous.metrics import Panoptic, PanopticQuality
from atrous.progress import Progress, silent
from atrous.taxonomy import Taxonomy

__all__ = ["evaluate_panoptic"]


def evaluate_panoptic(
    result: Path, truth: Split, taxonomy: Taxonomy, progress: Progress = silent
) -> PanopticQuality:
    """Score a panoptic result in COCO's format.

    Args:
        result: JSON file whose categories are the data set's ids; its PNGs lie in the folder of the
            same name, or beside the file.
        truth: split whose masks hold segments.
        taxonomy: classes of the data set.
        progress: called after each image.
    """
    if not result.is_file():
        raise no_such_file(result)
    truth.panoptic(0)  # refuses a data set without segments before the result is read
    predictions = _panoptic_predictions(result, truth)
    quality = PanopticQuality(taxonomy.categories())

    def read(index: int) -> tuple[Panoptic, Panoptic]:
        return predictions.panoptic(index), truth.panoptic(index)

    with ThreadPoolExecutor(2) as readers:
        pairs = in_order(readers, read, range(len(truth)), ahead=3)
        for index, (predicted, true) in enumerate(pairs):
            with about(truth.keys[index]):
                quality.update(predicted, true)
            progress(index + 1, len(truth))
    return quality


def _panoptic_predictions(result: Path, truth: Split) -> Split:
    """Return the segments of `result` for each key of `truth`, as a split."""
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
