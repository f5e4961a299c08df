"""The names of a folder's classes, from the small files that people and tools keep beside masks."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from atrous.files import InputError
from atrous.images import IMAGE_SUFFIXES
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
    "label_colors",
    "label_colours",
    "categories",
)
_MOST_BYTES = 1 << 20
_COLOR = r"(\d{1,3})[ ,;\t]+(\d{1,3})[ ,;\t]+(\d{1,3})"
_COLOR_LAST = re.compile(
    rf"^(?P<name>.+?)\s*[:,;\t ]\s*{_COLOR}\s*(?::.*)?$"
)  # CVAT: ...:: after it
_COLOR_FIRST = re.compile(rf"^{_COLOR}[ ,;\t]+(?P<name>\D.*)$")
_NUMBER_FIRST = re.compile(r"^(?P<id>\d{1,5})\s*[:,;\t ]\s*(?P<name>.+)$")


@dataclass(frozen=True)
class NamedClass:
    """One entry of such a file."""

    name: str
    dataset_id: int
    """As the file says; else its place, from 0."""
    color: tuple[int, int, int] | None = None


def find_class_names(folder: Path, paths: Iterable[str]) -> tuple[str, tuple[NamedClass, ...]]:
    """Read the file of class names that lies highest in `folder`; ("", ()) if there is none.

    Args:
        folder: where to look.
        paths: of its files, from `folder`.

    Returns:
        The file's path from `folder`, and what it names.

    Raises:
        InputError: the file cannot be read.
    """
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        name = PurePosixPath(path.lower())
        if name.suffix == ".csv" or name.name == "obj.names" or name.stem in _TEXTS:
            read = {".csv": _from_csv, ".txt": _from_text, ".names": _from_text}.get(name.suffix)
        else:
            read = _from_yaml if name.name in ("data.yaml", "data.yml") else None
        if read and (folder / path).stat().st_size <= _MOST_BYTES:
            text = (folder / path).read_text("utf-8-sig", errors="replace")
            if found := clean(read(text, folder / path)):
                return path, found
    return "", ()


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
        printable = "".join(c if c.isprintable() else "?" for c in " ".join(entry.name.split()))
        name = printable or "?"
        while name in seen:
            name += "'"
        seen[name] = NamedClass(name, entry.dataset_id, entry.color)
    return tuple(seen.values())


def _from_text(text: str, path: Path) -> list[NamedClass]:
    """Lines: a name; an id and a name; a name and a colour; or a colour and a name."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    for pattern in (_COLOR_FIRST, _COLOR_LAST, _NUMBER_FIRST):
        matches = [match for line in lines if (match := pattern.match(line))]
        if lines and len(matches) == len(lines):
            return [_from_match(place, match) for place, match in enumerate(matches)]
    return [NamedClass(line, place) for place, line in enumerate(lines)]


def _from_match(place: int, match: re.Match[str]) -> NamedClass:
    groups = match.groupdict()
    if "id" in groups:
        return NamedClass(groups["name"].strip(" \"',"), int(groups["id"]))
    red, green, blue = (min(int(v), 255) for v in match.groups() if v != groups["name"])
    return NamedClass(groups["name"].strip(), place, (red, green, blue))


def _from_csv(text: str, path: Path) -> list[NamedClass]:
    """Tables with columns name, r, g, b, as class_dict.csv; other tables name no classes."""
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error:
        return []
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    if not {"name", "r", "g", "b"} <= set(head):
        return []
    places = [head.index(column) for column in ("name", "r", "g", "b")]
    entries: list[NamedClass] = []
    for row in rows[1:]:
        if len(row) < len(head):
            continue
        name, *color = (row[place].strip() for place in places)
        if not all(value.isdecimal() and int(value) <= 255 for value in color):
            raise InputError(f"{path}: {name} has the colour {color}; r, g and b are 0 to 255")
        red, green, blue = map(int, color)
        entries.append(NamedClass(name, len(entries), (red, green, blue)))
    return entries


def _from_yaml(text: str, path: Path) -> list[NamedClass]:
    """`names` of a YOLO data.yaml: a list, or a table from ids."""
    import yaml

    try:
        table = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise InputError(f"{path}: not YAML; mend it or take it away") from None
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
