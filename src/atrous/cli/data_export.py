"""`atrous data export`: a data set, or predictions, in the format of an annotation tool."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from atrous.cli.options import MODEL_DEFAULTS, ModelOptions
from atrous.cli.progress import say, track
from atrous.data.dataset import Dataset, builtin_names
from atrous.data.export.folder import OUTLINED, Format, export
from atrous.data.export.labelled import Labelled
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.evaluation.labelled import (
    by_model,
    label_files,
    of_files,
    of_masks,
)
from atrous.files import no_such_file
from atrous.infer.batch import find_inputs
from atrous.progress import Progress
from atrous.taxonomy import Taxonomy
from atrous.text import amount

Source = tuple[Taxonomy, dict[str, Iterable[Labelled]], int]
"""Classes, images of each split, and their number."""


def data_export(
    source: str,
    /,
    *,
    out: Path,
    format: Format,
    labels: Path | None = None,
    model: str | None = None,
    split: list[str] | None = None,
    root: Path | None = None,
    tolerance: Annotated[float, Parameter(validator=Number(gte=0))] = 0,
    model_options: ModelOptions = MODEL_DEFAULTS,
) -> int:
    """Write labels in the format of an annotation tool, or of another program.

    The labels are a data set's own, those of label maps (--labels) or a model's (--model), to be
    corrected. Images are copied beside them. No pixel is lost unless --tolerance is given.

    Args:
        source: A built-in set, a folder with a dataset.toml, such a file; or a folder of photos.
        out: The new folder.
        format: coco, labelme, yolo (polygons), label-studio or cvat (masks).
        labels: A folder that `atrous segment SOURCE --out LABELS` wrote.
        model: Name of a shipped or published model, hf://OWNER/NAME, a bundle (.onnx), or a
            run folder.
        split: Splits of the data set; all that have masks if left out.
        root: The folder of a built-in set.
        tolerance: Simplify polygons by about this many pixels.
        model_options: How the model is run.

    Returns:
        The exit code: 2 where a photo could not be read, 0 otherwise.
    """
    if tolerance and format not in OUTLINED:
        raise InputError(f"--tolerance simplifies polygons, and {format} gets masks; leave it out")
    if labels is not None and model is not None:
        raise InputError("--labels and --model: give one of the two")
    path = Path(source)
    is_set = path.suffix == ".toml" or (path / "dataset.toml").is_file()
    dataset = None
    if is_set or (source in builtin_names() and not path.exists()):
        dataset = Dataset.open(source, root)
        taxonomy, splits, total = _of_dataset(dataset, split, labels, model, model_options)
    else:
        if split is not None or root is not None:
            raise InputError(f"{source}: no data set; --split and --root go with a dataset.toml")
        taxonomy, splits, total = _of_photos(path, labels, model, model_options)
    with track("images") as progress:
        counted = _counted(splits, total, progress)
        described = None if dataset is None else dataset.description
        counts = export(counted, taxonomy, out, format, tolerance, described)
    for name, count in counts.items():
        print(f"  {name:<10} {amount(count, 'image')}")
    print(f"wrote {out}")
    print("next: correct the labels; docs/outputs.md says how the tool opens them")
    return 2 if sum(counts.values()) < total else 0


def _of_dataset(
    dataset: Dataset,
    names: list[str] | None,
    labels: Path | None,
    model: str | None,
    options: ModelOptions,
) -> Source:
    with_masks = [name for name, files in dataset.splits.items() if files.has_masks]
    names = list(dict.fromkeys(names or with_masks))
    own = labels is None and model is None
    splits = {name: _unpacked(dataset, name, masks=own) for name in names}
    taxonomy = dataset.taxonomy
    found: dict[str, Iterable[Labelled]] = {}
    segmenter = None if model is None else options.load(model)
    for name, split in splits.items():
        if segmenter is not None:
            taxonomy = segmenter.metadata.taxonomy
            images = {split.image_path(key): key for key in split.keys}
            bands = segmenter.reading([*images])[0]
            found[name] = by_model(segmenter, images, bands, say)
        elif labels is not None:
            found[name] = of_files(split, labels, taxonomy)
        else:
            found[name] = of_masks(split)
    return taxonomy, found, sum(map(len, splits.values()))


def _unpacked(dataset: Dataset, name: str, *, masks: bool) -> Split:
    split = dataset.split(name, masks=masks)
    if isinstance(split, Shards):
        raise InputError(
            f"{dataset.folder}: split {name!r} is packed; export the set that it was packed from"
        )
    return split


def _of_photos(
    folder: Path, labels: Path | None, model: str | None, options: ModelOptions
) -> Source:
    if not folder.exists():
        raise no_such_file(folder)
    if labels is None and model is None:
        raise InputError(
            f"{folder}: no dataset.toml in it; for photos, give --model or --labels FOLDER, for "
            f"masks `atrous data doctor {folder} --write`"
        )
    found_images = find_inputs([str(folder)], Path(), say).images
    images = {image: target.as_posix() for image, target in found_images.items()}
    if labels is not None:
        taxonomy, found = label_files(images, labels)
    else:
        assert model is not None
        segmenter = options.load(model)
        bands, line = segmenter.reading([*images])
        if line:
            say(line)
        taxonomy, found = segmenter.metadata.taxonomy, by_model(segmenter, images, bands, say)
    return taxonomy, {"photos": found}, len(images)


def _counted(
    splits: dict[str, Iterable[Labelled]], total: int, progress: Progress
) -> dict[str, Iterable[Labelled]]:
    done = 0

    def each(images: Iterable[Labelled]) -> Iterator[Labelled]:
        nonlocal done
        for image in images:
            yield image
            done += 1
            progress(done, total)

    return {name: each(images) for name, images in splits.items()}
