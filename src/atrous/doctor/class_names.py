"""The names of a folder's classes, from the small files that people and tools keep beside masks."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from atrous.data.encodings.masks import IDS, plain_name
from atrous.errors import InputError
from atrous.files import read_text
from atrous.images.photos import IMAGE_SUFFIXES
from atrous.taxonomy import IGNORE_INDEX

_TEXTS = (
    "classes",
    "class_names",
    "classnames",
    "labels",
    "label_names",
    "codes",
    "names",
    "labelmap",
    "label_map",
    "label_mapping",
    "class_mapping",
    "colormap",
    "color_map",
    "label_colors",
    "label_colours",
    "categories",
    "objectinfo150",
)
_JSONS = (*_TEXTS, "id2label", "label2id")
_FIELDS = ("id2label", "label2id", "labels", "classes", "categories", "names")
"""Of JSON files that say more than names, as Hugging Face, nnU-Net and Supervisely write them."""
_WITH_FIELDS = ("config", "dataset", "meta")
_TABLES = (*_TEXTS, "data", "dataset", "class_dict", "_classes")
_MOST_BYTES = 1 << 20
_MOST_YAML = 1 << 18
"""It is slow to read."""
_MOST_FILES = 32
"""Of one name, which are compared."""
_COLOR = r"(\d{1,3})[ ,;\t]+(\d{1,3})[ ,;\t]+(\d{1,3})"
_COLOR_LAST = re.compile(
    rf"^(?P<name>.+?)\s*[:,;\t ]\s*{_COLOR}\s*(?::.*)?$"
)  # CVAT: ...:: after it
_COLOR_FIRST = re.compile(rf"^{_COLOR}[ ,;\t]+(?P<name>\D.*)$")
_NUMBER_FIRST = re.compile(r"^(?P<id>\d{1,5})\s*[:=,;\t ]\s*(?P<name>.+)$")
_NUMBER_LAST = re.compile(r"^(?P<name>.*?[^\d\s:=,;].*?)\s*[:=,;\t]\s*(?P<id>\d{1,5})$")
_BYTE, _NUMBER = re.compile("[0-9]{1,3}"), re.compile("[0-9]{1,5}")
_HEX = re.compile("#([0-9a-fA-F]{6})[0-9a-fA-F]{0,2}")
_NAME_COLUMNS = ("name", "class", "class_name", "class name", "label", "category")
_ID_COLUMNS = ("id", "idx", "index", "value", "pixel value", "pixel_value", "class_id", "label_id")
_COLOR_COLUMNS = (("r", "g", "b"), ("red", "green", "blue"))
_TABLES_OF_IMAGES = re.compile("image|file|path|xmin|bbox")
_VOID = re.compile(
    r"void|(un|not ?)label+ed|no ?label|no ?data|ignored?( (region|area|label))?"
    r"|do ?(n ?t|not) ?care"
)

NO_ID = IDS
"""The id of a class whose file tells its colour or its name alone."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class NamedClass:
    """One entry of such a file."""

    name: str
    dataset_id: int
    """As the file says; else its place, from 0."""
    color: Color | None = None


def find_class_names(folder: Path, paths: Iterable[str]) -> tuple[str, tuple[NamedClass, ...]]:
    """Read the file of class names that lies highest in `folder`; ("", ()) if there is none.

    Args:
        folder: where to look.
        paths: of its files, from `folder`.

    Returns:
        The file's path from `folder`, and what it names.

    Raises:
        InputError: the file cannot be read, or one of the same name in another folder differs.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        if _reader(path) and (folder / path).stat().st_size <= _MOST_BYTES:
            by_name[PurePosixPath(path).name].append(path)
    for first, *others in by_name.values():
        found = _read(folder / first, first)
        if not found:
            continue
        for other in others[:_MOST_FILES]:
            if other.count("/") == first.count("/") and _read(folder / other, other) != found:
                raise InputError(
                    f"{folder}: {first} and {other} name different classes; make them equal, "
                    "or keep the one that fits the masks"
                )
        return first, found
    return "", ()


def _reader(path: str) -> Callable[[str, Path], list[NamedClass]] | None:
    """What reads a file that may name classes, by its name."""
    name = PurePosixPath(path.lower())
    match name.suffix:
        case ".csv":
            return _from_csv
        case ".yaml" | ".yml":
            return _from_yaml
        case ".txt" | ".names" if name.stem in _TEXTS or name.suffix == ".names":
            return _from_text
        case ".json" if name.stem in (*_JSONS, *_WITH_FIELDS):
            return _from_json
    return None


def _read(path: Path, name: str) -> tuple[NamedClass, ...]:
    read = _reader(name)
    try:
        return clean(read(read_text(path), path)) if read else ()
    except InputError:
        if path.suffix.lower() in (".csv", ".yaml", ".yml") and path.stem.lower() not in _TABLES:
            return ()  # a table or settings of something else
        raise


def is_void(name: str) -> bool:
    """Whether a name says that pixels are of no class: `void`, `__ignore__`, `Don't care`."""
    return (
        _VOID.fullmatch(re.sub(r"[\W_]+", " ", name.lower().replace("'", "")).strip()) is not None
    )


def same_class(names: Mapping[str, int]) -> list[list[str]]:
    """Names that differ in letter case only, together; of each class the commonest first.

    Args:
        names: how often each occurs.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names, key=lambda name: (-names[name], name)):
        groups[name.casefold()].append(name)
    return sorted(groups.values())


def clean(entries: Sequence[NamedClass]) -> tuple[NamedClass, ...]:
    """The entries, each name on one line and given once.

    None where they are no classes: they are too many, or names of images.
    """
    if len(entries) > IGNORE_INDEX or any(
        entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in entries
    ):
        return ()
    seen: dict[str, NamedClass] = {}
    for entry in entries:
        name = plain_name(entry.name) or "?"
        while name in seen:
            name += "'"
        seen[name] = replace(entry, name=name)
    return tuple(seen.values())


def _from_text(text: str, path: Path) -> list[NamedClass]:
    """Lines: a name; an id and a name; a name and a colour; or the other way round."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if (
        lines
        and "\t" in lines[0]
        and (table := _from_table([ln.split("\t") for ln in lines], path))
    ):
        return table
    return _from_lines(lines) or [NamedClass(line, place) for place, line in enumerate(lines)]


def _from_lines(lines: Sequence[str]) -> list[NamedClass]:
    """Lines that all say an id or a colour besides a name; empty if some do not."""
    for pattern in (_COLOR_FIRST, _COLOR_LAST, _NUMBER_FIRST, _NUMBER_LAST):
        matches = [match for line in lines if (match := pattern.match(line))]
        if lines and len(matches) == len(lines):
            return [_from_match(place, match) for place, match in enumerate(matches)]
    return []


def _from_match(place: int, match: re.Match[str]) -> NamedClass:
    groups = match.groupdict()
    if "id" in groups:
        return NamedClass(groups["name"].strip(" \"',"), int(groups["id"]))
    red, green, blue = (min(int(v), 255) for v in match.groups() if v != groups["name"])
    return NamedClass(groups["name"].strip(), place, (red, green, blue))


def _from_csv(text: str, path: Path) -> list[NamedClass]:
    head = text[: text.find("\n")] if "\n" in text else text
    separator = max(",;\t", key=head.count)
    try:
        table = _from_table(list(csv.reader(text.splitlines(), delimiter=separator)), path)
    except csv.Error:
        return []
    if table or path.stem.lower() not in _TABLES:
        return table
    return _from_lines([line.strip() for line in text.splitlines() if line.strip()])


def _from_table(rows: Sequence[Sequence[str]], path: Path) -> list[NamedClass]:
    """Tables with a head: names, and ids or colours of them; other tables name no classes."""
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    name = next((head.index(column) for column in _NAME_COLUMNS if column in head), None)
    number = next((head.index(column) for column in _ID_COLUMNS if column in head), None)
    colors = next((c for c in _COLOR_COLUMNS if {*c} <= {*head}), ())
    if name is None or (number is None and not colors):
        return []
    if any(_TABLES_OF_IMAGES.search(column) for column in head):
        return []
    entries: list[NamedClass] = []
    for row in rows[1:]:
        cells = [cell.strip() for cell in row]
        if len(cells) < len(head):
            continue
        color = [cells[head.index(column)] for column in colors]
        if not all(_BYTE.fullmatch(value) and int(value) <= 255 for value in color):
            raise InputError(
                f"{path}: {cells[name]} has the colour {color}; r, g and b are 0 to 255"
            )
        place = cells[number] if number is not None else str(len(entries))
        if not (_NUMBER.fullmatch(place) and int(place) < IDS):
            return []
        entries.append(NamedClass(cells[name], int(place), color_in([*map(int, color)])))
    once = {entry.dataset_id for entry in entries}
    if not colors:  # one colour may have two names
        once = once if len({entry.name for entry in entries}) == len(entries) else set()
    return entries if len(once) == len(entries) else []


def _from_yaml(text: str, path: Path) -> list[NamedClass]:
    """`names` of a YOLO file: a list, or a table from ids."""
    import yaml

    if "names" not in text or len(text) > _MOST_YAML:
        return []
    try:
        table = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        if path.stem != "data":
            return []  # any program's settings
        raise InputError(f"{path}: not YAML; fix it or take it away") from None
    names = table.get("names") if isinstance(table, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return []
    return [
        NamedClass(str(name), place)
        for place, name in names.items()
        if isinstance(place, int) and isinstance(name, str | int)
    ]


def _from_json(text: str, path: Path) -> list[NamedClass]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []  # what needs it says so
    if isinstance(value, dict):
        for field in _FIELDS:
            if found := _in_json(value.get(field)):
                return found
    return _in_json(value) if path.stem.lower() in _JSONS else []


def _in_json(value: Any) -> list[NamedClass]:
    """A list of names or of objects that have one; or a table."""
    if isinstance(value, dict):
        return _from_mapping(value)
    if not isinstance(value, list):
        return []
    if all(isinstance(entry, str) for entry in value):
        return [NamedClass(name, place) for place, name in enumerate(value)]
    found = [_from_object(entry, place) for place, entry in enumerate(value)]
    entries = [entry for entry in found if entry]
    return entries if len(entries) == len(value) else []


def _from_object(entry: Any, place: int) -> NamedClass | None:
    """One of a list; Supervisely's have a title, and ids that are not those of masks."""
    if not isinstance(entry, dict):
        return None
    name = next((entry[f] for f in ("title", "readable", "name", "label") if f in entry), None)
    number = NO_ID if "title" in entry else entry.get("id", entry.get("value", place))
    if not isinstance(name, str) or type(number) is not int or not 0 <= number <= NO_ID:
        return None
    return NamedClass(name, number, color_in(entry.get("color")))


def _from_mapping(table: Mapping[str, Any]) -> list[NamedClass]:
    """Ids -> names, names -> ids, or names -> colours; greys are the ids themselves."""
    values = [*table.values()]
    if all(isinstance(v, str) for v in values) and all(_NUMBER.fullmatch(k) for k in table):
        return [NamedClass(name, int(key)) for key, name in table.items()]
    if all(type(v) is int and 0 <= v < IDS for v in values) and len({*values}) == len(values):
        return [NamedClass(name, number) for name, number in table.items()]
    colors = [color_in(value) for value in values]
    if None in colors:
        return []
    if all(color and len({*color}) == 1 for color in colors):
        return [NamedClass(name, c[0]) for name, c in zip(table, colors, strict=True) if c]
    return [NamedClass(name, NO_ID, color) for name, color in zip(table, colors, strict=True)]


def color_in(value: Any) -> Color | None:
    """Read [r, g, b] or "#rrggbb"; else None."""
    if isinstance(value, str) and (match := _HEX.fullmatch(value)):
        value = [*bytes.fromhex(match[1])]
    if not (isinstance(value, list) and len(value) == 3):
        return None
    if not all(isinstance(v, int) and 0 <= v <= 255 for v in value):
        return None
    return value[0], value[1], value[2]
