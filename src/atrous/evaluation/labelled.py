"""Images with labels of any origin: a data set's masks, label files, or a model."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.export.labelled import Labelled
from atrous.data.split import Split
from atrous.decode import read_json
from atrous.errors import InputError
from atrous.evaluation.predictions import find_predictions
from atrous.files import is_file
from atrous.images.bands import Bands
from atrous.images.label_maps import read_label
from atrous.images.photos import opened
from atrous.images.pixels import pixel_size
from atrous.infer.segmenter import Segmenter
from atrous.progress import Notify
from atrous.taxonomy import IGNORE_INDEX, Taxonomy

_ENDINGS = (".labels.png", ".labels.tif")


class _Written(msgspec.Struct):
    """The part of NAME.json, which `atrous segment` writes, that is needed."""

    classes: list[str]


def of_masks(split: Split) -> Iterator[Labelled]:
    """Yield the images of a split with its own labels."""
    for key, sample in zip(split.keys, split, strict=True):
        yield Labelled(key, split.image_path(key), sample.label)


def of_files(split: Split, folder: Path, taxonomy: Taxonomy) -> Iterator[Labelled]:
    """Yield the images of a split with the label file of each in `folder`, of train ids."""
    for index, path in find_predictions(folder, split, range(len(split))).paths.items():
        key = split.keys[index]
        yield _read(key, split.image_path(key), path, taxonomy)


def by_model(
    segmenter: Segmenter,
    images: Mapping[Path, str],
    bands: Bands | None,
    notify: Notify,
) -> Iterator[Labelled]:
    """Yield images, each with its key, as a model labels them; `notify` of those that cannot be."""
    for path, result in segmenter.map(lambda outcome: outcome, images, bands):
        if isinstance(result, InputError):
            notify(f"left out: {result}")
        else:
            yield Labelled(images[path], path, result.labels.astype(np.uint8))


def label_files(images: Mapping[Path, str], folder: Path) -> tuple[Taxonomy, Iterator[Labelled]]:
    """Return the classes of the labels that `atrous segment` wrote into a folder, and each image.

    Args:
        images: with the path of each one's files from `folder`, without ending.
        folder: NAME.labels.png and NAME.json of each.
    """
    paths = {image: _label_file(folder, name) for image, name in images.items()}
    first, *others = (folder / f"{name}.json" for name in images.values())
    classes = _classes(first)
    for path in others:
        if _classes(path) != classes:
            raise InputError(f"{path}: other classes than {first}; export each model's files alone")
    with opened(next(iter(paths.values()))) as picture:
        colors = _colors(picture, len(classes))
    taxonomy = Taxonomy(name=folder.resolve().name, classes=classes, colors=colors)
    read = (_read(images[image], image, path, taxonomy) for image, path in paths.items())
    return taxonomy, read


def _label_file(folder: Path, name: str) -> Path:
    paths = [folder / f"{name}{ending}" for ending in _ENDINGS]
    path = next(filter(is_file, paths), None)
    if path is None:
        raise InputError(
            f"{paths[0]}: no such file; give the folder that `atrous segment` wrote, or --model"
        )
    return path


def _classes(path: Path) -> tuple[str, ...]:
    fix = "it names the classes: `atrous segment` writes it"
    if not is_file(path):
        raise InputError(f"{path}: no such file; {fix}")
    return tuple(read_json(path, _Written, fix).classes)


def _colors(picture: Image.Image, count: int) -> tuple[tuple[int, int, int], ...]:
    """Return the first colours of a palette; black beyond its end."""
    values = (picture.getpalette("RGB") or []) + [0] * 3 * count
    return tuple((values[i], values[i + 1], values[i + 2]) for i in range(0, 3 * count, 3))


def _read(key: str, image: Path, path: Path, taxonomy: Taxonomy) -> Labelled:
    labels: NDArray[np.integer[Any]] = read_label(path)
    strays = labels[((labels < 0) | (labels >= taxonomy.num_classes)) & (labels != IGNORE_INDEX)]
    if strays.size:
        raise InputError(
            f"{path}: holds {strays[0]}, where train ids 0 to {taxonomy.num_classes - 1} and "
            f"{IGNORE_INDEX} can be; give labels of these classes"
        )
    if labels.shape != pixel_size(image):
        raise InputError(f"{path}: another size than {short(str(image))}; label that image again")
    return Labelled(key, image, labels.astype(np.uint8))
