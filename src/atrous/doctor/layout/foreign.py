"""Annotations in formats that are not read: named, with what to export instead."""

import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from atrous.errors import InputError
from atrous.files import read_text

_MOST_BYTES = 1 << 28
_MOST_FILES = 8
"""Of each suffix, those that lie highest."""
_LISTS = ("images", "annotations", "categories")

_Formats = tuple[tuple[str, Callable[[Any], bool], str], ...]


def _has(*fields: str) -> Callable[[Any], bool]:
    """Whether a JSON, or the first entry of its list or table, has all these fields."""

    def test(table: Any) -> bool:
        first = next(iter(table.values()), None) if isinstance(table, dict) else None
        first = table[0] if isinstance(table, list) and table else first
        return any(isinstance(t, dict) and {*fields} <= {*t} for t in (table, first))

    return test


_JSON: _Formats = (
    ("VGG VIA JSON", _has("filename", "regions"), "COCO JSON (Annotation > Export)"),
    ("VGG VIA project", _has("_via_img_metadata"), "COCO JSON (Annotation > Export)"),
    ("Label Studio JSON", _has("data", "annotations"), '"COCO" or "Brush labels to PNG"'),
    ("Label Studio JSON", _has("data", "completions"), '"COCO" or "Brush labels to PNG"'),
    ("Label Studio JSON-MIN", _has("annotation_id", "annotator"), '"COCO"'),
    ("Labelbox export", _has("data_row"), "COCO JSON, by Labelbox's SDK"),
    ("Labelbox export", _has("Labeled Data"), "COCO JSON, by Labelbox's SDK"),
    ("Hasty JSON", _has("label_classes", "images"), '"COCO JSON" or "Semantic PNG"'),
    ("SuperAnnotate JSON", _has("metadata", "instances"), "COCO JSON, by SuperAnnotate's SDK"),
    ("V7 Darwin JSON", _has("item", "annotations"), '"COCO" or "Semantic mask"'),
    ("Datumaro JSON", _has("items", "categories"), "COCO JSON, by datum convert"),
    ("CreateML boxes", _has("image", "annotations"), "COCO JSON with outlines"),
    ("Scalabel or BDD100K JSON", _has("name", "labels"), "its masks, as PNG"),
    ("Cityscapes polygons", _has("imgHeight", "objects"), "the PNGs of label ids"),
    ("Segments.ai release", _has("dataset", "created_at"), "COCO JSON or PNG, by its SDK"),
    ("CVAT backup", _has("shapes", "tracks"), '"COCO 1.0" or "Segmentation mask 1.1"'),
    ("COCO panoptic JSON without categories", _has("segments_info"), "the whole JSON"),
)
_XML: _Formats = (
    ("CVAT XML", lambda text: "<annotations" in text, '"COCO 1.0" or "Segmentation mask 1.1"'),
    ("Pascal VOC boxes", lambda text: "<bndbox" in text, "outlines or masks: boxes are neither"),
    ("LabelMe XML (MIT)", lambda text: "<polygon" in text, "COCO JSON, by any converter"),
    ("PAGE or ALTO XML", lambda text: "<pcgts" in text or "<alto" in text, "masks as PNG"),
)


def foreign_labels(folder: Path, paths: Iterable[str]) -> InputError | None:
    """What the annotation files among `paths` are, if they are of a format that is not read."""
    paths = sorted(paths, key=lambda path: (path.count("/"), path))
    here = {PurePosixPath(path).name for path in paths}
    for suffixes in ((".json", ".ndjson"), (".xml",)):
        for path in [p for p in paths if p.lower().endswith(suffixes)][:_MOST_FILES]:
            if (folder / path).stat().st_size > _MOST_BYTES:
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
    return _fault(table, _JSON)


def _coco_fault(images: list[Any], here: Collection[str]) -> str:
    given = (entry.get("file_name") for entry in images if isinstance(entry, dict))
    names = [" ".join(name.split()) for name in given if isinstance(name, str)]
    if any(PurePosixPath(name).name in here for name in names):
        return "one of many COCO JSONs, of which a split can have one; merge those of each split"
    return (
        f"a COCO JSON of {len(images)} images, but none of them is here by its name; "
        f"looked for {', '.join(names[:3]) or 'no name at all'}; put the images into this folder"
    )


def _xml_fault(path: Path) -> str:
    with path.open("rb") as file:
        return _fault(file.read(1 << 18).decode("utf-8", "replace").lower(), _XML)


def _fault(content: Any, formats: _Formats) -> str:
    found = next((entry for entry in formats if entry[1](content)), None)
    return f"{found[0]}, a format that is not read; export {found[2]}" if found else ""
