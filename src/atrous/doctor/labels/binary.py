"""One binary mask for each class of an image: read as codes that tell all classes of a pixel."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from atrous.data.encodings.masks import BRIGHT, binary_masks
from atrous.data.patterns import path_of
from atrous.data.schema import Labels
from atrous.doctor.labels.class_names import NamedClass, is_void
from atrous.doctor.labels.values import Meaning, class_entries, is_background
from atrous.doctor.layout.files import Layout, Pair
from atrous.doctor.scan.pairs import Ids, scan_pairs
from atrous.doctor.scan.scan import Scan
from atrous.doctor.scan.values import ValueStats, sum_up
from atrous.errors import InputError
from atrous.files import is_file
from atrous.images.label_maps import read_brightness
from atrous.progress import Progress
from atrous.taxonomy import IGNORE_INDEX
from atrous.text import one_line

_FIRST_BIT = 8
"""First bit of a code that stands for a class; the codes 0 and 255 mean no class and ignored."""
_VOID = 1 << 62
_MAX_CLASSES = 54
_SAMPLES = 64
"""Masks that are read to tell how bright the foreground is."""


def read_binary(layout: Layout, named: Sequence[NamedClass], progress: Progress) -> Scan:
    """Read the binary masks of a layout and tell the order of their classes.

    Where masks overlap, a later class covers an earlier one. So the order is by area, the largest
    first; or that of a file which names these very classes.

    Args:
        layout: the pairs, whose masks have {class} in their patterns.
        named: what a file says of the classes; empty if there is none.
        progress: is called with the number of pairs that are read, and of all.
    """
    folder = layout.folder
    names = sorted({name for files in layout.splits.values() for name in files.classes})
    _check_names(folder, names)
    bits = {n: _VOID if is_void(n) else 1 << _FIRST_BIT + i for i, n in enumerate(names)}
    masks = {
        pair: [
            (bit, path)
            for name, bit in bits.items()
            if is_file(
                path := folder / path_of(folder, pair.mask.replace("{class}", name), pair.key)
            )
        ]
        for pair in layout.pairs()
    }
    foreground = _foreground([path for entries in masks.values() for _, path in entries])

    def read(pair: Pair) -> Ids:
        codes: Ids = np.zeros(0, np.int64)
        for bit, inside in binary_masks(masks[pair], foreground):
            codes = codes if codes.size else np.zeros(inside.shape, np.int64)
            codes[inside] |= bit
        return np.where(codes >= _VOID, IGNORE_INDEX, codes)

    pairs = scan_pairs(layout, read, progress)
    meaning = _meaning(bits, sum_up(pairs, "binary-masks"), named, foreground)
    return Scan(layout, *meaning, pairs)


def _meaning(
    bits: Mapping[str, int], stats: ValueStats, named: Sequence[NamedClass], foreground: int
) -> Meaning:
    """Order the classes, which decides where they overlap, and tell the class of each code."""
    shown = [name for name in bits if not is_void(name)]
    area = {n: int(stats.counts[(stats.values & bits[n]) > 0].sum()) for n in shown}
    given = [entry.name for entry in named if entry.name in area]
    order = given if {*given} == {*shown} else sorted(shown, key=lambda name: (-area[name], name))
    background = next(filter(is_background, order), "background" if 0 in stats.values else None)
    classes = [*dict.fromkeys([*([background] if background else ()), *order])]
    class_of = {
        int(code): max(classes.index(name) for name in shown if code & bits[name])
        for code in stats.values
        if code > IGNORE_INDEX
    }
    if background:
        class_of[0] = classes.index(background)
    labels = Labels(
        encoding="binary-masks",
        ignore=tuple(sorted({*bits} - {*shown})),
        background=background,
        foreground=foreground,
        classes=class_entries(classes),
    )
    return Meaning(labels, class_of)


def num_classes_of(code: int) -> int:
    """Return the number of classes of a pixel, by its code from `read_binary`."""
    return (code >> _FIRST_BIT).bit_count()


def _check_names(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        if name != one_line(name):
            raise InputError(f"{folder}: masks of {name!r}: take the spaces out of that name")
    if len(names) > _MAX_CLASSES:
        raise InputError(
            f"{folder}: binary masks of {len(names)} classes; the doctor reads at most "
            f"{_MAX_CLASSES}; write a dataset.toml"
        )


def _foreground(paths: Sequence[Path]) -> int:
    """Return the least value that counts as inside: 128 for JPEG, and where all masks reach it."""
    if any(path.suffix.lower() in (".jpg", ".jpeg") for path in paths):
        return BRIGHT
    tops: list[int] = []
    for path in paths[:: len(paths) // _SAMPLES + 1]:
        with suppress(InputError):  # the scan reports it
            tops.append(int(read_brightness(path).max(initial=0)))
    return BRIGHT if min(filter(None, tops), default=0) >= BRIGHT else 1
