"""Samples: labelled images in a fixed order, read from files or from shards."""

import operator
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.images.bands import Bands, Channels
from atrous.images.pixels import read_pixels, where_data
from atrous.images.rasters import channels_of
from atrous.taxonomy import IGNORE_INDEX

__all__ = ["Sample", "Samples"]


@dataclass(frozen=True)
class Sample:
    """One labelled image."""

    image: NDArray[np.uint8]
    """(H, W, C): sRGB, or the bands that the data set names."""
    label: NDArray[np.uint8]
    """(H, W) train ids, 255 = ignored."""
    key: str


class Samples(Sequence[Sample]):
    """Labelled images in a fixed order; each is read on access."""

    keys: tuple[str, ...]
    bands: Bands
    """How the images are read."""

    @abstractmethod
    def _image(self, index: int) -> tuple[Path, bytes | None]:
        """Return the path of an image, and its content where it is no file by itself."""

    @abstractmethod
    def _label(self, index: int) -> tuple[str, NDArray[np.uint8]]:
        """Return the name, for messages, and the label (H, W), also where the image has no data."""

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Read sample `index`."""
        key = self.keys[operator.index(index)]  # no slices
        path, content = self._image(index)
        image, has_data = read_pixels(path, self.bands, content)
        name, label = self._label(index)
        if image.shape[:2] != label.shape:
            raise InputError(
                f"{name}: {label.shape[1]}x{label.shape[0]}, but its image {path.name} is "
                f"{image.shape[1]}x{image.shape[0]}; a mask must have its image's size"
            )
        return Sample(image, _without_data_ignored(label, has_data), key)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def label(self, index: int) -> NDArray[np.uint8]:
        """Read the label of sample `index`, (H, W) train ids; a photo is not decoded for it."""
        path, content = self._image(index)
        return _without_data_ignored(self._label(index)[1], where_data(path, self.bands, content))

    def channels(self) -> Channels:
        """Return the channels of the images, as the first one declares them."""
        path, content = self._image(0)
        return channels_of(path, self.bands, content)


def _without_data_ignored(
    label: NDArray[np.uint8], has_data: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Return a label (H, W) that is ignored where the image has no data (None: data everywhere).

    A label of another size stays as it is.
    """
    if has_data is None or has_data.shape != label.shape or has_data.all():
        return label
    return np.where(has_data, label, np.uint8(IGNORE_INDEX))
