"""Split: the samples of one part of a data set, read from their original files."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings import masks, panoptic
from atrous.data.encodings.coco import draw
from atrous.data.encodings.masks import Encoding
from atrous.data.encodings.mat import read_mat
from atrous.data.encodings.polygons import read_polygons
from atrous.data.patterns import path_of
from atrous.data.sample import Samples
from atrous.errors import InputError, named
from atrous.files import is_file
from atrous.images.bands import COLORS, Bands
from atrous.images.label_maps import read_brightness, read_label
from atrous.metrics.panoptic_quality import Panoptic
from atrous.taxonomy import IGNORE_INDEX

__all__ = ["Split"]


@dataclass(frozen=True, eq=False)
class Split(Samples):
    """The samples of a split, in a fixed order; each is read on access."""

    folder: Path
    images: str
    """Pattern with {key}, from `folder`."""
    labels: str
    """Pattern with {key}, and {class} of binary masks; or the one file that holds all labels; ""
    for images without masks."""
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

    def without_masks(self) -> "Split":
        """Return the same images, whose pixels are all ignored."""
        return replace(self, labels="", valid="", annotations={})

    def class_masks(self, key: str) -> list[tuple[int, Path]]:
        """Return train id and path of each binary mask of `key` that exists."""
        names = ((i, self.labels.replace("{class}", n)) for n, i in self.encoding.names.items())
        paths = ((i, self.folder / path_of(self.folder, p, key)) for i, p in names)
        return [(train_id, path) for train_id, path in paths if is_file(path)]

    def _image(self, index: int) -> tuple[Path, None]:
        return self.image_path(self.keys[index]), None

    def _label(self, index: int) -> tuple[str, NDArray[np.uint8] | None]:
        key = self.keys[index]
        if not self.labels:
            return "", None
        label = self._label_of_files(key)
        if self.valid:
            path = self.valid_path(key)
            bright = read_brightness(path)
            least = masks.BRIGHT if bright.max(initial=0) >= masks.BRIGHT else 1  # JPEG is noisy
            masks.check_same_size(bright, label, path)
            label = np.where(bright >= least, label, np.uint8(IGNORE_INDEX))
        return str(self.label_path(key)), label

    def _label_of_files(self, key: str) -> NDArray[np.uint8]:
        path, encoding = self.label_path(key), self.encoding
        match encoding.name:
            case "index":
                return masks.read_index(path, encoding)
            case "palette":
                return masks.read_palette(path, encoding)
            case "rgb":
                return masks.read_rgb(path, encoding)
            case "mat":
                return read_mat(path, encoding)
            case "polygons":
                return read_polygons(path, self.image_path(key), encoding)
            case "binary-masks":
                return masks.read_binary_masks(self.class_masks(key), str(path), encoding)
            case "coco-json":
                return draw(self.annotations[key], encoding)
            case "coco-panoptic":
                return panoptic.read_segments(path, self.annotations[key], encoding)
        raise AssertionError(f"no reader of {encoding.name}")

    def panoptic(self, index: int) -> Panoptic:
        """Read the segments of sample `index`, their categories in train ids.

        A segment whose category is ignored becomes void.
        """
        key, encoding = self.keys[index], self.encoding
        path = self.label_path(key)
        if self.valid:
            raise InputError(f"{path}: a split with `valid` masks has no panoptic truth")
        if encoding.name == "coco-panoptic":
            truth = panoptic.read_panoptic(path, self.annotations[key].segments)
        elif encoding.divisor is not None:
            things = set(np.flatnonzero(np.isin(encoding.table, sorted(self.things))).tolist())
            ids = read_label(path)
            with named(path):
                truth = panoptic.instance_ids_to_panoptic(ids, encoding.divisor, things)
        else:
            raise InputError(
                f"{path}: encoding {encoding.name!r} holds no segments; panoptic truth is "
                'read by "coco-panoptic", or by "index" with a divisor'
            )
        return panoptic.with_train_ids(truth, encoding, path)
