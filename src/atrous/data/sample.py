"""Samples: labelled images in a fixed order, read from files or from shards, or from both."""

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

__all__ = ["Joined", "Sample", "Samples"]


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
    def _label(self, index: int) -> tuple[str, NDArray[np.uint8] | None]:
        """Return the name, for messages, and the label (H, W), also where the image has no data.

        None stands for no mask: all pixels are ignored.
        """

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        """Read sample `index`."""
        key = self.keys[operator.index(index)]  # no slices
        path, content = self._image(index)
        image, has_data = read_pixels(path, self.bands, content)
        name, label = self._label(index)
        if label is None:
            label = np.full(image.shape[:2], IGNORE_INDEX, np.uint8)
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
        label = self._label(index)[1]
        if label is None:
            return self[index].label
        path, content = self._image(index)
        return _without_data_ignored(label, where_data(path, self.bands, content))

    def channels(self) -> Channels:
        """Return the channels of the images, as the first one declares them."""
        path, content = self._image(0)
        return channels_of(path, self.bands, content)

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return a random order of all indices, (N,)."""
        return rng.permutation(len(self))


@dataclass(frozen=True, eq=False)
class Joined(Samples):
    """Samples of one place after those of another, read alike."""

    parts: tuple[Samples, Samples]
    keys: tuple[str, ...]
    bands: Bands

    @classmethod
    def of(cls, first: Samples, second: Samples) -> "Joined":
        """Join samples whose images have the same bands."""
        return cls((first, second), first.keys + second.keys, first.bands)

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return a random order in which each part keeps an order of its own."""
        first, second = self.parts
        is_second = rng.permutation(len(self)) >= len(first)
        order = np.empty(len(self), np.int64)
        order[~is_second] = first.order(rng)
        order[is_second] = len(first) + second.order(rng)
        return order

    def _image(self, index: int) -> tuple[Path, bytes | None]:
        part, own = self._place(index)
        return part._image(own)

    def _label(self, index: int) -> tuple[str, NDArray[np.uint8] | None]:
        part, own = self._place(index)
        return part._label(own)

    def _place(self, index: int) -> tuple[Samples, int]:
        first, second = self.parts
        return (first, index) if index < len(first) else (second, index - len(first))


def _without_data_ignored(
    label: NDArray[np.uint8], has_data: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Return a label (H, W) that is ignored where the image has no data (None: data everywhere).

    A label of another size stays as it is.
    """
    if has_data is None or has_data.shape != label.shape or has_data.all():
        return label
    return np.where(has_data, label, np.uint8(IGNORE_INDEX))
