"""Find the keys of a split, and check that each has an image and, if any has, a mask."""

import re
from collections.abc import Collection
from pathlib import Path
from reprlib import repr as short
from typing import Any

from atrous.data.encodings.coco import read_instances
from atrous.data.encodings.masks import Encoding
from atrous.data.encodings.panoptic import read_annotations
from atrous.data.file_names import match_files
from atrous.data.lists import Place, key_of, read_lines
from atrous.data.patterns import alternatives, path_of
from atrous.data.schema import SplitFiles
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.files import is_file, walk


def find_split(
    name: str, folder: Path, files: SplitFiles, encoding: Encoding, things: frozenset[int]
) -> Split:
    """Find the files of a split that a dataset.toml describes by `files`."""
    annotations: dict[str, Any] = {}
    if files.annotations:
        annotations, missing = _annotated(folder, files, encoding)
        keys = tuple(annotations)
    if files.list_file:
        keys, missing = _listed(folder, files)
    elif not files.annotations:
        keys, missing = _matching_keys(folder, files.images), 0
    if not keys:
        source = files.list_file or files.annotations
        problem = f"{folder / files.images}: no file matches"
        if source:
            problem = f"{folder / source}: lists no image"
        if missing:
            problem += f" that is there as {folder / files.images} ({missing} are not)"
        raise InputError(f"{problem}, so split {name!r} is empty; check folder, list and pattern")
    split = Split(
        folder=folder,
        images=files.images,
        labels=files.labels or files.annotations,
        keys=keys,
        encoding=encoding,
        things=things,
        missing=missing,
        annotations=annotations,
        valid=files.valid,
    )
    for key in keys:
        _check_files(split, key, name, files)
    return split


def _listed(folder: Path, files: SplitFiles) -> tuple[tuple[str, ...], int]:
    """Return the keys that the list of a split names, and the number of missing images."""
    path = folder / files.list_file
    named = _place(folder, files.images, files.labels or files.annotations).named(read_lines(path))
    for line in named.crossed.values():
        raise InputError(
            f"{path}: {short(line)} names the mask of another "
            "image, but masks go by key; name them as their images or take that column out"
        )
    return tuple(named.keys), len(named.missing)


def _check_files(split: Split, key: str, name: str, files: SplitFiles) -> None:
    """Refuse a key whose image, mask or description is ambiguous or missing."""
    split.image(key)
    if not files.has_masks:
        return
    path = split.label_path(key)
    by_class = split.encoding.name == "binary-masks"
    if not (split.class_masks(key) if by_class else is_file(path)):
        raise InputError(
            f"{path}: no such file, so {key!r} of split {name!r} has no mask; "
            "add the file or list the keys to use"
        )
    if split.valid and not is_file(mask := split.valid_path(key)):
        raise InputError(f"{mask}: no such file, and splits.{name}.valid names it; add the file")
    if split.annotations and key not in split.annotations:
        raise InputError(
            f"{split.folder / files.annotations}: does not list the image of {key!r}, "
            f"which {files.list_file} lists; take it out there"
        )


def _annotated(folder: Path, files: SplitFiles, encoding: Encoding) -> tuple[dict[str, Any], int]:
    """Return the entry of each key whose image exists, and the number of missing images."""
    path = folder / files.annotations
    if encoding.name == "coco-json":
        images = {image.file_name: image for image in read_instances(path)}
        named = _named_keys(images, folder, files.images)
        return {key: images[name] for key, name in named.items()}, len(images) - len(named)
    entries = {
        key_of(entry.file_name, files.labels): entry
        for entry in read_annotations(path).images.values()
    }
    place = _place(folder, files.images, "")
    keys = {entry: place.key(entry) for entry in entries}
    found = {key: entries[entry] for entry, key in keys.items() if key is not None}
    return found, sum(key is None for key in keys.values())


def _named_keys(names: Collection[str], folder: Path, pattern: str) -> dict[str, str]:
    """Return the keys of the images that a JSON names, with their names, in its order.

    Of two files that a name can mean, the one in the higher folder counts.
    """
    keys = {path_of(folder, pattern, key): key for key in _matching_keys(folder, pattern)}
    found: dict[str, str] = {}
    for name, places in match_files(names, keys).items():
        depths = sorted((before.count("/"), before + ending) for before, ending in places)
        if len(depths) == 1 or depths[0][0] < depths[1][0]:
            found[name] = keys[depths[0][1]]
    return {found[name]: name for name in names if name in found}


def _place(folder: Path, images: str, labels: str) -> Place:
    """Return the place of the images that entries of a list or JSON may name."""
    paths = alternatives(images)
    return Place(
        folder,
        images,
        labels,
        has=lambda key: any(is_file(folder / path.replace("{key}", key)) for path in paths),
        keys=lambda: _matching_keys(folder, images),
    )


def _matching_keys(folder: Path, images: str) -> tuple[str, ...]:
    """Return the keys of all files that match; a key at the start of a name may have folders."""
    before = images.split("{key}", 1)[0]
    prefix = before[before.rfind("/") + 1 :]
    afters = "|".join(re.escape(one.split("{key}", 1)[1]) for one in alternatives(images))
    key = "[^/\n]+" if prefix else ".+"
    expression = re.compile(f"{re.escape(prefix)}(?P<key>{key})(?:{afters})")
    matches = (expression.fullmatch(path) for path in walk(folder / before.removesuffix(prefix)))
    return tuple(sorted({match["key"] for match in matches if match}))
