"""Masks that are pictures: their ids -> train ids, through one look-up table."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.images.label_maps import (
    TRANSPARENT,
    has_palette,
    read_brightness,
    read_colors,
    read_label,
)
from atrous.taxonomy import IGNORE_INDEX

UNKNOWN = -1
"""Stands in a table for an id that is neither a class nor ignored."""

NO_DATA = -1
"""Stands for all negative ids, which some programs write where there are no data."""

IDS = 1 << 16
"""Dataset ids are smaller."""

COLORS = 1 << 24
"""Colours are 24-bit codes, R + 256 G + 65536 B; the one beyond them is `TRANSPARENT`."""

BRIGHT = 128
"""The least value inside a binary mask that is drawn in black and white, blurred or not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoding:
    """How masks are stored and which train ids their ids have: the meaning of [labels]."""

    name: str
    table: NDArray[np.int16]
    """From `lookup_table`: the train id of each dataset id, or colour."""
    names: Mapping[str, int] = field(default_factory=dict)
    """Train ids of the names of shapes (LabelMe) or of files (binary masks)."""
    background: int = IGNORE_INDEX
    """Train id of the pixels that no polygon, or no binary mask, covers."""
    nearest: tuple[int, ...] = ()
    """Known ids or colours, if unknown ones count as the nearest of them; else empty."""
    transparency: bool = False
    """Whether transparent pixels of a mask in colours have a class, or are ignored."""
    no_data: bool = False
    """Whether negative ids are ignored."""
    divisor: int | None = None
    """Ids from it on are category * divisor + instance."""
    variable: str = "S"
    """Name of the label map in a MATLAB file."""
    foreground: int = 1
    """The least value of a binary mask that belongs to its class."""

    def train_id(self, dataset_id: int | str, where: str) -> int:
        """Return the train id of one id or name; `where` begins the error if it is unknown."""
        beyond = int(self.table[-1])
        if isinstance(dataset_id, str):
            train_id = self.names.get(dataset_id, beyond)
        else:
            train_id = int(self.table[dataset_id]) if 0 <= dataset_id < IDS else beyond
        if train_id == UNKNOWN:
            raise _unknown(where, short(dataset_id))
        return train_id


def plain_name(name: str) -> str:
    """Return a class name as names are compared: without stray spaces and invisible letters.

    >>> plain_name(" traffic  light\u200b")
    'traffic light'
    """
    letters = (c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return " ".join("".join(c if c.isprintable() else " " for c in letters).split())


def lookup_table(
    train_ids: Mapping[int, int], ignore: Iterable[int], unknown: int = UNKNOWN, size: int = IDS
) -> NDArray[np.int16]:
    """Return the train id of each dataset id, (size + 1,) int16; the last is for all larger ids.

    Args:
        train_ids: dataset id -> train id.
        ignore: dataset ids that become `IGNORE_INDEX`, unless they have a train id.
        unknown: train id of all other ids.
        size: ids are below it.
    """
    table = np.full(size + 1, unknown, np.int16)
    table[list(ignore)] = IGNORE_INDEX
    for dataset_id, train_id in train_ids.items():
        table[dataset_id] = train_id
    return table


def to_train_ids(
    ids: NDArray[np.integer[Any]], table: NDArray[np.int16], path: Path, *, no_data: bool = False
) -> NDArray[np.uint8]:
    """Look up each id of a mask: (H, W) integers -> (H, W) uint8 train ids.

    Args:
        ids: ids of the mask.
        table: from `lookup_table`.
        path: the mask, for messages.
        no_data: whether negative ids are ignored.
    """
    beyond = table.size - 1
    places = ids
    if ids.min(initial=0) < 0 or ids.max(initial=0) > beyond:
        places = np.where((ids < 0) | (ids > beyond), beyond, ids)
    train_ids = table[places]
    if no_data:
        train_ids[ids < 0] = IGNORE_INDEX
    if train_ids.min(initial=0) < 0:
        unknown = np.unique(ids[train_ids < 0])
        named = ", ".join(
            color_name(int(i)) if beyond == COLORS else str(i) for i in unknown[:5]
        ) + (", ..." if len(unknown) > 5 else "")
        raise _unknown(str(path), named)
    return np.asarray(train_ids, np.uint8)


def color_name(code: int) -> str:
    """Write a 24-bit code as people write colours.

    >>> color_name(255)
    '#ff0000'
    """
    if code == TRANSPARENT:
        return "transparent"
    return "#" + code.to_bytes(3, "little").hex()


def read_index(path: Path, encoding: Encoding) -> NDArray[np.uint8]:
    """Read a mask whose values, or palette indices, are ids: (H, W) train ids."""
    ids = read_label(path)
    if encoding.divisor is not None:
        ids = ids.astype(np.int64)  # 8 bits could not be divided by 1000
        ids = np.where(ids < encoding.divisor, ids, ids // encoding.divisor)
    return to_train_ids(ids, encoding.table, path, no_data=encoding.no_data)


def read_palette(path: Path, encoding: Encoding) -> NDArray[np.uint8]:
    """Read a mask whose palette indices are ids: (H, W) train ids."""
    if not has_palette(path):
        raise InputError(
            f"{path}: no palette, so its ids were lost when it was converted; take the original, "
            'or read its grey values by encoding = "index" and its colours by "rgb"'
        )
    return read_index(path, encoding)


def read_rgb(path: Path, encoding: Encoding) -> NDArray[np.uint8]:
    """Read a mask whose colours are ids: (H, W) train ids."""
    codes = read_colors(path, transparency=encoding.transparency)
    if encoding.nearest:
        table = encoding.table
        unknown = np.unique(codes[table[codes] < 0])
        table[unknown] = table[nearest_colors(unknown, encoding.nearest)]
    return to_train_ids(codes, encoding.table, path)


def binary_masks(
    masks: Iterable[tuple[int, Path]], foreground: int
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield the number of each mask of an image, in order, and which pixels are in it, (H, W).

    Args:
        masks: a number and a file each.
        foreground: the least value that is in a mask.
    """
    first: NDArray[np.bool_] | None = None
    for number, path in sorted(masks):
        values = read_brightness(path)
        brightest = int(values.max(initial=0))
        if 0 < brightest < foreground and path.suffix.lower() not in (".jpg", ".jpeg"):
            raise InputError(
                f"{path}: no value over {brightest}, where a mask begins at {foreground}; "
                f"change its {brightest} to 255, or labels.foreground in dataset.toml"
            )
        inside = values >= foreground
        first = inside if first is None else first
        check_same_size(inside, first, path)
        yield number, inside


def read_binary_masks(
    masks: Iterable[tuple[int, Path]], where: str, encoding: Encoding
) -> NDArray[np.uint8]:
    """Read the binary masks of one image: (H, W) train ids.

    Where masks overlap, the largest train id counts, so that ignored pixels cover all others.

    Args:
        masks: the train id of each file.
        where: begins the error if there is no mask.
        encoding: gives foreground and background.
    """
    label: NDArray[np.uint8] | None = None
    for train_id, inside in binary_masks(masks, encoding.foreground):
        if label is None:
            label = np.full(inside.shape, encoding.background, np.uint8)
        label[inside] = train_id
    if label is None:
        raise InputError(f"{where}: there is no mask of any class; add one or leave the image out")
    return label


def check_same_size(one: NDArray[Any], other: NDArray[Any], path: Path) -> None:
    """Check that two masks (H, W) of an image have one size; `path` is the first's."""
    if one.shape != other.shape:
        (height, width), (rows, columns) = one.shape, other.shape
        raise InputError(
            f"{path}: {width}x{height}, but another mask of its image is {columns}x{rows}; "
            "export both in the image's size"
        )


def nearest_ids(ids: NDArray[np.integer[Any]], known: Sequence[int]) -> NDArray[np.int64]:
    """Return the nearest known id of each id (N,); of two that are equally near, the larger."""
    ordered = np.sort(np.array(known, np.int64))
    return ordered[np.searchsorted((ordered[:-1] + ordered[1:]) / 2, ids, side="right")]


def nearest_colors(codes: NDArray[np.integer[Any]], known: Sequence[int]) -> NDArray[np.int64]:
    """Return the nearest known colour of each code (N,), by distance in RGB."""
    colors = np.array(known, np.int64)  # (C,)
    channels = channels_of(colors)
    nearest = np.empty(codes.shape, np.int64)
    for start in range(0, codes.size, 4096):
        block = channels_of(codes[start : start + 4096])
        # |u - k|^2 less |u|^2, which is the same for all k; float32 holds these integers exactly.
        distance = (channels**2).sum(1) - 2 * block @ channels.T
        nearest[start : start + 4096] = colors[distance.argmin(1)]
    return nearest


def channels_of(codes: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
    """24-bit codes (N,) -> their red, green and blue (N, 3)."""
    return np.stack([codes & 255, codes >> 8 & 255, codes >> 16], 1).astype(np.float32)


def _unknown(where: str, named: str) -> InputError:
    return InputError(
        f"{where}: id {named} is neither a class nor ignored; "
        "name it under labels.ignore or labels.map in dataset.toml"
    )
