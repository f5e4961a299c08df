"""The names of a folder's classes, from the small files that people and tools keep beside masks.

class_names.toml lists the names of these files, and the words in them.
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

import msgspec

from atrous.data.encodings.masks import IDS, plain_name
from atrous.decode import own_toml, read_json
from atrous.errors import InputError
from atrous.files import read_text
from atrous.images.photos import IMAGE_SUFFIXES
from atrous.taxonomy import IGNORE_INDEX

_WORDS = own_toml(__file__, "class_names.toml", dict[str, tuple[str, ...]])
_MAX_BYTES = 1 << 20
_MAX_YAML = 1 << 18
"""YAML is slow to read."""
_MAX_COMPARED = 32
"""Files of one name that are compared."""
_COLOR = r"(\d{1,3})[ ,;\t]+(\d{1,3})[ ,;\t]+(\d{1,3})"
_COLOR_FIRST = re.compile(rf"^{_COLOR}[ ,;\t]+(?P<name>\D.*)$")
_COLOR_LAST = re.compile(rf"^(?P<name>.+?)\s*[:,;\t ]\s*{_COLOR}\s*(?::.*)?$")  # CVAT ends in ::
_NUMBER_FIRST = re.compile(r"^(?P<id>\d{1,5})\s*[:=,;\t ]\s*(?P<name>.+)$")
_NUMBER_LAST = re.compile(r"^(?P<name>.*?[^\d\s:=,;].*?)\s*[:=,;\t]\s*(?P<id>\d{1,5})$")
_COLOR_COLUMNS = ("r", "g", "b"), ("red", "green", "blue")
_NUMBER = re.compile("[0-9]{1,5}")
_VOID = re.compile(
    r"void|(un|not ?)label+ed|no ?label|no ?data|ignored?( (region|area|label))?"
    r"|do ?(n ?t|not) ?care"
)
_VISTAS_MASK = re.compile(r"(training|validation)/(?:(v\d\.\d)/)?labels/[\w-]{22}\.png$")

NO_ID = IDS
"""The id of a class whose file tells its colour or its name alone."""

Color = tuple[int, int, int]
_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Rgb = tuple[_Byte, _Byte, _Byte]
_Hex = Annotated[str, msgspec.Meta(pattern="^#[0-9a-fA-F]{6}[0-9a-fA-F]{0,2}$")]
_Id = Annotated[int, msgspec.Meta(ge=0, lt=IDS)]
_IdKey = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,5}$")]


@dataclass(frozen=True)
class NamedClass:
    """One entry of a file that names classes."""

    name: str
    dataset_id: int
    """The id in the file; else the entry's place, from 0."""
    color: Color | None = None


class ClassNames(NamedTuple):
    """What a file says of the classes."""

    file: str
    """Its path from the folder; empty if there is none."""
    entries: tuple[NamedClass, ...]


NO_NAMES = ClassNames("", ())


class _VistasLabel(msgspec.Struct):
    readable: str
    color: _Rgb


class _Vistas(msgspec.Struct):
    labels: list[_VistasLabel] = []


def find_class_names(folder: Path, paths: Iterable[str], mask: str) -> ClassNames:
    """Read the file of class names that lies highest in `folder`.

    Args:
        folder: where to look.
        paths: of its files, from `folder`.
        mask: the path of a mask: Supervisely's and Mapillary's names count for their masks only.
    """
    paths = sorted(paths, key=lambda path: (path.count("/"), path))
    vistas = _VISTAS_MASK.search(mask)
    config = re.compile(rf"config(_{vistas[2] or 'v1.2'})?\.json" if vistas else "(?!)")
    by_name: dict[str, list[str]] = defaultdict(list)
    entries: tuple[NamedClass, ...] = ()
    for path in paths:
        name = PurePosixPath(path).name
        if name == "obj_class_to_machine_color.json" and "machine" in mask:
            entries = _machine_colors(folder / path)
        elif config.fullmatch(name):
            entries = _vistas(folder / path)
        elif _reader(path) and (folder / path).stat().st_size <= _MAX_BYTES:
            by_name[name].append(path)
        if entries:
            return ClassNames(path, entries)
    for first, *others in by_name.values():
        entries = _read(folder / first, first)
        if not entries:
            continue
        for other in others[:_MAX_COMPARED]:
            if other.count("/") == first.count("/") and _read(folder / other, other) != entries:
                raise InputError(
                    f"{folder}: {first} and {other} name different classes; make them equal, "
                    "or keep the one that fits the masks"
                )
        return ClassNames(first, entries)
    return NO_NAMES


def is_void(name: str) -> bool:
    """Return whether a name stands for no class: `void`, `__ignore__`, `Don't care`."""
    words = re.sub(r"[\W_]+", " ", name.lower().replace("'", "")).strip()
    return _VOID.fullmatch(words) is not None


def same_class(names: Mapping[str, int]) -> list[list[str]]:
    """Group names that differ in letter case only; the most frequent of each group comes first.

    Args:
        names: how often each occurs.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names, key=lambda name: (-names[name], name)):
        groups[name.casefold()].append(name)
    return sorted(groups.values())


def color_in(value: Any) -> Color | None:
    """Read [r, g, b] or "#rrggbb", whose opacity does not count; else None."""
    if text := _fitting(value, _Hex):
        value = [*bytes.fromhex(text[1:7])]
    color: Color | None = _fitting(value, _Rgb)
    return color


def _words(*kinds: str) -> tuple[str, ...]:
    return tuple(word for kind in kinds for word in _WORDS[kind])


def _fitting(value: Any, kind: Any) -> Any:
    """Return `value` as a `kind`; None where it does not fit."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None


def _reader(path: str) -> Callable[[str, Path], list[NamedClass]] | None:
    """Return the reader of a file that may name classes, by its name."""
    name = PurePosixPath(path.lower())
    match name.suffix:
        case ".csv":
            return _from_csv
        case ".yaml" | ".yml":
            return _from_yaml
        case ".txt" | ".names" if name.stem in _words("texts") or name.suffix == ".names":
            return _from_text
        case ".json" if name.stem in _words("texts", "jsons", "settings"):
            return _from_json
    return None


def _read(path: Path, name: str) -> tuple[NamedClass, ...]:
    read = _reader(name)
    try:
        return _clean(read(read_text(path), path)) if read else ()
    except InputError:
        is_table = path.suffix.lower() in (".csv", ".yaml", ".yml")
        if is_table and path.stem.lower() not in _words("texts", "tables"):
            return ()  # a table or settings of something else
        raise


def _clean(entries: Sequence[NamedClass]) -> tuple[NamedClass, ...]:
    """Return the entries with unique names of one line.

    Empty where the entries are no classes: too many, or names of images.
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


def _machine_colors(path: Path) -> tuple[NamedClass, ...]:
    """Supervisely: the grey, or colour, of each class; what is 0 is of none."""
    colors = read_json(path, dict[str, _Rgb], "copy it again")
    black = [name for name, color in colors.items() if not any(color)] or ["background"]
    entries = [NamedClass(black[-1], 0, (0, 0, 0))]
    entries += [NamedClass(name, color[0], color) for name, color in colors.items() if any(color)]
    return _clean(sorted(entries, key=lambda entry: entry.dataset_id))


def _vistas(path: Path) -> tuple[NamedClass, ...]:
    """Mapillary Vistas: the labels in the order of their ids."""
    labels = read_json(path, _Vistas, "copy it again").labels
    return _clean([NamedClass(la.readable, place, la.color) for place, la in enumerate(labels)])


def _from_text(text: str, path: Path) -> list[NamedClass]:
    """Lines: a name; an id and a name; a name and a colour; or the other way round."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    rows = [line.split("\t") for line in lines]
    if lines and "\t" in lines[0] and (table := _from_table(rows, path)):
        return table
    return _from_lines(lines) or [NamedClass(line, place) for place, line in enumerate(lines)]


def _from_lines(lines: Sequence[str]) -> list[NamedClass]:
    """Read lines of a name with an id or a colour each; empty if any line has neither."""
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
    separator = max(",;\t", key=text.partition("\n")[0].count)
    try:
        table = _from_table(list(csv.reader(text.splitlines(), delimiter=separator)), path)
    except csv.Error:
        return []
    if table or path.stem.lower() not in _words("texts", "tables"):
        return table
    return _from_lines([line.strip() for line in text.splitlines() if line.strip()])


def _from_table(rows: Sequence[Sequence[str]], path: Path) -> list[NamedClass]:
    """Tables with a head: names, and ids or colours of them; other tables name no classes."""
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    name = next((head.index(column) for column in _words("name_columns") if column in head), None)
    number = next((head.index(column) for column in _words("id_columns") if column in head), None)
    channels = next((c for c in _COLOR_COLUMNS if {*c} <= {*head}), ())
    of_images = any(word in column for word in _words("image_columns") for column in head)
    if name is None or (number is None and not channels) or of_images:
        return []
    entries: list[NamedClass] = []
    for row in rows[1:]:
        cells = [cell.strip() for cell in row]
        if len(cells) < len(head):
            continue
        values = [cells[head.index(column)] for column in channels]
        color = color_in([int(value) if _NUMBER.fullmatch(value) else None for value in values])
        if channels and color is None:
            raise InputError(
                f"{path}: {cells[name]} has the colour {values}; r, g and b are 0 to 255"
            )
        place = cells[number] if number is not None else str(len(entries))
        if not (_NUMBER.fullmatch(place) and int(place) < IDS):
            return []
        entries.append(NamedClass(cells[name], int(place), color))
    ids = {entry.dataset_id for entry in entries}
    names = {entry.name for entry in entries}
    # One colour may have two names.
    is_once = len(ids) == len(entries) and (channels or len(names) == len(entries))
    return entries if is_once else []


def _from_yaml(text: str, path: Path) -> list[NamedClass]:
    """`names` of a YOLO file: a list, or a table from ids."""
    import yaml

    if "names" not in text or len(text) > _MAX_YAML:
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
        for field in _words("fields"):
            if found := _in_json(value.get(field)):
                return found
    return _in_json(value) if path.stem.lower() in _words("texts", "jsons") else []


def _in_json(value: Any) -> list[NamedClass]:
    """A list of names or of objects that have one; or a table."""
    if isinstance(value, dict):
        return _from_mapping(value)
    if not isinstance(value, list):
        return []
    found = [_from_entry(entry, place) for place, entry in enumerate(value)]
    entries = [entry for entry in found if entry]
    are_alike = len({isinstance(entry, str) for entry in value}) == 1
    return entries if are_alike and len(entries) == len(value) else []


def _from_entry(entry: Any, place: int) -> NamedClass | None:
    """One of a list; Supervisely's have a title, and ids that are not those of masks."""
    if isinstance(entry, str):
        return NamedClass(entry, place)
    if not isinstance(entry, dict):
        return None
    name = next((entry[field] for field in _words("name_fields") if field in entry), None)
    number = NO_ID if "title" in entry else entry.get("id", entry.get("value", place))
    if not isinstance(name, str) or type(number) is not int or not 0 <= number <= NO_ID:
        return None
    return NamedClass(name, number, color_in(entry.get("color")))


def _from_mapping(table: Mapping[str, Any]) -> list[NamedClass]:
    """Ids -> names, names -> ids, or names -> colours; greys are the ids themselves."""
    if (names := _fitting(table, dict[_IdKey, str])) is not None:
        return [NamedClass(name, int(key)) for key, name in names.items()]
    ids = _fitting(table, dict[str, _Id])
    if ids is not None and len({*ids.values()}) == len(ids):
        return [NamedClass(name, number) for name, number in ids.items()]
    colors = {name: color for name, value in table.items() if (color := color_in(value))}
    if len(colors) < len(table):
        return []
    if all(len({*color}) == 1 for color in colors.values()):
        return [NamedClass(name, color[0]) for name, color in colors.items()]
    return [NamedClass(name, NO_ID, color) for name, color in colors.items()]
