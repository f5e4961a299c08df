"""Annotations in formats that are not read: named, with what to export instead (foreign.toml)."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from atrous.decode import own_toml
from atrous.errors import InputError
from atrous.files import read_text
from atrous.text import one_line

_MAX_BYTES = 1 << 28
_MAX_FILES = 8
"""Files of each suffix that are read, those nearest to the top folder first."""
_XML_START = 1 << 18
_LISTS = ("images", "annotations", "categories")


class _Format(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    export: str
    fields: frozenset[str] = frozenset()
    words: tuple[str, ...] = ()


_FORMATS = own_toml(__file__, "foreign.toml", dict[str, list[_Format]])


def foreign_labels(folder: Path, paths: Iterable[str]) -> InputError | None:
    """Return an error that names the format of annotations that are not read, if there are any."""
    paths = sorted(paths, key=lambda path: (path.count("/"), path))
    here = {PurePosixPath(path).name for path in paths}
    for suffixes in ((".json", ".ndjson"), (".xml",)):
        for path in [p for p in paths if p.lower().endswith(suffixes)][:_MAX_FILES]:
            if (folder / path).stat().st_size > _MAX_BYTES:
                continue
            is_xml = suffixes == (".xml",)
            if line := _xml_fault(folder / path) if is_xml else _json_fault(folder / path, here):
                return InputError(f"{folder / path}: {line}")
    return None


def _json_fault(path: Path, here: Collection[str]) -> str:
    """`here` are the names of the files in its folder and below."""
    try:
        text = read_text(path)
        table = json.loads(text.split("\n", 1)[0] if path.suffix.lower() == ".ndjson" else text)
    except (InputError, ValueError, RecursionError):
        return ""
    if isinstance(table, dict) and all(isinstance(table.get(field), list) for field in _LISTS):
        return _coco_fault(table["images"], here)
    entries = table.values() if isinstance(table, dict) else table
    first = next(iter(entries), None) if isinstance(table, dict | list) else None
    known = [{*entry} for entry in (table, first) if isinstance(entry, dict)]
    return _fault(f for f in _FORMATS["json"] if any(f.fields <= fields for fields in known))


def _coco_fault(images: list[Any], here: Collection[str]) -> str:
    given = (entry.get("file_name") for entry in images if isinstance(entry, dict))
    names = [one_line(name) for name in given if isinstance(name, str)]
    if any(PurePosixPath(name).name in here for name in names):
        return "one of many COCO JSONs, of which a split can have one; merge those of each split"
    return (
        f"a COCO JSON of {len(images)} images, but none of them is here by its name; "
        f"looked for {', '.join(names[:3]) or 'no name at all'}; put the images into this folder"
    )


def _xml_fault(path: Path) -> str:
    with path.open("rb") as file:
        text = file.read(_XML_START).decode("utf-8", "replace").lower()
    return _fault(f for f in _FORMATS["xml"] if any(word in text for word in f.words))


def _fault(found: Iterable[_Format]) -> str:
    first = next(iter(found), None)
    return f"{first.name}, a format that is not read; export {first.export}" if first else ""
