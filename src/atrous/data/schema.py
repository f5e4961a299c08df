"""What a dataset.toml says, checked. docs/datasets.md describes the file."""

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from reprlib import repr as short
from typing import Any

import numpy as np

from atrous.data.encodings.masks import (
    COLORS,
    IDS,
    NO_DATA,
    UNKNOWN,
    Encoding,
    color_name,
    lookup_table,
    nearest_ids,
    plain_name,
)
from atrous.data.lists import is_listable
from atrous.images.bands import Bands
from atrous.images.label_maps import TRANSPARENT
from atrous.taxonomy import IGNORE_INDEX, Taxonomy, distinct_colors

_ENCODINGS: dict[str, set[str]] = {
    "index": {"divisor"},
    "palette": set(),
    "rgb": set(),
    "mat": {"variable"},
    "coco-json": {"background"},
    "coco-panoptic": set(),
    "polygons": {"background"},
    "binary-masks": {"background", "foreground"},
}
"""Each with the fields of [labels] that it alone has."""
_BY_NAME = ("polygons", "binary-masks")
"""Encodings that know classes by their names."""
_PICTURES = ("index", "palette", "mat", "rgb")
"""Those whose masks hold a value, or a colour, for each pixel."""
_FIELDS = {
    *("name", "licence", "source", "labels", "splits", "archives", "manual"),
    *("bands", "range", "alpha"),
}
_CLASS_FIELDS = {"name", "color", "thing", "group"}
_LABEL_FIELDS = {"encoding", "classes", "ignore", "map", "unknown"}
_SPLIT_FIELDS = {
    "coco-json": {"images", "annotations"},
    "coco-panoptic": {"images", "labels", "annotations"},
}
"""What a split must say, where that is not images and labels."""
_LONGEST_PATH = 255
_LONGEST_TEXT = 1000
_ID = re.compile("0|[1-9][0-9]{0,4}")


def builtin_names() -> list[str]:
    """The sets that the package describes."""
    folder = resources.files("atrous.data") / "sets"
    return sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".toml"))


def builtin_text(name: str) -> str:
    """The dataset.toml of a built-in set."""
    return (resources.files("atrous.data") / "sets" / f"{name}.toml").read_text("utf-8")


def one_line(value: Any) -> str:
    """What `value` is as text, on one line."""
    return " ".join(str(value).split())


def read_text(where: str, value: Any) -> str:
    """The text of the field that `where` names, on one line.

    Raises:
        ValueError: it is no text, empty, or would disturb a terminal.
    """
    line = one_line(value) if isinstance(value, str) else ""
    if not line.isprintable() or not 0 < len(line) <= _LONGEST_TEXT:
        raise ValueError(f"{where} is {short(value)}, where printable text was expected")
    return line


def read_table(where: str, value: Any) -> dict[str, Any]:
    """The table that `where` names.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {short(value)}, where a table was expected")
    return value


def read_tables(where: str, value: Any) -> list[dict[str, Any]]:
    """The list of tables that `where` names.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, list):
        raise ValueError(f"{where} is {short(value)}, where a list was expected")
    return [read_table(f"an entry of {where}", entry) for entry in value]


def check_top(table: Mapping[str, Any]) -> None:
    """Check that the file has no fields but those that there are.

    Raises:
        ValueError: it has.
    """
    _check_fields("the top level", table, _FIELDS)


def read_bands(table: Mapping[str, Any]) -> tuple[Bands, bool | None]:
    """How images are read, and whether a fourth band is transparency, if that is said.

    Raises:
        ValueError: a field is not as it should be.
    """
    alpha = table.get("alpha")
    if not isinstance(alpha, bool | None):
        raise ValueError(f"alpha is {short(alpha)}; true or false")
    return Bands.read(table.get("bands"), table.get("range")), alpha


def read_classes(labels: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of `classes`: each a table with at least a name.

    Raises:
        ValueError, KeyError: they are not described as they should be.
    """
    classes = labels["classes"]
    while isinstance(classes, str):
        if classes not in builtin_names():
            known = ", ".join(builtin_names())
            raise ValueError(
                f"labels.classes is {short(classes)}, no built-in set; there are {known}"
            )
        classes = tomllib.loads(builtin_text(classes))["labels"]["classes"]
    if isinstance(classes, list):
        classes = [{"name": entry} if isinstance(entry, str) else entry for entry in classes]
    return [_read_class(entry) for entry in read_tables("labels.classes", classes)]


def _read_class(entry: dict[str, Any]) -> dict[str, Any]:
    _check_fields("an entry of labels.classes", entry, _CLASS_FIELDS)
    name = read_text("the name of a class", entry["name"])
    if not isinstance(entry.get("thing", False), bool):
        raise ValueError(f"class {short(name)}: thing is {short(entry['thing'])}; true or false")
    return {**entry, "name": name}


def read_taxonomy(name: str, classes: list[dict[str, Any]]) -> Taxonomy:
    """Names, colours, things and groups of the entries of `classes`.

    Raises:
        ValueError: an entry is not as it should be.
    """
    defaults = distinct_colors(len(classes))
    return Taxonomy(
        name=name,
        classes=tuple(entry["name"] for entry in classes),
        colors=tuple(
            _color(entry.get("color", default))
            for entry, default in zip(classes, defaults, strict=True)
        ),
        things=frozenset(i for i, entry in enumerate(classes) if entry.get("thing", False)),
        groups=tuple(
            read_text("the group of a class", entry["group"])
            for entry in classes
            if "group" in entry
        ),
    )


def read_encoding(labels: Mapping[str, Any], classes: list[dict[str, Any]]) -> Encoding:
    """Read the table [labels], all but its classes.

    Raises:
        ValueError, KeyError: a field is not as it should be.
    """
    name = labels["encoding"]
    if not isinstance(name, str) or name not in _ENCODINGS:
        raise ValueError(f"labels.encoding is {short(name)}; it can be {', '.join(_ENCODINGS)}")
    _check_fields("labels", labels, _LABEL_FIELDS | _ENCODINGS[name])
    read_table("labels.map", labels.get("map", {}))
    unknown = labels.get("unknown", "error")
    allowed = ("error", "ignore", "nearest") if name in _PICTURES else ("error", "ignore")
    if unknown not in allowed:
        raise ValueError(f"labels.unknown is {short(unknown)}; it can be {', '.join(allowed)}")
    beyond = IGNORE_INDEX if unknown == "ignore" else UNKNOWN
    read_ids = _read_colors if name == "rgb" else _read_ids
    train_ids, ignored = read_ids(labels, classes)
    for dataset_id in ignored:
        if train_ids.get(dataset_id, IGNORE_INDEX) != IGNORE_INDEX:
            named = color_name(dataset_id) if name == "rgb" else dataset_id
            raise ValueError(f"labels.ignore names {named}, which is a class; choose one")
    if name in _PICTURES and name != "rgb":
        ignored = [*ignored, IGNORE_INDEX]
    no_data = NO_DATA in ignored
    ignored = [i for i in ignored if i != NO_DATA]
    table = lookup_table(train_ids, ignored, beyond, COLORS if name == "rgb" else IDS)
    known = [i for i in (*train_ids, *ignored) if i != TRANSPARENT]
    if unknown == "nearest" and name != "rgb":  # colours are too many; see `read_rgb`
        table[:-1] = table[nearest_ids(np.arange(IDS), known)]
    return Encoding(
        name=name,
        table=table,
        names=_read_names(labels, classes) if name in _BY_NAME else {},
        background=_read_background(labels, classes),
        nearest=tuple(known) if unknown == "nearest" else (),
        transparency=name == "rgb" and TRANSPARENT in (*train_ids, *ignored),
        no_data=no_data,
        divisor=_divisor(labels["divisor"]) if "divisor" in labels else None,
        variable=read_text("labels.variable", labels.get("variable", "S")),
        foreground=_foreground(labels.get("foreground", 1)),
    )


def check_split(where: str, encoding: str, table: Any) -> None:
    """Check the table of one split, which `where` names.

    Raises:
        ValueError: a field is missing, unknown, or no text.
    """
    read_table(where, table)
    needed = {"shards"} if "shards" in table else _SPLIT_FIELDS.get(encoding, {"images", "labels"})
    _check_fields(where, table, needed if "shards" in table else needed | {"list", "valid"})
    for field in sorted(needed):
        if field not in table:
            raise ValueError(f"{where}.{field} is missing")
    for field, value in table.items():
        if not isinstance(value, str) or not is_listable(value) or len(value) > _LONGEST_PATH:
            raise ValueError(f"{where}.{field} is {short(value)}, where a path was expected")
    for field in table.keys() & {"images", "labels", "valid"}:
        if "{key}" not in table[field]:
            raise ValueError(f"{where}.{field} has no {{key}} in it")
    if encoding == "binary-masks" and "{class}" not in table.get("labels", "{class}"):
        raise ValueError(f"{where}.labels has no {{class}} in it")
    if "images" in needed and table["images"].count("{key}") > 1:
        raise ValueError(f"{where}.images has {{key}} in it more than once")


def _check_fields(where: str, table: Mapping[str, Any], allowed: set[str]) -> None:
    for field in table:
        if field not in allowed:
            there = ", ".join(sorted(allowed))
            raise ValueError(f"{where} has no field {short(field)} here; there can be {there}")


def _read_ids(
    labels: Mapping[str, Any], classes: list[dict[str, Any]]
) -> tuple[dict[int, int], list[int]]:
    """Dataset ids that are integers: the train ids of those mapped, and those ignored."""
    names = labels["encoding"] in _BY_NAME  # names have no place in this table
    least = NO_DATA if labels["encoding"] in _PICTURES else 0
    train_ids = {
        _id(key): _train_id(key, value, len(classes))
        for key, value in labels.get("map", {str(i): i for i in range(len(classes))}).items()
        if not (names and not _ID.fullmatch(key))
    }
    ignored = [i for i in _ignored(labels) if not (names and isinstance(i, str))]
    return train_ids, [_id(i, least) for i in ignored]


def _read_colors(
    labels: Mapping[str, Any], classes: list[dict[str, Any]]
) -> tuple[dict[int, int], list[int]]:
    """Dataset ids that are colours, of the classes and of the map; and those ignored."""
    entries = [(entry["color"], i) for i, entry in enumerate(classes) if "color" in entry]
    entries += labels.get("map", {}).items()
    train_ids: dict[int, int] = {}
    for color, value in entries:
        train_id = _train_id(color, value, len(classes))
        if train_ids.setdefault(_code(color), train_id) != train_id:
            raise ValueError(f"{short(color)} stands for two classes")
    for i, entry in enumerate(classes):
        if i not in train_ids.values():
            raise ValueError(
                f"class {short(entry['name'])} has no color, and rgb masks are read by it"
            )
    return train_ids, [_code(color) for color in _ignored(labels)]


def _read_names(labels: Mapping[str, Any], classes: list[dict[str, Any]]) -> dict[str, int]:
    """The train ids of names: those of the classes and of the map; and those ignored."""
    spelt = plain_name if labels["encoding"] == "polygons" else str  # binary masks: of files
    names = {spelt(entry["name"]): i for i, entry in enumerate(classes)}
    for name, value in labels.get("map", {}).items():
        names[plain_name(name)] = _train_id(name, value, len(classes))
    for name in (plain_name(i) for i in _ignored(labels) if isinstance(i, str)):
        if names.setdefault(name, IGNORE_INDEX) != IGNORE_INDEX:
            raise ValueError(f"labels.ignore names {short(name)}, which is a class; choose one")
    return names


def _read_background(labels: Mapping[str, Any], classes: list[dict[str, Any]]) -> int:
    if "background" not in labels:
        return IGNORE_INDEX
    names, name = [entry["name"] for entry in classes], labels["background"]
    if name not in names:
        raise ValueError(f"labels.background is {short(name)}, which is no class")
    return names.index(name)


def _ignored(labels: Mapping[str, Any]) -> list[Any]:
    ignored = labels.get("ignore", [])
    return ignored if isinstance(ignored, list) else [ignored]


def _id(value: Any, least: int = 0) -> int:
    number = int(value) if isinstance(value, str) and _ID.fullmatch(value) else value
    if not _is_integer(number, least, IDS - 1):
        raise ValueError(f"{short(value)} is no id; ids are integers from 0 to {IDS - 1}")
    return int(number)


def _train_id(key: Any, value: Any, num_classes: int) -> int:
    if not _is_integer(value, 0, IGNORE_INDEX) or num_classes <= value < IGNORE_INDEX:
        raise ValueError(f"labels.map sends {short(key)} to {short(value)}, which is no class")
    return int(value)


def _color(value: Any) -> tuple[int, int, int]:
    """Read "#rrggbb" or [r, g, b]."""
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        value = [*bytes.fromhex(value[1:])]
    match value:
        case [red, green, blue] if all(_is_integer(v, 0, 255) for v in value):
            return red, green, blue
    raise ValueError(f'{short(value)} is no colour; write "#rrggbb" or [r, g, b], 0 to 255 each')


def _code(value: Any) -> int:
    if value == "transparent":
        return TRANSPARENT
    red, green, blue = _color(value)
    return red + 256 * green + 65536 * blue


def _divisor(value: Any) -> int:
    if not _is_integer(value, 2, IDS):
        raise ValueError(f"labels.divisor is {short(value)}; it is a number like 1000")
    return int(value)


def _foreground(value: Any) -> int:
    if not _is_integer(value, 1, IDS - 1):
        raise ValueError(f"labels.foreground is {short(value)}; it is a value like 1 or 128")
    return int(value)


def _is_integer(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most  # True is an int, too
