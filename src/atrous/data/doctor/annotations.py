"""Folders whose labels are no pictures: what a COCO JSON, LabelMe or YOLO files say of classes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from atrous.data.doctor.class_names import NamedClass, clean
from atrous.data.doctor.scheme import Color, Scheme, check_count
from atrous.data.doctor.splits import UNDIVIDED, Files, Layout, rank, split_of
from atrous.data.json_file import read_json
from atrous.data.labels import Encoding, lookup_table
from atrous.data.mat import read_mat
from atrous.files import InputError
from atrous.images import IMAGE_SUFFIXES
from atrous.taxonomy import IGNORE_INDEX, distinct_colors

_MOST_JSON = 32
"""Folders with more have a JSON for each image, and no COCO JSON is looked for among these."""
_MOST_COCO_BYTES = 1 << 30
"""Twice as much as the largest that COCO publishes."""
_VARIABLES = ("S", "LabelMap", "label", "labels", "mask", "gt", "seg", "annotation")
_MOST_BYTES = 1 << 26
"""Of the file of one image."""


def find_coco(folder: Path, paths: Iterable[str]) -> tuple[Layout, Scheme] | None:
    """The images of the COCO JSONs in a folder, and their categories; None if there are none.

    Where both kinds lie there, panoptic ones count more than instances and stuff.

    Raises:
        InputError: a JSON has more categories than classes can be.
    """
    paths = list(paths)
    names = [path for path in paths if path.lower().endswith(".json")]
    if len(names) > _MOST_JSON:
        return None
    tables = {name: table for name in names if (table := _coco_table(folder / name))}
    panoptic = {name: table for name, table in tables.items() if _is_panoptic(table)}
    splits: dict[str, Files] = {}
    for name, table in sorted((panoptic or tables).items()):
        files = _files(name, table, paths, panoptic=bool(panoptic))
        split = split_of(name) or (split_of(files.images) if files else "") or UNDIVIDED
        if files and len(files.keys) > len(splits.get(split, Files("", "", ())).keys):
            splits[split] = files
    if not splits:
        return None
    if len(splits) > 1:
        splits.pop(UNDIVIDED, None)
    splits = {split: splits[split] for split in sorted(splits, key=rank)}
    categories = [e for files in splits.values() for e in tables[files.annotations]["categories"]]
    origin = "none" if UNDIVIDED in splits else "folders"
    encoding = "coco-panoptic" if panoptic else "coco-json"
    return Layout(folder, splits, origin), _categories_scheme(encoding, categories)


def labelme_names(folder: Path, layout: Layout) -> tuple[NamedClass, ...]:
    """The names of all shapes in the LabelMe files of a layout, sorted."""
    names: Counter[str] = Counter()
    for path in _label_paths(folder, layout):
        try:
            shapes = read_json(path).get("shapes", [])
            names.update({str(shape["label"]) for shape in shapes})
        except (InputError, AttributeError, TypeError, KeyError):
            continue  # whoever reads the file as a mask says what is wrong with it
    return clean([NamedClass(name, place) for place, name in enumerate(sorted(names))])


def yolo_names(folder: Path, layout: Layout, named: Sequence[NamedClass]) -> tuple[NamedClass, ...]:
    """`named`, and made-up names up to the largest class index in the YOLO files of a layout.

    Raises:
        InputError: the files hold boxes, and no polygons.
    """
    largest, boxes, polygons = -1, 0, 0
    for path in _label_paths(folder, layout):
        for line in path.read_text("ascii", errors="replace").splitlines():
            index, *numbers = line.split() or [""]
            if index.isdecimal() and len(index) < 4:
                largest = max(largest, int(index))
                boxes, polygons = boxes + (len(numbers) == 4), polygons + (len(numbers) > 4)
    if boxes and not polygons:
        raise InputError(f"{folder}: its YOLO files hold boxes; export polygons (segmentation)")
    known = {entry.dataset_id: entry for entry in named}
    return tuple(
        known.get(i, NamedClass(f"class {i}", i)) for i in range(max(largest + 1, len(named)))
    )


def mat_variable(path: Path) -> str:
    """The variable that holds the label map in a MATLAB file: the first usual name that fits."""
    any_id = lookup_table({}, (), IGNORE_INDEX)
    for variable in _VARIABLES:
        try:
            read_mat(path, Encoding(name="mat", table=any_id, variable=variable))
            return variable
        except InputError:
            continue
    return _VARIABLES[0]


def polygons_scheme(named: Sequence[NamedClass]) -> Scheme:
    """The scheme of polygons with these names, in the order of their train ids.

    Raises:
        InputError: there are none, or more than classes can be.
    """
    check_count(len(named))
    return Scheme(
        encoding="polygons",
        classes=tuple(entry.name for entry in named),
        colors=distinct_colors(len(named)),
        train_ids={place: place for place in range(len(named))},
    )


def _label_paths(folder: Path, layout: Layout) -> Iterable[Path]:
    for files in layout.splits.values():
        for key in files.keys:
            path = folder / files.mask(key)
            if path.stat().st_size <= _MOST_BYTES:
                yield path


def _coco_table(path: Path) -> Mapping[str, Any] | None:
    """The JSON, if it is COCO's: with lists of images, annotations and categories."""
    try:
        if path.stat().st_size > _MOST_COCO_BYTES:
            return None
        table = read_json(path, _without_masks)
    except InputError:
        return None
    fields = ("images", "annotations", "categories")
    is_coco = isinstance(table, dict) and all(
        isinstance(table.get(field), list) and all(isinstance(e, dict) for e in table[field])
        for field in fields
    )
    return table if is_coco else None


def _without_masks(table: dict[str, Any]) -> dict[str, Any]:
    """Drop the numbers that make up most of the file, before they fill the memory."""
    table.pop("segmentation", None)
    return table


def _is_panoptic(table: Mapping[str, Any]) -> bool:
    return any("segments_info" in entry for entry in table["annotations"][:1])


def _files(
    name: str, table: Mapping[str, Any], paths: Sequence[str], *, panoptic: bool
) -> Files | None:
    """Where the images, and the PNGs, of a COCO JSON lie: in the folder that has most of them."""
    images = _pattern([entry.get("file_name") for entry in table["images"]], paths)
    if images is None:
        return None
    pattern, keys = images
    if not panoptic:
        return Files(pattern, "", tuple(sorted(keys)), name)
    masks = _pattern([entry.get("file_name") for entry in table["annotations"]], paths)
    if masks is None:
        return None
    return Files(pattern, masks[0], tuple(sorted(keys & masks[1])), name)


def _pattern(file_names: Iterable[Any], paths: Sequence[str]) -> tuple[str, set[str]] | None:
    """The pattern that fits most of the files, and their keys."""
    endings = {name for name in file_names if isinstance(name, str)}
    by_pattern: dict[str, set[str]] = {}
    for path in paths:
        if not path.lower().endswith(IMAGE_SUFFIXES):
            continue
        starts = [0, *(place + 1 for place, letter in enumerate(path) if letter == "/")]
        start = next((start for start in starts if path[start:] in endings), None)
        if start is not None:
            suffix = PurePosixPath(path).suffix
            key = path[start:].removesuffix(suffix)
            by_pattern.setdefault(f"{path[:start]}{{key}}{suffix}", set()).add(key)
    return max(by_pattern.items(), key=lambda item: len(item[1]), default=None)


def _categories_scheme(encoding: str, categories: Iterable[Mapping[str, Any]]) -> Scheme:
    by_id = {
        entry["id"]: entry
        for entry in categories
        if isinstance(entry.get("id"), int) and 0 <= entry["id"] < 1 << 16
    }
    ids = sorted(by_id)
    check_count(len(ids))
    named = clean([NamedClass(str(by_id[i].get("name", f"class {i}")), i) for i in ids])
    colors = [
        _color(by_id[i].get("color")) or spare
        for i, spare in zip(ids, distinct_colors(len(ids)), strict=True)
    ]
    return Scheme(
        encoding=encoding,
        classes=tuple(entry.name for entry in named),
        colors=tuple(colors),
        train_ids={i: place for place, i in enumerate(ids)},
        things=frozenset(place for place, i in enumerate(ids) if by_id[i].get("isthing") == 1),
    )


def _color(value: Any) -> Color | None:
    if not (isinstance(value, list) and len(value) == 3):
        return None
    if not all(isinstance(v, int) and 0 <= v <= 255 for v in value):
        return None
    return value[0], value[1], value[2]
