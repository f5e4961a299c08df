"""Split: the samples of one part of a data set, read from their original files."""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.coco import draw
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
    instance_ids_to_panoptic,
    read_panoptic,
    read_segments,
    with_train_ids,
)
from atrous.data.encodings.polygons import read_polygons
from atrous.data.patterns import path_of
from atrous.data.sample import Sample, paired, without_data_ignored
from atrous.errors import InputError, named
from atrous.files import is_file
from atrous.images.bands import COLORS, Bands, Channels
from atrous.images.label_maps import read_brightness, read_label
from atrous.images.pixels import read_pixels, where_data
from atrous.images.rasters import channels_of
from atrous.metrics.panoptic_quality import Panoptic
from atrous.taxonomy import IGNORE_INDEX

__all__ = ["Split"]


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
            with named(path):
                truth = instance_ids_to_panoptic(ids, encoding.divisor, set(things.tolist()))
        else:
            raise InputError(
                f"{path}: encoding {encoding.name!r} holds no segments; panoptic truth is "
                'read by "coco-panoptic", or by "index" with a divisor'
            )
        return with_train_ids(truth, encoding, path)


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
    "coco-panoptic": lambda split, key: read_segments(
        split.label_path(key), split.annotations[key], split.encoding
    ),
}
"""Readers of a label, (H, W) train ids, by encoding."""
