"""`atrous evaluate`: the score of a model on a labelled data set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from atrous.files import InputError

if TYPE_CHECKING:
    from atrous.taxonomy import Taxonomy


def evaluate(
    model: str,
    data: str,
    /,
    *,
    split: str = "val",
    root: Path | None = None,
    protocol: str = "pooled",
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Score a model on a data set, per class, by a named protocol.

    Each image is labelled at its own size and compared with its mask; ignored pixels are left out.

    Args:
        model: Name of a shipped model, a bundle (.onnx), or a run folder.
        data: Name of a built-in set, a folder with a dataset.toml, or such a file.
        split: Split of the data set to score.
        root: Folder that holds the images of a built-in set.
        protocol: How the score is computed: pooled, over the pixels of all images.
        json_output: Print one JSON document instead of the table.
    """
    # numpy and onnxruntime, which `atrous evaluate --help` shall not pay for
    from atrous.cli.progress import watched
    from atrous.data.dataset import Dataset
    from atrous.evaluate import evaluate as score
    from atrous.infer.segmenter import load
    from atrous.metrics import Confusion

    dataset = Dataset.open(data, root)
    samples = dataset.split(split)
    Confusion(1).scores(protocol)  # an unknown protocol shall fail before the work, not after it
    segmenter = load(model)
    check_same_classes(segmenter.metadata.taxonomy, dataset.taxonomy, model, data)
    classes = dataset.taxonomy.classes
    with watched("images") as progress:
        confusion = score(segmenter.predict, samples, len(classes), progress)
    scores = confusion.scores(protocol)
    if json_output:
        document = {
            "model": segmenter.description,
            "data": dataset.name,
            "split": split,
            "images": len(samples),
            **scores.to_dict(classes),
            "confusion": confusion.matrix.tolist(),
        }
        print(json.dumps(document, indent=2))
    else:
        print(f"{segmenter.description} on {dataset.name}, split {split}")
        print(scores.table(classes, len(samples)))


def check_same_classes(model: "Taxonomy", data: "Taxonomy", name: str, place: str) -> None:
    """Refuse to compare labels that mean different things.

    Raises:
        InputError: the classes differ, or their order does.
    """
    if model.classes == data.classes:
        return
    if sorted(model.classes) == sorted(data.classes):
        raise InputError(
            f"{place}: its classes stand in another order than those of {name};"
            f" order them so: {', '.join(model.classes)}"
        )
    known, wanted = set(model.classes), set(data.classes)
    parts = [
        f"{kind} {', '.join(sorted(names)[:4])}{', ...' if len(names) > 4 else ''}"
        for kind, names in (("lacks", wanted - known), ("has besides", known - wanted))
        if names
    ]
    raise InputError(
        f"{name}: knows {len(model.classes)} classes, where {place} has {len(data.classes)}:"
        f" it {' and '.join(parts)}; evaluate a model that was trained on these classes"
    )
