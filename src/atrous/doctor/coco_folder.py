"""Folders with COCO JSONs: which images are theirs, and what their categories are."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any

from atrous.data.encodings.coco import number_of
from atrous.data.encodings.masks import IDS, plain_name
from atrous.data.file_names import match_files
from atrous.data.lists import split_of
from atrous.doctor.annotations import name_notes
from atrous.doctor.class_names import color_in, is_void
from atrous.doctor.findings import Finding, many, some
from atrous.doctor.known import coco_notes
from atrous.doctor.scheme import Scheme, check_count
from atrous.doctor.splits import UNDIVIDED, Files, Layout, rank
from atrous.errors import InputError
from atrous.images.photos import IMAGE_SUFFIXES
from atrous.json_file import read_json
from atrous.taxonomy import distinct_colors

_MOST_JSON = 32
"""Folders with more have a JSON for each image, and no COCO JSON is looked for among these."""
_MOST_COCO_BYTES = 1 << 30
"""Twice as much as the largest that COCO publishes."""


@dataclass(frozen=True)
class _CocoFiles:
    """The images of one COCO JSON."""

    files: Files
    missing: tuple[str, ...]
    """Names of the JSON that no image here has."""


def find_coco(folder: Path, paths: Iterable[str]) -> tuple[Layout, Scheme, list[Finding]] | None:
    """The images of the COCO JSONs in a folder, and their categories; None if there are none.

    Where both kinds lie there, panoptic ones count more than instances and stuff.

    Raises:
        InputError: a JSON has more categories than classes can be, two JSONs give one id two
            names, or an image could be either of two files.
    """
    paths = list(paths)
    names = [path for path in paths if path.lower().endswith(".json")]
    if len(names) > _MOST_JSON:
        return None
    tables = {name: table for name in names if (table := _coco_table(folder / name))}
    panoptic = {name: table for name, table in tables.items() if _is_panoptic(table)}
    splits: dict[str, _CocoFiles] = {}
    every: list[_CocoFiles] = []
    for name, table in sorted((panoptic or tables).items()):
        found = _coco_files(folder, name, table, paths, panoptic=bool(panoptic))
        if found is None:
            continue
        every.append(found)
        split = split_of(name) or split_of(found.files.images) or UNDIVIDED
        if split not in splits or len(found.files.keys) > len(splits[split].files.keys):
            splits[split] = found
    if not splits:
        return None
    if len(splits) > 1:
        splits.pop(UNDIVIDED, None)
    splits = {split: splits[split] for split in sorted(splits, key=rank)}
    categories = _categories(
        folder,
        {found.files.annotations: tables[found.files.annotations] for found in splits.values()},
    )
    origin = "none" if UNDIVIDED in splits else "folders"
    layout = Layout(folder, {split: found.files for split, found in splits.items()}, origin)
    scheme, findings = _categories_scheme("coco-panoptic" if panoptic else "coco-json", categories)
    findings += coco_notes(scheme)
    findings += [*_missing_images(splits.values()), *_unused(layout, every, paths)]
    return layout, scheme, findings


def _missing_images(splits: Iterable[_CocoFiles]) -> Iterator[Finding]:
    lines = [f"{found.files.annotations}: {name}" for found in splits for name in found.missing]
    if lines:
        yield Finding(
            code="missing-image",
            severity="note",
            count=len(lines),
            message=f"{many(len(lines), 'image')} of the JSON not found: "
            + some(line.split(": ", 1)[1] for line in lines),
            examples=tuple(lines),
            mend="none needed: a part of a set is read as it is",
        )


def _unused(layout: Layout, every: Sequence[_CocoFiles], paths: Iterable[str]) -> Iterator[Finding]:
    """The JSONs that are not read, and the images beside others that no JSON lists."""
    read = {files.image(key) for files in layout.splits.values() for key in files.keys}
    chosen = {files.annotations for files in layout.splits.values()}
    others = [found.files for found in every if found.files.annotations not in chosen]
    more = {files.image(key) for files in others for key in files.keys} - read
    if others:
        lost = f"; {many(len(more), 'image')} of theirs left out" if more else ""
        yield Finding(
            code="unused-annotations",
            severity="problem" if more else "note",
            count=len(others),
            message=f"{many(len(others), 'COCO JSON')} not read, since each split has one"
            f" ({some(sorted(chosen))}){lost}",
            examples=tuple(files.annotations for files in others),
            mend="merge the JSONs of a split into one, or move away those that are not meant",
        )
    folders = {str(PurePosixPath(path).parent) for path in read}
    pictures = (path for path in paths if path.lower().endswith(IMAGE_SUFFIXES))
    strays = [p for p in pictures if str(PurePosixPath(p).parent) in folders and p not in read]
    strays = [path for path in strays if path not in more]
    if strays:
        yield Finding(
            code="unused-image",
            severity="note",
            count=len(strays),
            message=f"{many(len(strays), 'image')} that no JSON lists: {some(strays)}",
            examples=tuple(strays),
            mend="none needed, if they are not labelled",
        )


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


def _coco_files(
    folder: Path, name: str, table: Mapping[str, Any], paths: Sequence[str], *, panoptic: bool
) -> _CocoFiles | None:
    """Where the images, and the PNGs, of a COCO JSON lie: in the folder that has most of them."""
    names = _file_names(table["images"])
    images = _pattern(folder, name, names, paths, any_suffix=not panoptic)
    if images is None:
        return None
    pattern, keys = images
    missing = tuple(sorted({*names} - {*keys.values()}))
    if not panoptic:
        return _CocoFiles(Files(pattern, "", tuple(sorted(keys)), name), missing)
    masks = _pattern(folder, name, _file_names(table["annotations"]), paths, any_suffix=False)
    if masks is None:
        return None
    both = tuple(sorted(keys.keys() & masks[1].keys()))
    if not both:
        return None
    return _CocoFiles(Files(pattern, masks[0], both, name), missing)


def _file_names(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    return [name for entry in entries if isinstance(name := entry.get("file_name"), str)]


def _pattern(
    folder: Path, json_name: str, names: Sequence[str], paths: Sequence[str], *, any_suffix: bool
) -> tuple[str, dict[str, str]] | None:
    """The pattern that fits most of the names, and the name of each key.

    Files of the JSON's own split come first; those of another are none of its.

    Raises:
        InputError: two folders fit alike.
    """
    split = split_of(json_name)
    pictures = [path for path in paths if path.lower().endswith(IMAGE_SUFFIXES)]
    by_place: dict[_Place, dict[str, str]] = {}
    for name, places in match_files(names, pictures).items():
        for before, ending in places:
            folder_of, suffix = before + ending.rpartition("/")[0], PurePosixPath(ending).suffix
            if not (split and (other := split_of(f"{folder_of}/")) and other != split):
                key = ending.removesuffix(suffix)
                by_place.setdefault((before, suffix), {})[key] = name
    by_place = dict(map(_without_folder, by_place.items()))
    by_place = _merged(by_place) if any_suffix else by_place
    if not by_place:
        return None

    def fit(place: _Place) -> tuple[bool, int, bool]:
        own = place[0].rstrip("/") == str(PurePosixPath(json_name).parent).replace(".", "")
        return split_of(place[0]) == split, len(by_place[place]), own

    best = max(by_place, key=fit)
    rivals = [place for place in by_place if fit(place) == fit(best) and place != best]
    if rivals:
        raise InputError(
            f"{folder / json_name}: its images could be those of {best[0] or '.'} or of "
            f"{rivals[0][0] or '.'}; move one of the two away"
        )
    return f"{best[0]}{{key}}{best[1]}", by_place[best]


_Place = tuple[str, str]
"""What stands before a key and after it."""


def _without_folder(item: tuple[_Place, dict[str, str]]) -> tuple[_Place, dict[str, str]]:
    """Count a folder that all keys have to what stands before them."""
    (before, suffix), keys = item
    folders = {key[: key.rfind("/") + 1] for key in keys}
    if len(folders) > 1:
        return item
    [folder] = folders
    return (before + folder, suffix), {key.removeprefix(folder): v for key, v in keys.items()}


def _merged(by_place: dict[_Place, dict[str, str]]) -> dict[_Place, dict[str, str]]:
    """Images of several folders or suffixes under one pattern, if each name is in one place."""
    names = [name for keys in by_place.values() for name in keys.values()]
    if len(by_place) < 2 or len({*names}) < len(names):
        return by_place
    common = posixpath.commonpath([before for before, _ in by_place])
    top = f"{common}/" if common else ""
    suffixes = {suffix for _, suffix in by_place}
    end = suffixes.pop() if len(suffixes) == 1 else ""
    keys = {
        f"{before.removeprefix(top)}{key}{'' if end else suffix}": name
        for (before, suffix), keys in by_place.items()
        for key, name in keys.items()
    }
    return {(top, end): keys}


def _categories(folder: Path, tables: Mapping[str, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """The categories of all JSONs by their ids.

    Raises:
        InputError: there are none, or an id is none or has two names.
    """
    by_id: dict[int, dict[str, Any]] = {}
    for path, table in tables.items():
        for entry in table["categories"]:
            try:
                number = number_of(entry.get("id"))
            except ValueError:
                number = -1
            if not 0 <= number < IDS:
                raise InputError(
                    f"{folder / path}: category {short(entry.get('name'))} has the id "
                    f"{short(entry.get('id'))}; number the categories from 0 to {IDS - 1}"
                )
            name = plain_name(str(entry.get("name", ""))) or f"class {number}"
            known = by_id.setdefault(number, {**entry, "name": name})
            if known["name"] != name:
                raise InputError(
                    f"{folder / path}: category {number} is {short(name)}, but elsewhere "
                    f"{short(known['name'])}; give each id one name in all JSONs"
                )
    if all(is_void(entry["name"]) for entry in by_id.values()):
        raise InputError(
            f"{folder / next(iter(tables))}: no categories; export it with its classes"
        )
    return dict(sorted(by_id.items()))


def _categories_scheme(
    encoding: str, by_id: Mapping[int, Mapping[str, Any]]
) -> tuple[Scheme, list[Finding]]:
    ids: dict[str, list[int]] = {}
    for number, entry in by_id.items():
        ids.setdefault(str(entry["name"]).casefold(), []).append(number)
    void = [numbers for name, numbers in ids.items() if is_void(name)]
    groups = [numbers for numbers in ids.values() if numbers not in void]
    check_count(len(groups))
    first = [by_id[numbers[0]] for numbers in groups]
    scheme = Scheme(
        encoding=encoding,
        classes=tuple(str(entry["name"]) for entry in first),
        colors=tuple(
            color_in(entry.get("color")) or spare
            for entry, spare in zip(first, distinct_colors(len(first)), strict=True)
        ),
        train_ids={i: place for place, numbers in enumerate(groups) for i in numbers},
        ignore=tuple(i for numbers in void for i in numbers),
        things=frozenset(place for place, entry in enumerate(first) if entry.get("isthing") == 1),
    )
    spellings = [[f"{by_id[i]['name']} ({i})" for i in numbers] for numbers in groups]
    return scheme, name_notes(spellings, [str(by_id[numbers[0]]["name"]) for numbers in void])
