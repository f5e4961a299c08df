"""Turn the [labels] of a dataset.toml into a taxonomy and the encoding of its masks."""

import re
from collections.abc import Sequence
from reprlib import repr as short

import numpy as np
from msgspec import UNSET

from atrous.data.encodings import masks
from atrous.data.encodings.masks import IDS, NO_DATA, Encoding, plain_name
from atrous.data.schema import BY_NAME, PICTURES, ClassEntry, Id, Labels, color_code, rgb
from atrous.images.label_maps import TRANSPARENT
from atrous.taxonomy import IGNORE_INDEX, Taxonomy, distinct_colors
from atrous.text import one_line

_DIGITS = re.compile("0|[1-9][0-9]{0,4}")


def taxonomy_of(labels: Labels, name: str) -> Taxonomy:
    """Return names, colours, things and groups of the classes of [labels]."""
    entries = labels.entries()
    defaults = distinct_colors(len(entries))
    colors = (entry.color or color for entry, color in zip(entries, defaults, strict=True))
    return Taxonomy(
        name=name,
        classes=tuple(entry.name for entry in entries),
        colors=tuple(rgb(color) for color in colors),
        things=frozenset(i for i, entry in enumerate(entries) if entry.thing),
        groups=tuple(one_line(entry.group) for entry in entries if entry.group is not None),
    )


def encoding_of(labels: Labels) -> Encoding:
    """Return the encoding of the masks that [labels] describe."""
    by_color, entries = labels.encoding == "rgb", labels.entries()
    train_ids, ignored = _colors(labels, entries) if by_color else _ids(labels, entries)
    for dataset_id in ignored:
        if train_ids.get(dataset_id, IGNORE_INDEX) != IGNORE_INDEX:
            named = masks.color_name(dataset_id) if by_color else dataset_id
            raise ValueError(f"labels.ignore names {named}, which is a class; choose one")
    if labels.encoding in PICTURES and not by_color:
        ignored.append(IGNORE_INDEX)
    known = [i for i in (*train_ids, *ignored) if i not in (TRANSPARENT, NO_DATA)]
    table = masks.lookup_table(
        train_ids,
        (i for i in ignored if i != NO_DATA),
        unknown=IGNORE_INDEX if labels.unknown == "ignore" else masks.UNKNOWN,
        size=masks.COLORS if by_color else IDS,
    )
    if labels.unknown == "nearest" and not by_color:  # colours are too many; see `read_rgb`
        table[:-1] = table[masks.nearest_ids(np.arange(IDS), known)]
    return Encoding(
        name=labels.encoding,
        table=table,
        names=_names(labels, entries) if labels.encoding in BY_NAME else {},
        background=_background(labels, entries),
        nearest=tuple(known) if labels.unknown == "nearest" else (),
        transparency=by_color and TRANSPARENT in (*train_ids, *ignored),
        no_data=not by_color and NO_DATA in ignored,
        divisor=labels.divisor,
        variable=labels.variable,
        foreground=labels.foreground,
    )


def _ids(labels: Labels, entries: Sequence[ClassEntry]) -> tuple[dict[int, int], list[int]]:
    """Return the train ids of dataset ids that are integers, and the ids to ignore."""
    is_picture, by_name = labels.encoding in PICTURES, labels.encoding in BY_NAME
    pairs = labels.map  # an empty one has no ids at all
    if pairs is UNSET:
        pairs = {str(i): i for i in range(len(entries))}
    train_ids = {
        _id(key): _train_id(key, value, entries)
        for key, value in pairs.items()
        if not by_name or _DIGITS.fullmatch(key)  # names have no place in this table
    }
    ignored = [
        _id(value, least=NO_DATA if is_picture else 0)
        for value in labels.ignored()
        if not (by_name and isinstance(value, str))
    ]
    return train_ids, ignored


def _colors(labels: Labels, entries: Sequence[ClassEntry]) -> tuple[dict[int, int], list[int]]:
    """Return the train ids of the colours of classes and map, and the colours to ignore."""
    pairs: list[tuple[Id, int]] = [(e.color, i) for i, e in enumerate(entries) if e.color]
    train_ids: dict[int, int] = {}
    for color, value in (*pairs, *(labels.map or {}).items()):
        train_id = _train_id(color, value, entries)
        if train_ids.setdefault(color_code(color), train_id) != train_id:
            raise ValueError(f"{short(color)} stands for two classes")
    for i, entry in enumerate(entries):
        if i not in train_ids.values():
            raise ValueError(f"class {short(entry.name)} has no color, by which rgb masks are read")
    return train_ids, [color_code(color) for color in labels.ignored()]


def _names(labels: Labels, entries: Sequence[ClassEntry]) -> dict[str, int]:
    """Return the train ids of names: of the classes, of the map, and those to ignore."""
    spelt = plain_name if labels.encoding == "polygons" else str  # binary masks: names of files
    names = {spelt(entry.name): i for i, entry in enumerate(entries)}
    for name, value in (labels.map or {}).items():
        names[plain_name(name)] = _train_id(name, value, entries)
    for name in (plain_name(value) for value in labels.ignored() if isinstance(value, str)):
        if names.setdefault(name, IGNORE_INDEX) != IGNORE_INDEX:
            raise ValueError(f"labels.ignore names {short(name)}, which is a class; choose one")
    return names


def _background(labels: Labels, entries: Sequence[ClassEntry]) -> int:
    names = [entry.name for entry in entries]
    if labels.background is None:
        return IGNORE_INDEX
    if labels.background not in names:
        raise ValueError(f"labels.background: no class {short(labels.background)}")
    return names.index(labels.background)


def _id(value: Id, least: int = 0) -> int:
    number = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
    if not isinstance(number, int) or not least <= number < IDS:
        raise ValueError(f"{short(value)} is no id; ids are integers from 0 to {IDS - 1}")
    return number


def _train_id(key: Id, value: int, entries: Sequence[ClassEntry]) -> int:
    if value != IGNORE_INDEX and not 0 <= value < len(entries):
        raise ValueError(f"labels.map sends {short(key)} to {short(value)}, which is no class")
    return value
