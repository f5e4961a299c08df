"""Split: the samples of one part of a dataset, read from the files as they lie."""

import glob
import operator
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.coco import draw, read_instances
from atrous.data.file_names import match_files
from atrous.data.labels import (
    Encoding,
    check_same_size,
    read_binary_masks,
    read_index,
    read_palette,
    read_rgb,
)
from atrous.data.mat import read_mat
from atrous.data.panoptic import (
    PanopticEntry,
    instance_ids_to_panoptic,
    read_annotations,
    read_panoptic,
)
from atrous.data.polygons import read_polygons
from atrous.data.sample import Sample, paired
from atrous.files import InputError
from atrous.images import read_brightness, read_image, read_label
from atrous.metrics.panoptic_quality import Panoptic
from atrous.taxonomy import IGNORE_INDEX

_MAX_LINE = 4096  # of a list; no path is longer


@dataclass(frozen=True, eq=False)
class Split(Sequence[Sample]):
    """The samples of a split, in a fixed order; each is read when it is asked for."""

    folder: Path
    images: str
    """Pattern with {key}, from `folder`."""
    labels: str
    """Likewise; or the one file that holds all labels. Of binary masks with {class}, too."""
    keys: tuple[str, ...]
    encoding: Encoding
    things: frozenset[int] = frozenset()
    """Train ids."""
    missing: int = 0
    """How many of the listed images are not there."""
    annotations: Mapping[str, Any] = field(default_factory=dict)
    """What the JSON says of each key: a `PanopticEntry`, or a `CocoImage`."""
    valid: str = ""
    """Pattern of masks whose 0 marks pixels to ignore, such as those out of the field of view."""

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Read sample `index`.

        Raises:
            InputError: a file is not what it should be, sizes differ, or an id is unknown.
        """
        key = self.keys[operator.index(index)]  # no slices
        path = self.image_path(key)
        image, label = read_image(path), self.label(index)
        return paired(image, label, key, str(self.label_path(key)), path.name)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def image_path(self, key: str) -> Path:
        """Where the image of `key` lies."""
        return self.folder / self.images.replace("{key}", key)

    def label_path(self, key: str) -> Path:
        """Where the label of `key` lies."""
        return self.folder / self.labels.replace("{key}", key)

    def class_masks(self, key: str) -> list[tuple[int, Path]]:
        """The train id and the file of each binary mask that there is of `key`."""
        pattern = str(self.label_path(key))
        paths = ((i, Path(pattern.replace("{class}", n))) for n, i in self.encoding.names.items())
        return [(train_id, path) for train_id, path in paths if _is_file(path)]

    def label(self, index: int) -> NDArray[np.uint8]:
        """Read the label of sample `index`, (H, W) train ids, without the image's pixels.

        Raises:
            InputError: the file is not what it should be, or an id is unknown.
        """
        key = self.keys[index]
        label = _READERS[self.encoding.name](self, key)
        if self.valid:
            path = self.folder / self.valid.replace("{key}", key)
            valid = read_brightness(path) > 0
            check_same_size(valid, label, path)
            label = np.where(valid, label, np.uint8(IGNORE_INDEX))
        return label

    def panoptic(self, index: int) -> Panoptic:
        """Read the segments of sample `index`, their categories in train ids.

        A segment whose category is ignored becomes void.

        Raises:
            InputError: the masks hold no segments, the file is not what it should be, or a
                category is unknown.
        """
        key, encoding = self.keys[index], self.encoding
        path = self.label_path(key)
        if self.valid:
            raise InputError(f"{path}: a split with `valid` masks has no panoptic truth")
        if encoding.name == "coco-panoptic":
            truth = read_panoptic(path, self.annotations[key].segments)
        elif encoding.divisor is not None:
            things = np.flatnonzero(np.isin(encoding.table, sorted(self.things)))
            ids = read_label(path)
            try:
                truth = instance_ids_to_panoptic(ids, encoding.divisor, set(things.tolist()))
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
        else:
            raise InputError(
                f"{path}: encoding {encoding.name!r} holds no segments; panoptic truth is "
                'read by "coco-panoptic", or by "index" with a divisor'
            )
        return _panoptic_train_ids(truth, encoding, path)


def find_split(
    name: str,
    folder: Path,
    table: Mapping[str, str],
    encoding: Encoding,
    things: frozenset[int],
) -> Split:
    """Find the files of a split that a dataset.toml describes by `table`.

    Raises:
        InputError: the split is empty, an image has no mask, or a file that says what belongs to
            the split is not what it should be.
    """
    images, labels = table["images"], table.get("labels", table.get("annotations", ""))
    annotations: dict[str, Any] = {}
    if "annotations" in table:
        annotations, missing = _annotated(folder, table, encoding)
        keys = tuple(annotations)
    if "list" in table:
        found, missing = _present(_lines(folder / table["list"]), folder, images)
        keys = tuple(found)
    if not {"annotations", "list"} & table.keys():
        keys, missing = _matching_keys(folder, images), 0
    if not keys:
        named = table.get("list", table.get("annotations"))
        problem = f"{folder / images}: no file matches"
        if named is not None:
            problem = f"{folder / named}: lists no image"
        if missing:
            problem += f" that is there as {folder / images} ({missing} are not)"
        raise InputError(f"{problem}, so split {name!r} is empty; check folder, list and pattern")
    valid = table.get("valid", "")
    split = Split(folder, images, labels, keys, encoding, things, missing, annotations, valid)
    by_class = encoding.name == "binary-masks"
    for key in keys:
        path = split.label_path(key)
        if not (split.class_masks(key) if by_class else _is_file(path)):
            raise InputError(
                f"{path}: no such file, so {key!r} of split {name!r} has no mask; "
                "add the file or list the keys to use"
            )
        if valid and not _is_file(mask := folder / valid.replace("{key}", key)):
            raise InputError(
                f"{mask}: no such file, and splits.{name}.valid names it; add the file"
            )
        if annotations and key not in annotations:
            raise InputError(
                f"{folder / table['annotations']}: does not list the image of {key!r}, "
                f"which {table['list']} lists; take it out there"
            )
    return split


_READERS: dict[str, Callable[[Split, str], NDArray[np.uint8]]] = {
    "index": lambda split, key: read_index(split.label_path(key), split.encoding),
    "palette": lambda split, key: read_palette(split.label_path(key), split.encoding),
    "rgb": lambda split, key: read_rgb(split.label_path(key), split.encoding),
    "mat": lambda split, key: read_mat(split.label_path(key), split.encoding),
    "polygons": lambda split, key: read_polygons(
        split.label_path(key), split.image_path(key), split.encoding
    ),
    "binary-masks": lambda split, key: read_binary_masks(
        split.class_masks(key), str(split.label_path(key)), split.encoding
    ),
    "coco-json": lambda split, key: draw(split.annotations[key], split.encoding),
    "coco-panoptic": lambda split, key: _read_segments(
        split.label_path(key), split.annotations[key], split.encoding
    ),
}
"""What reads a label, (H, W) train ids, in each encoding."""


def _read_segments(path: Path, entry: PanopticEntry, encoding: Encoding) -> NDArray[np.uint8]:
    ids, segments = read_panoptic(path, entry.segments)
    table = np.zeros(1 << 24, np.uint8)  # only the pages that are used take memory
    table[0] = IGNORE_INDEX
    for segment in segments:
        table[segment["id"]] = encoding.train_id(segment["category_id"], str(path))
    return table[ids]


def _panoptic_train_ids(truth: Panoptic, encoding: Encoding, path: Path) -> Panoptic:
    """Exchange categories for train ids; what is ignored becomes void."""
    segments, void = [], []
    for segment in truth.segments:
        train_id = encoding.train_id(segment["category_id"], str(path))
        if train_id == IGNORE_INDEX:
            void.append(segment["id"])
        else:
            segments.append({**segment, "category_id": train_id})
    ids = np.where(np.isin(truth.ids, void), 0, truth.ids) if void else truth.ids
    return Panoptic(ids, segments)


def _annotated(
    folder: Path, table: Mapping[str, str], encoding: Encoding
) -> tuple[dict[str, Any], int]:
    """What a COCO JSON says of each key whose image is there; and how many are not there."""
    path = folder / table["annotations"]
    if encoding.name == "coco-json":
        images = {image.file_name: image for image in read_instances(path)}
        named = _named_keys(images, folder, table["images"])
        return {key: images[name] for key, name in named.items()}, len(images) - len(named)
    entries: dict[str, Any] = {}
    for entry in read_annotations(path).images.values():
        entries[next(_candidates(entry.file_name, table["labels"]))] = entry
    found, missing = _present(entries, folder, table["images"])
    return {key: entries[entry] for key, entry in found.items()}, missing


def _named_keys(names: Collection[str], folder: Path, pattern: str) -> dict[str, str]:
    """The keys of the images that a JSON names, with their names, in its order.

    Of two files that one name may mean, the one in the higher folder is meant.
    """
    keys = {pattern.replace("{key}", key): key for key in _matching_keys(folder, pattern)}
    found: dict[str, str] = {}
    for name, places in match_files(names, keys).items():
        depths = sorted((before.count("/"), before + ending) for before, ending in places)
        if len(depths) == 1 or depths[0][0] < depths[1][0]:
            found[name] = keys[depths[0][1]]
    return {found[name]: name for name in names if name in found}


def _lines(path: Path) -> Iterator[str]:
    """The lines of a list file, less the blank ones."""
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {fault}, and dataset.toml names it as the list of a split")
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        yield from (line.strip() for line in file if line.strip())


def _present(entries: Iterable[str], folder: Path, images: str) -> tuple[dict[str, str], int]:
    """The entries whose image is there, by their keys; and how many have none.

    An entry is a plain key or the image's path from any root, alone or in the first column.
    """
    found: dict[str, str] = {}
    missing = 0
    for entry in entries:
        keys = (
            key
            for text in dict.fromkeys((entry, *entry.split()[:1]))
            for key in _candidates(text[:_MAX_LINE], images)
            if _is_file(folder / images.replace("{key}", key))
        )
        if (key := next(keys, None)) is None:
            missing += 1
        else:
            found[key] = entry
    return found, missing


def _candidates(entry: str, pattern: str) -> Iterator[str]:
    """The keys that `entry` may mean, the likeliest first; the last is `entry` itself.

    An entry may lack the pattern's outer folders, but not the one that its images lie in, or it
    has none at all.
    """
    before, after = pattern.split("{key}", 1)
    folders = before[: before.rfind("/") + 1]
    for outer in (0, *(slash.end() for slash in re.finditer("/(?=.*/)", folders))):
        expression = re.compile(f"{re.escape(before[outer:])}(?P<key>.+){re.escape(after)}")
        for path in (entry, folders + entry):
            for start in (0, *(slash.end() for slash in re.finditer("/", path))):
                if match := expression.fullmatch(path, start):
                    yield match["key"]
    yield entry


def _matching_keys(folder: Path, images: str) -> tuple[str, ...]:
    """The keys of all files that match; a key may lead through folders."""
    before, after = images.split("{key}", 1)
    prefix = before[before.rfind("/") + 1 :]
    top = folder / before.removesuffix(prefix)
    expression = re.compile(f"{re.escape(prefix)}(?P<key>.+){re.escape(after)}")
    files = top.glob(f"{glob.escape(prefix)}*{glob.escape(after)}") if prefix else _below(top)
    matches = (
        expression.fullmatch(path.relative_to(top).as_posix())
        for path in files
        if path.is_file() and not path.name.startswith(".")  # as a Mac's ._photo.jpg
    )
    return tuple(sorted(match["key"] for match in matches if match))


def _below(top: Path) -> Iterator[Path]:
    """All files below a folder, through links as well, but into no folder twice."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(top, onerror=_check_permission, followlinks=True):
        if (place := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        yield from (Path(folder, name) for name in names)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:  # as for a name that is too long, or no name at all
        _check_permission(error)
        return False


def _check_permission(error: Exception) -> None:
    if isinstance(error, PermissionError):
        raise InputError(f"{error.filename}: {error.strerror}; let this user read the folder")
