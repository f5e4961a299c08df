"""Folders with COCO JSONs: which images are theirs, and what their categories are."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any

import msgspec

from atrous.data.encodings.coco import number_of
from atrous.data.encodings.masks import IDS, plain_name
from atrous.data.file_names import match_files
from atrous.data.lists import split_of
from atrous.data.schema import EncodingName, Labels
from atrous.decode import read_json
from atrous.doctor.findings import Finding, finding
from atrous.doctor.labels.class_names import color_in, is_void
from atrous.doctor.labels.drawn import name_notes
from atrous.doctor.labels.known import coco_notes
from atrous.doctor.labels.values import class_entries, id_map
from atrous.doctor.layout.files import UNDIVIDED, Files, Layout, rank
from atrous.errors import InputError
from atrous.images.photos import IMAGE_SUFFIXES
from atrous.text import amount, some

_MAX_JSON = 32
"""Folders with more have a JSON for each image, and no COCO JSON is looked for among these."""
_MAX_BYTES = 1 << 30
"""Twice as much as the largest that COCO publishes."""


class _HasFile(msgspec.Struct):
    """An image, or an annotation of panoptic segments."""

    file_name: Any = None
    segments_info: Any = msgspec.UNSET


class _Category(msgspec.Struct):
    id: Any = None
    name: Any = ""
    color: Any = None
    isthing: Any = 0


class _Coco(msgspec.Struct):
    """The part of a COCO JSON that tells where images lie; objects themselves are skipped."""

    images: list[_HasFile]
    annotations: list[_HasFile]
    categories: list[_Category]

    @property
    def is_panoptic(self) -> bool:
        return any(entry.segments_info is not msgspec.UNSET for entry in self.annotations[:1])


def find_coco(folder: Path, paths: Iterable[str]) -> tuple[Layout, Labels, list[Finding]] | None:
    """Find the images of the COCO JSONs in a folder, and their categories; None without JSONs.

    Where both kinds are there, panoptic JSONs take precedence over instances and stuff.
    """
    paths = list(paths)
    names = [path for path in paths if path.lower().endswith(".json")]
    if len(names) > _MAX_JSON:
        return None
    cocos = {name: coco for name in names if (coco := _read_coco(folder / name))}
    panoptic = {name: coco for name, coco in cocos.items() if coco.is_panoptic}
    splits: dict[str, Files] = {}
    every: list[Files] = []
    missing: dict[str, list[str]] = {}
    for name, coco in sorted((panoptic or cocos).items()):
        found = _coco_files(folder, name, coco, paths, panoptic=bool(panoptic))
        if found is None:
            continue
        files, missing[name] = found
        every.append(files)
        split = split_of(name) or split_of(files.images) or UNDIVIDED
        if split not in splits or len(files.keys) > len(splits[split].keys):
            splits[split] = files
    if not splits:
        return None
    if len(splits) > 1:
        splits.pop(UNDIVIDED, None)
    splits = {split: splits[split] for split in sorted(splits, key=rank)}
    chosen = [files.annotations for files in splits.values()]
    categories = _categories(folder, {name: cocos[name] for name in chosen})
    layout = Layout(folder, splits, "none" if UNDIVIDED in splits else "folders")
    labels, findings = _labels("coco-panoptic" if panoptic else "coco-json", categories)
    absent = [(json_name, name) for json_name in chosen for name in missing[json_name]]
    lines = [f"{json_name}: {name}" for json_name, name in absent]
    findings.append(finding("images-of-json", lines, names=some(name for _, name in absent)))
    return layout, labels, [*findings, *_unused(layout, every, paths)]


def _unused(layout: Layout, every: Sequence[Files], paths: Iterable[str]) -> Iterator[Finding]:
    """Report JSONs that are not read, and images that no JSON lists."""
    read = {files.image(key) for files in layout.splits.values() for key in files.keys}
    chosen = {files.annotations for files in layout.splits.values()}
    others = [files for files in every if files.annotations not in chosen]
    more = {files.image(key) for files in others for key in files.keys} - read
    yield finding(
        "unused-annotations",
        [files.annotations for files in others],
        severity="problem" if more else "note",
        read=some(sorted(chosen)),
        lost=f"; {amount(len(more), 'image')} of theirs left out" if more else "",
    )
    listed, folders = read | more, {PurePosixPath(path).parent for path in read}
    strays = [
        path
        for path in paths
        if path.lower().endswith(IMAGE_SUFFIXES)
        and PurePosixPath(path).parent in folders
        and path not in listed
    ]
    yield finding("images-of-no-json", strays)


def _read_coco(path: Path) -> _Coco | None:
    """Return the JSON if it is COCO's: with lists of images, annotations and categories."""
    with suppress(InputError):
        if path.stat().st_size <= _MAX_BYTES:
            return read_json(path, _Coco)
    return None


def _coco_files(
    folder: Path, name: str, coco: _Coco, paths: Sequence[str], *, panoptic: bool
) -> tuple[Files, list[str]] | None:
    """Find the images, and the PNGs, of a COCO JSON, in the folder that has most of them.

    Returns:
        The files, and the names in the JSON that no image here has.
    """
    names = _file_names(coco.images)
    images = _pattern(folder, name, names, paths, any_suffix=not panoptic)
    if images is None:
        return None
    pattern, keys = images
    missing = sorted({*names} - {*keys.values()})
    if not panoptic:
        return Files(pattern, "", tuple(sorted(keys)), name), missing
    masks = _pattern(folder, name, _file_names(coco.annotations), paths, any_suffix=False)
    both = tuple(sorted(keys.keys() & masks[1].keys())) if masks else ()
    if masks is None or not both:
        return None
    return Files(pattern, masks[0], both, name), missing


def _file_names(entries: Iterable[_HasFile]) -> list[str]:
    return [entry.file_name for entry in entries if isinstance(entry.file_name, str)]


def _pattern(
    folder: Path, json_name: str, names: Sequence[str], paths: Sequence[str], *, any_suffix: bool
) -> tuple[str, dict[str, str]] | None:
    """Return the pattern that fits most of the names, and the name of each key.

    Files in folders of the JSON's own split come first; those of another split never count.
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
    ties = [place for place in by_place if fit(place) == fit(best) and place != best]
    if ties:
        raise InputError(
            f"{folder / json_name}: its images could be those of {best[0] or '.'} or of "
            f"{ties[0][0] or '.'}; move one of the two away"
        )
    return f"{best[0]}{{key}}{best[1]}", by_place[best]


_Place = tuple[str, str]
"""What stands before a key and after it."""


def _without_folder(item: tuple[_Place, dict[str, str]]) -> tuple[_Place, dict[str, str]]:
    """Move a folder that all keys share into what stands before the keys."""
    (before, suffix), keys = item
    folders = {key[: key.rfind("/") + 1] for key in keys}
    if len(folders) > 1:
        return item
    [folder] = folders
    return (before + folder, suffix), {key.removeprefix(folder): v for key, v in keys.items()}


def _merged(by_place: dict[_Place, dict[str, str]]) -> dict[_Place, dict[str, str]]:
    """Join images of several folders or suffixes in one pattern, if each name is in one place."""
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


def _categories(folder: Path, cocos: Mapping[str, _Coco]) -> dict[int, _Category]:
    """The categories of all JSONs by their ids."""
    by_id: dict[int, _Category] = {}
    for path, coco in cocos.items():
        for entry in coco.categories:
            try:
                number = number_of(entry.id)
            except ValueError:
                number = -1
            if not 0 <= number < IDS:
                raise InputError(
                    f"{folder / path}: category {short(entry.name)} has the id "
                    f"{short(entry.id)}; number the categories from 0 to {IDS - 1}"
                )
            entry.name = plain_name(str(entry.name)) or f"class {number}"
            known = by_id.setdefault(number, entry)
            if known.name != entry.name:
                raise InputError(
                    f"{folder / path}: category {number} is {short(entry.name)}, but elsewhere "
                    f"{short(known.name)}; give each id one name in all JSONs"
                )
    if all(is_void(entry.name) for entry in by_id.values()):
        raise InputError(f"{folder / next(iter(cocos))}: no categories; export it with its classes")
    return dict(sorted(by_id.items()))


def _labels(encoding: EncodingName, by_id: Mapping[int, _Category]) -> tuple[Labels, list[Finding]]:
    ids: dict[str, list[int]] = {}
    for number, entry in by_id.items():
        ids.setdefault(entry.name.casefold(), []).append(number)
    void = [numbers for name, numbers in ids.items() if is_void(name)]
    groups = [numbers for numbers in ids.values() if numbers not in void]
    first = [by_id[numbers[0]] for numbers in groups]
    train_ids = {i: place for place, numbers in enumerate(groups) for i in numbers}
    labels = Labels(
        encoding=encoding,
        ignore=tuple(i for numbers in void for i in numbers),
        map=id_map(train_ids),
        classes=class_entries(
            [entry.name for entry in first],
            [color_in(entry.color) for entry in first],
            {place for place, entry in enumerate(first) if entry.isthing == 1},
        ),
    )
    spellings = [[f"{by_id[i].name} ({i})" for i in numbers] for numbers in groups]
    notes = name_notes(spellings, [by_id[numbers[0]].name for numbers in void])
    return labels, notes + coco_notes({i: first[place].name for i, place in train_ids.items()})
