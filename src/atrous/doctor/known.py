"""Published data sets that a folder may hold: their ids, names and colours are known.

A set is believed where all paths are laid out as it is, no file names other classes, and all values
that are regions are its own.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from atrous.data.schema import builtin_text
from atrous.data.train_ids import read_classes, read_encoding, read_taxonomy
from atrous.doctor.class_names import NamedClass, clean
from atrous.doctor.findings import Finding, some
from atrous.doctor.scheme import Scheme
from atrous.doctor.seen import Seen, census_of
from atrous.doctor.splits import Layout
from atrous.errors import InputError
from atrous.json_file import read_json
from atrous.taxonomy import IGNORE_INDEX

_MACHINE_COLORS = "obj_class_to_machine_color.json"
_COCO_THINGS = 80
"""Categories of COCO's instances; panoptic segments have 53 more."""
_MOST_IGNORED = 0.75
"""More is ignored in no set, not even where outlines are coarse."""
_VISTAS_MASK = re.compile(r"(training|validation)/(?:(v\d\.\d)/)?labels/[\w-]{22}\.png$")


def names_of_layout(
    folder: Path, paths: Iterable[str], layout: Layout
) -> tuple[str, tuple[NamedClass, ...]]:
    """The classes that Supervisely or Mapillary name in a JSON of their own; ("", ()) if none.

    Args:
        folder: where the files lie.
        paths: of its files.
        layout: tells which masks are read.

    Returns:
        The JSON's path from `folder`, and what it names.

    Raises:
        InputError: the JSON is damaged.
    """
    first = next(iter(layout.splits.values()))
    mask = first.mask(first.keys[0])
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        name = PurePosixPath(path).name
        if name == _MACHINE_COLORS and "machine" in mask:
            return path, _machine_colors(folder / path)
        if (vistas := _VISTAS_MASK.search(mask)) and re.fullmatch(
            rf"config(_{vistas[2] or 'v1.2'})?\.json", name
        ):
            return path, _vistas(folder / path)
    return "", ()


def as_known(layout: Layout, seen: Seen, named: Sequence[NamedClass]) -> tuple[Seen, list[Finding]]:
    """Take ids, names and colours of the published set that a folder is laid out as, if it fits.

    Args:
        layout: the pairs.
        seen: what reading them gave.
        named: what a file of the folder says of the classes.

    Returns:
        What was seen, by the set's classes where they fit; and a note that says which set it is.
    """
    for known in _table():
        if not _is_laid_out(layout, known):
            continue
        labels = known.get("labels") or tomllib.loads(builtin_text(known["set"]))["labels"]
        scheme = _two(seen, labels) if known.get("two") else _scheme(seen, labels)
        other, is_most = "", False
        if scheme is None:
            other = "is stored otherwise"
        elif named and not _agree(named, scheme):
            other = f"a file names other classes ({some(entry.name for entry in named)})"
        elif strange := _strange(seen, scheme, two="two" in known):
            other = f"holds {some(map(str, strange))}, which it has not"
        elif (ignored := _ignored(seen, scheme)) == 1:
            other = "it would ignore all pixels"
        message = f"laid out as {known['title']}"
        if other or scheme is None:
            message += f", but {other}: the folder's own values are read"
        else:
            message += ", and read by its ids, names and colours"
            if is_most := ignored > _MOST_IGNORED:
                message += f", which ignore {ignored:.0%} of the pixels"
            places = seen.places if "two" in known else scheme.train_ids
            seen = replace(seen, scheme=scheme, places=places)
        return seen, [
            Finding(
                code="known-set",
                severity="problem" if is_most else "note",
                count=1,
                message=message,
                examples=(),
                mend="none needed, if that is so; else write a dataset.toml",
            )
        ]
    return seen, []


def coco_notes(scheme: Scheme) -> list[Finding]:
    """Say that the categories of a COCO JSON are COCO's own, if ids and names are."""
    labels = tomllib.loads(builtin_text("coco-panoptic"))["labels"]
    classes = read_classes(labels)
    table = read_encoding(labels, classes).table
    own = {
        int(i): classes[table[i]]["name"]
        for i in np.flatnonzero((table >= 0) & (table < IGNORE_INDEX))
    }
    given = {i: scheme.classes[place] for i, place in scheme.train_ids.items()}
    if len(given) < _COCO_THINGS or any(own.get(i) != name for i, name in given.items()):
        return []
    return [
        Finding(
            code="known-set",
            severity="note",
            count=1,
            message=f"the {len(given)} categories of COCO, by its ids and names",
            examples=(),
            mend="none needed",
        )
    ]


@cache
def _table() -> list[Mapping[str, Any]]:
    text = (resources.files("atrous.doctor") / "known.toml").read_text("utf-8")
    return list(tomllib.loads(text)["known"])


def _is_laid_out(layout: Layout, known: Mapping[str, Any]) -> bool:
    images, masks = re.compile(known["images"]), re.compile(known["masks"])
    return all(
        images.search(files.image(key)) and masks.search(files.mask(key))
        for files in layout.splits.values()
        for key in files.keys
    )


def _scheme(seen: Seen, labels: Mapping[str, Any]) -> Scheme | None:
    """The scheme of a set whose [labels] are given, as the masks are stored; None for colours."""
    if seen.scheme.encoding not in ("index", "palette"):
        return None
    classes = read_classes(labels)
    taxonomy, table = read_taxonomy("known", classes), read_encoding(labels, classes).table[:-1]
    return Scheme(
        encoding=seen.scheme.encoding,
        classes=taxonomy.classes,
        colors=taxonomy.colors,
        train_ids={
            int(i): int(table[i]) for i in np.flatnonzero((table >= 0) & (table < IGNORE_INDEX))
        },
        ignore=tuple(np.flatnonzero(table == IGNORE_INDEX).tolist()),
        unknown=seen.scheme.unknown,
        things=taxonomy.things,
    )


def _two(seen: Seen, labels: Mapping[str, Any]) -> Scheme | None:
    """The scheme that was seen, if it has two classes, with their names."""
    if len(seen.scheme.classes) != 2:
        return None
    return replace(seen.scheme, classes=tuple(entry["name"] for entry in read_classes(labels)))


def _strange(seen: Seen, scheme: Scheme, *, two: bool) -> list[int]:
    """The values that are regions of the masks and that the set does not know."""
    if two:
        return []
    known = {*scheme.train_ids, *scheme.ignore}
    census = census_of(seen.readings, seen.blurred, seen.scheme.encoding)
    return [i for i in census.regions() if i not in known]


def _ignored(seen: Seen, scheme: Scheme) -> float:
    """The part of all pixels that the set ignores."""
    census = census_of(seen.readings, seen.blurred, seen.scheme.encoding)
    ignored = census.counts[np.isin(census.values, scheme.ignore)].sum()
    return float(ignored / max(census.counts.sum(), 1))


def _agree(named: Sequence[NamedClass], scheme: Scheme) -> bool:
    """Whether a file names the classes of a set, if with further words for each."""
    given = {re.split("[,;]", entry.name)[0].strip().lower() for entry in named}
    return sum(name.lower() in given for name in scheme.classes) > 0.8 * len(scheme.classes)


def _machine_colors(path: Path) -> tuple[NamedClass, ...]:
    """Supervisely: the grey, or colour, of each class; what is 0 is of none."""
    table = read_json(path)
    entries = [NamedClass("background", 0, (0, 0, 0))]
    for name, color in table.items() if isinstance(table, dict) else ():
        if not _is_color(color):
            raise InputError(f"{path}: the colour of {name!r} is {color!r}; it is [r, g, b]")
        if any(color):
            entries.append(NamedClass(name, color[0], (color[0], color[1], color[2])))
        else:
            entries[0] = NamedClass(name, 0, (0, 0, 0))
    return clean(sorted(entries, key=lambda entry: entry.dataset_id))


def _vistas(path: Path) -> tuple[NamedClass, ...]:
    """Mapillary Vistas: the labels in the order of their ids."""
    table = read_json(path)
    labels = table.get("labels") if isinstance(table, dict) else None
    entries = []
    for place, label in enumerate(labels if isinstance(labels, list) else ()):
        if not (isinstance(label, dict) and "readable" in label and _is_color(label.get("color"))):
            raise InputError(f"{path}: label {place} lacks `readable` or `color`; copy it again")
        red, green, blue = label["color"]
        entries.append(NamedClass(str(label["readable"]), place, (red, green, blue)))
    return clean(entries)


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(v) is int and 0 <= v <= 255 for v in value)
    )
