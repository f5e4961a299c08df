"""Predictions in files: the file of each sample in a folder, and its labels.

A file has the name of the sample's key or image, with or without their folders, and an ending of
`atrous segment` (.labels.png, .labels.tif) or of other programs (.png, .tif, .bmp).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import UNKNOWN, Encoding, color_name, read_index, read_rgb
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.evaluation.score import Labels, Predicted
from atrous.files import walk
from atrous.images.label_maps import read_colors, read_label
from atrous.infer.ordered_map import in_order
from atrous.taxonomy import IGNORE_INDEX

_OURS = (".labels.png", ".labels.tif")
"""Endings that are looked for first: the photo may lie in the same folder."""
_ANY = (".png", ".tif", ".tiff", ".bmp")
_LOSSY = (".jpg", ".jpeg", ".webp")
_MOST_NAMES = 5


class Predictions(NamedTuple):
    """Label files of a folder."""

    paths: dict[int, Path]
    """Index of the sample -> its file."""
    passed_over: str
    """Describes the other files; empty if there are none."""


def find_predictions(folder: Path, samples: Split | Shards, indices: Sequence[int]) -> Predictions:
    """Find the label file of each sample of `indices`; two candidates for one are refused."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no folder; give one that holds a label PNG for each image")
    files = sorted(walk(folder))
    ours, others = _by_stem(files, _OURS), _by_stem(files, _ANY)
    found: dict[int, str] = {}
    for index, own in enumerate(_names(samples)):
        for names in (group[stem] for group in (ours, others) for stem in own if stem in group):
            if len(names) > 1:
                raise InputError(
                    f"{folder}: {names[0]} and {names[1]} could both be the prediction of "
                    f"{samples.keys[index]}; take one away"
                )
            if not _is_image(folder / names[0], samples, index):
                found[index] = names[0]
                break
    for index in indices:
        if index not in found:
            raise _none_of(samples.keys[index], folder, files)
    rest = set(files) - set(found.values())
    return Predictions({index: folder / found[index] for index in indices}, _in_words(rest))


def read_predictions(
    paths: Mapping[int, Path],
    samples: Split | Shards,
    num_classes: int,
    encoding: Encoding | None = None,
) -> Iterator[Predicted]:
    """Read predictions and their truth, in order, in two threads; photos are not read.

    Args:
        paths: index of the sample -> its label file, as `find_predictions` returns them.
        samples: the truth.
        num_classes: K.
        encoding: of the data set, if the files hold dataset ids (or colours); None if they hold
            train ids.
    """
    if encoding is not None and not encoding.nearest:  # unknown ids may be where truth is ignored
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
    """Return the error for a prediction that is no class at the pixels `wrong`, (H, W)."""
    colors = encoding is not None and encoding.name == "rgb"
    values = np.unique((read_colors(path) if colors else read_label(path))[wrong]).tolist()
    named = ", ".join(color_name(value) if colors else str(value) for value in values[:5])
    named += ", ..." if len(values) > 5 else ""
    if encoding is not None:
        fix = "predict one for every pixel"
        return InputError(f"{path}: holds {named}, no class, where the truth is one; {fix}")
    ids = f"train ids 0 to {num_classes - 1}"
    if values == [IGNORE_INDEX]:
        fix = f"predict every pixel, by {ids}"
        return InputError(f"{path}: holds 255 (ignored) where the truth is a class; {fix}")
    fix = "if these are the ids of the data set's own files, say --ids dataset"
    return InputError(f"{path}: holds {named}, where {ids} can be; {fix}")


def stems(paths: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the possible names of each sample's file without its ending, most likely first.

    Args:
        paths: names of each sample, which may lead through folders.

    Returns:
        The names of each sample, and their last parts that no other sample's name ends in.
    """
    tails = [dict.fromkeys(tail for path in own for tail in _tails(path)) for own in paths]
    times = Counter(tail for own in tails for tail in own)
    return [
        [tail for tail in tails_of if times[tail] == 1 or tail in own]
        for tails_of, own in zip(tails, paths, strict=True)
    ]


def _tails(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]


def _names(samples: Split | Shards) -> list[list[str]]:
    """Return the stems of each sample: its image with and without suffix, and its key.

    If two photos differ in their suffix alone, `atrous segment` keeps the suffix of the second.
    """
    if isinstance(samples, Shards):
        return stems([[key] for key in samples.keys])
    images = [samples.image_path(key).relative_to(samples.folder) for key in samples.keys]
    both = zip(images, samples.keys, strict=True)
    return stems([[i.as_posix(), i.with_suffix("").as_posix(), key] for i, key in both])


def _by_stem(files: Sequence[str], endings: Sequence[str]) -> dict[str, list[str]]:
    """Return files with one of these endings, in any case: name without the ending -> files."""
    found: dict[str, list[str]] = {}
    for name in files:
        if not name.lower().endswith(_OURS) or endings is _OURS:
            ending = next((end for end in endings if name.lower().endswith(end)), None)
            if ending is not None:
                found.setdefault(name[: -len(ending)], []).append(name)
    return found


def _is_image(path: Path, samples: Split | Shards, index: int) -> bool:
    """Return whether a file is the sample's photo itself."""
    if isinstance(samples, Shards):
        return False
    return path.resolve() == samples.image_path(samples.keys[index]).resolve()


def _none_of(key: str, folder: Path, files: Sequence[str]) -> InputError:
    """Return the error for a sample without a prediction among `files`."""
    last = re.escape(key.rpartition("/")[2])
    near = [name for name in files if re.search(rf"(?<![^\W_]){last}(?![^\W_])", name)]
    hint = "its name must be the key, and end so"
    if near:
        nearest = min(near, key=lambda name: (Path(name).suffix == ".json", len(name)))
        hint = f"there is {nearest}: rename it, or give the folder that it lies in"
        if nearest.lower().endswith(_LOSSY):
            hint = f"there is {nearest}, a kind that changes class numbers: save it as PNG"
        elif not nearest.lower().endswith(_ANY):
            hint = f"there is {nearest}: save it as PNG"
    looked = ", ".join(key + ending for ending in (*_OURS, *_ANY))
    return InputError(f"{folder}: no prediction of {key}; looked for {looked}; {hint}")


def _in_words(names: set[str]) -> str:
    """Describe files: possible labels by name, others by their number."""
    labels = sorted(name for name in names if name.lower().endswith(_ANY))
    kinds = Counter(Path(name).suffix.lower() for name in names.difference(labels))
    words = labels[:_MOST_NAMES]
    if len(labels) > _MOST_NAMES:
        words.append(f"{len(labels) - _MOST_NAMES} more such")
    words += [f"{kinds[kind]} {kind or 'without suffix'}" for kind in sorted(kinds)]
    return ", ".join(words)
