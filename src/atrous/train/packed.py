"""Batches that a GPU cuts: decoded pixels in one tensor, and how to make each crop in another."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.data.sample import Sample
from atrous.kernels.triton.augment import CROP, OPERATIONS, gpu_crops
from atrous.train.augment import Crop
from atrous.train.decoded import Decoded
from atrous.train.recipe import Recipe


class Packed(NamedTuple):
    """A batch of crops to be cut."""

    pixels: Tensor
    """(bytes,) uint8."""
    table: Tensor
    """(B, words) int64: an array of `CROP`."""
    channels: int


def pack(pairs: Iterable[tuple[Sample, Crop]], size: tuple[int, int]) -> Packed:
    """Pack what crops of (height, width) `size` show of their images."""
    parts: list[NDArray[np.uint8]] = []
    rows: list[Any] = []
    begin = channels = 0
    for sample, crop in pairs:
        whole = sample.label.shape
        (top, bottom), (left, right) = map(_shown, whole, crop.size, crop.corner, size)
        image, label = (part[top:bottom, left:right] for part in (sample.image, sample.label))
        width, channels = right - left, image.shape[2]
        before = top * width + left  # pixels of these rows that are left out
        places = begin - before * channels, begin + image.size - before
        rows.append(_row(crop, whole, places, width))
        parts += [image.ravel(), label.ravel()]
        begin += image.size + label.size
    return Packed(torch.from_numpy(np.concatenate(parts)), _table(rows), channels)


def pack_kept(kept: Decoded, pairs: Iterable[tuple[int, Crop]]) -> Packed:
    """Return a batch of crops of kept samples, given by their indices; nothing is copied."""
    rows = []
    for index, crop in pairs:
        (height, width), start = kept.sizes[index].tolist(), int(kept.starts[index])
        places = start, start + height * width * kept.channels
        rows.append(_row(crop, (height, width), places, width))
    return Packed(kept.pixels, _table(rows), kept.channels)


def cut_packed(packed: Packed, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Cut the crops of a batch on the device that it is on.

    Returns:
        image (B, h, w, C) uint8 and target (B, h, w) uint8.
    """
    jitter = recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue, recipe.gamma
    size, channels = recipe.crop_size, packed.channels
    return gpu_crops(packed.pixels, packed.table, size, channels, jitter=any(jitter))


def _shown(length: int, resized: int, start: int, wanted: int) -> tuple[int, int]:
    """Return first and end of the source pixels that a crop shows, and one more on each side."""
    scale = length / resized
    reach, first, last = max(scale, 1.0), max(start, 0), min(start + wanted, resized) - 1
    return (
        max(int((first + 0.5) * scale - reach - 1), 0),
        min(int((last + 0.5) * scale + reach + 2), length),
    )


def _row(crop: Crop, source: tuple[int, ...], places: tuple[int, int], width: int) -> Any:
    """Return the fields of a `CROP`.

    Args:
        crop: how the crop is made.
        source: (height, width) of the image.
        places: where pixel (0, 0) of image and label lies, or would lie, in the bytes.
        width: pixels from one row to the next.
    """
    assert not crop.angle, "a training with rotation is cut by the CPU"
    operations = [OPERATIONS.index(name) for name, _ in crop.jitter]
    factors = dict(crop.jitter)
    return (
        *places,
        width,
        source,
        crop.size,
        crop.corner,
        crop.flip,
        (*operations, *[-1] * (4 - len(operations))),
        (source[0] / crop.size[0], source[1] / crop.size[1]),
        tuple(factors.get(name, 1.0) for name in OPERATIONS),
        crop.gamma or 0.0,
        0.0,
    )


def _table(rows: list[Any]) -> Tensor:
    words = CROP.itemsize // 8
    return torch.from_numpy(np.array(rows, CROP).view(np.int64).reshape(len(rows), words))
