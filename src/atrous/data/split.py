"""Split: the samples of one part of a data set, read from their original files."""

import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.coco import draw, read_instances
from atrous.data.encodings.masks import (
    BRIGHT,
    Encoding,
    check_same_size,
    read_binary_masks,
    read_index,
    read_palette,
    read_rgb,
)
from atrous.data.encodings.mat import read_mat
from atrous.data.encodings.panoptic import (
    PanopticEntry,
    instance_ids_to_panoptic,
    read_annotations,
    read_panoptic,
)
from atrous.data.encodings.polygons import read_polygons
from atrous.data.file_names import match_files
from atrous.data.lists import Place, key_of, read_lines
from atrous.data.patterns import alternatives, path_of
from atrous.data.sample import Sample, paired, without_data_ignored
from atrous.data.schema import SplitFiles
from atrous.errors import InputError
from atrous.files import is_file, walk
from atrous.images.bands import COLORS, Bands, Channels
from atrous.images.label_maps import read_brightness, read_label
from atrous.images.pixels import read_pixels, where_data
from atrous.images.rasters import channels_of
from atrous.metrics.panoptic_quality import Panoptic
from atrous.taxonomy import IGNORE_INDEX


@dataclass(frozen=True, eq=False)
class Split(Sequence[Sample]):
    """The samples of a split, in a fixed order; each is read on access."""

    folder: Path
    images: str
    """Pattern with {key}, from `folder`."""
    labels: str
    """Pattern with {key}, and {class} of binary masks; or the one file that holds all labels."""
    keys: tuple[str, ...]
    encoding: Encoding
    things: frozenset[int] = frozenset()
    """Train ids."""
    missing: int = 0
    """Number of listed images that are not there."""
    annotations: Mapping[str, Any] = field(default_factory=dict)
    """By key, the `PanopticEntry` or `CocoImage` of the JSON."""
    valid: str = ""
    """Pattern with {key} of masks whose 0 marks pixels to ignore, as outside the field of view."""
    bands: Bands = COLORS
    """How the images are read."""

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Read sample `index`."""
        key = self.keys[operator.index(index)]  # no slices
        path = self.image_path(key)
        image, has_data = read_pixels(path, self.bands)
        label = self._label(key)
        return paired(image, label, key, str(self.label_path(key)), path.name, has_data)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def channels(self) -> Channels:
        """Return the channels of the images, as the first one declares them."""
        return channels_of(self.image_path(self.keys[0]), self.bands)

    def image(self, key: str) -> str:
        """Return the path of an image from the folder; two files of one key are refused."""
        return path_of(self.folder, self.images, key)

    def mask(self, key: str) -> str:
        """Return the path of a label from the folder."""
        return path_of(self.folder, self.labels, key)

    def image_path(self, key: str) -> Path:
        """Return the path of an image."""
        return self.folder / self.image(key)

    def label_path(self, key: str) -> Path:
        """Return the path of a label."""
        return self.folder / self.mask(key)

    def valid_path(self, key: str) -> Path:
        """Return the path of the mask of the valid pixels."""
        return self.folder / self.valid.replace("{key}", key)

    def class_masks(self, key: str) -> list[tuple[int, Path]]:
        """Return train id and path of each binary mask of `key` that exists."""
        names = ((i, self.labels.replace("{class}", n)) for n, i in self.encoding.names.items())
        paths = ((i, self.folder / path_of(self.folder, p, key)) for i, p in names)
        return [(train_id, path) for train_id, path in paths if is_file(path)]

    def label(self, index: int) -> NDArray[np.uint8]:
        """Read the label of sample `index`, (H, W) train ids; a photo is not decoded for it."""
        key = self.keys[index]
        label = self._label(key)
        return without_data_ignored(label, where_data(self.image_path(key), self.bands))

    def _label(self, key: str) -> NDArray[np.uint8]:
        """Read the label of `key`, also where its image has no data."""
        label = _READERS[self.encoding.name](self, key)
        if self.valid:
            path = self.valid_path(key)
            bright = read_brightness(path)
            valid = bright >= (BRIGHT if bright.max(initial=0) >= BRIGHT else 1)  # JPEG is noisy
            check_same_size(valid, label, path)
            label = np.where(valid, label, np.uint8(IGNORE_INDEX))
        return label

    def panoptic(self, index: int) -> Panoptic:
        """Read the segments of sample `index`, their categories in train ids.

        A segment whose category is ignored becomes void.
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
"""Readers of a label, (H, W) train ids, by encoding."""


def _read_segments(path: Path, entry: PanopticEntry, encoding: Encoding) -> NDArray[np.uint8]:
    ids, segments = read_panoptic(path, entry.segments)
    table = np.zeros(1 << 24, np.uint8)  # only the pages that are used take memory
    table[0] = IGNORE_INDEX
    for segment in segments:
        table[segment["id"]] = encoding.train_id(segment["category_id"], str(path))
    return table[ids]


def _panoptic_train_ids(truth: Panoptic, encoding: Encoding, path: Path) -> Panoptic:
    """Replace categories by train ids; ignored segments become void."""
    segments, void = [], []
    for segment in truth.segments:
        train_id = encoding.train_id(segment["category_id"], str(path))
        if train_id == IGNORE_INDEX:
            void.append(segment["id"])
        else:
            segments.append({**segment, "category_id": train_id})
    ids = np.where(np.isin(truth.ids, void), 0, truth.ids) if void else truth.ids
    return Panoptic(ids, segments)


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
