"""Predictions in files: which of a folder's files is the prediction of which sample.

A file is called after the sample's key or its image, in their folders or flat, and ends as
`atrous segment` has it (.labels.png, .labels.tif) or as any program does (.png, .tif, .bmp).
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.files import walk

_OURS = (".labels.png", ".labels.tif")
"""First: a photo may lie beside what atrous wrote of it."""
_ANY = (".png", ".tif", ".tiff", ".bmp")
_LOSSY = (".jpg", ".jpeg", ".webp")
_MOST_NAMES = 5


class Predictions(NamedTuple):
    """What a folder holds."""

    paths: dict[int, Path]
    """Of the wanted samples, by their index."""
    passed_over: str
    """The other files in words; empty where there are none."""


def find_predictions(folder: Path, samples: Split | Shards, indices: Sequence[int]) -> Predictions:
    """Find the label file of each sample.

    Args:
        folder: where to look.
        samples: the truth.
        indices: which of the samples are wanted.

    Raises:
        InputError: there is none of a sample, or there are two that it could be.
    """
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


def stems(paths: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return what the file of each sample may be called, less its ending, the likeliest first.

    Args:
        paths: of each sample, the names that are its own, which may lead through folders.

    Returns:
        These names, and the last parts of them that no other sample's name ends in.
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
    """The stems of each sample: of its image, with and without suffix, and of its key.

    Where two photos differ in their suffix alone, `atrous segment` keeps that of the second.
    """
    if isinstance(samples, Shards):
        return stems([[key] for key in samples.keys])
    images = [
        PurePosixPath(samples.image_path(key).relative_to(samples.folder).as_posix())
        for key in samples.keys
    ]
    return stems(
        [
            [str(image), str(image.with_suffix("")), key]
            for image, key in zip(images, samples.keys, strict=True)
        ]
    )


def _by_stem(files: Sequence[str], endings: Sequence[str]) -> dict[str, list[str]]:
    """The files with one of these endings, in any case, by what comes before it."""
    found: dict[str, list[str]] = {}
    for name in files:
        if not name.lower().endswith(_OURS) or endings is _OURS:
            ending = next((end for end in endings if name.lower().endswith(end)), None)
            if ending is not None:
                found.setdefault(name[: -len(ending)], []).append(name)
    return found


def _is_image(path: Path, samples: Split | Shards, index: int) -> bool:
    """Whether a file is the sample's photo itself."""
    if isinstance(samples, Shards):
        return False
    return path.resolve() == samples.image_path(samples.keys[index]).resolve()


def _none_of(key: str, folder: Path, files: Sequence[str]) -> InputError:
    """What to say where no prediction of `key` was found among `files`."""
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
    """The files in words: by name those that could be labels, the others by their number."""
    labels = sorted(name for name in names if name.lower().endswith(_ANY))
    kinds = Counter(Path(name).suffix.lower() for name in names.difference(labels))
    words = labels[:_MOST_NAMES]
    if len(labels) > _MOST_NAMES:
        words.append(f"{len(labels) - _MOST_NAMES} more such")
    words += [f"{kinds[kind]} {kind or 'without suffix'}" for kind in sorted(kinds)]
    return ", ".join(words)
