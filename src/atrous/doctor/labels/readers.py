"""Read the masks of a folder: how they are stored, what they hold, and what their values mean.

`read_folder` finds that out; `read_described` believes the dataset.toml of the folder.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import Dataset
from atrous.data.encodings.coco import empty_objects
from atrous.data.encodings.masks import IDS, UNKNOWN, Encoding, lookup_table
from atrous.data.encodings.mat import read_mat
from atrous.data.schema import ClassEntry, EncodingName, Labels
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.doctor.findings import Finding, finding
from atrous.doctor.labels.binary import read_binary
from atrous.doctor.labels.class_names import Color, NamedClass
from atrous.doctor.labels.drawn import labels_of_shapes, labels_of_yolo, mat_variable
from atrous.doctor.labels.values import check_count, color_of, labels_of_colors, labels_of_ids
from atrous.doctor.layout.files import Files, Layout, Pair
from atrous.doctor.layout.foreign import foreign_labels
from atrous.doctor.proposal import open_unwritten
from atrous.doctor.scan.pairs import Ids, PairStats, ReadMask, mark_blurred, scan_pairs
from atrous.doctor.scan.scan import Scan
from atrous.doctor.scan.values import sum_up
from atrous.errors import InputError
from atrous.images.label_maps import (
    TRANSPARENT,
    declared_nodata,
    has_palette,
    read_colors,
    read_label,
)
from atrous.progress import Progress
from atrous.taxonomy import IGNORE_INDEX
from atrous.text import amount

_PICTURES = ("index", "palette", "rgb")
_SAMPLED = 16
"""Masks that are read to tell how all are stored."""
_BACKGROUND = ("background", "_background_")
_UNCOVERED = 0.25
"""Where polygons leave more of all pixels uncovered, these are a class, the background."""


def read_folder(
    layout: Layout, labels: Labels | None, named: Sequence[NamedClass], progress: Progress
) -> Scan:
    """Read all pairs of a layout and tell what the values of the masks mean.

    Args:
        layout: the pairs.
        labels: what they mean, if a COCO JSON says it.
        named: what a file says of the classes.
        progress: is called with the number of pairs that are read, and of all.
    """
    pairs = layout.pairs()
    kind = Path(pairs[0].mask).suffix.lower()
    if "{class}" in pairs[0].mask:
        return read_binary(layout, named, progress)
    if labels is not None:
        return _read_drawn(layout, labels, progress)
    if kind == ".json":
        try:
            labels, notes = labels_of_shapes(layout, named)
            scan = _read_drawn(layout, labels, progress)
        except InputError as error:
            paths = [path for pair in pairs for path in (pair.image, pair.mask)]
            raise foreign_labels(layout.folder, paths) or error from None
        return replace(scan, findings=[*notes, *scan.findings])
    if kind == ".txt":
        return _read_drawn(layout, labels_of_yolo(layout, named), progress)
    if kind == ".mat":
        return _read_mats(layout, named, progress)
    by_color, palette = _sample_masks([layout.folder / pair.mask for pair in pairs])
    if by_color:
        return _read_colors(layout, named, progress)
    return _read_ids(layout, named, palette, progress)


def label_reader(splits: Mapping[str, Split | Shards]) -> ReadMask:
    """Return a reader of labels in train ids, through the data set's own splits."""
    places = {
        (s, key): place for s, split in splits.items() for place, key in enumerate(split.keys)
    }
    return lambda pair: splits[pair.split].label(places[pair.split, pair.key])


def _read_drawn(layout: Layout, labels: Labels, progress: Progress) -> Scan:
    """Read polygons and COCO JSONs as train ids; pixels that nothing covers may be background."""
    opened = open_unwritten(layout.folder, labels, layout.splits)
    pairs = scan_pairs(layout, label_reader(opened), progress)
    errors = [stats.mask_error for stats in pairs if stats.mask_error]
    if len(errors) == len(pairs):
        raise InputError(f"none of {amount(len(errors), 'label')} can be read: {errors[0]}")
    classes = [entry.name for entry in labels.entries()]
    class_of = {place: place for place in range(len(classes))}
    if labels.encoding == "coco-panoptic":
        return Scan(layout, labels, class_of, (), pairs)
    share = sum_up(pairs, labels.encoding).share([IGNORE_INDEX])
    background = next((name for name in classes if name.lower() in _BACKGROUND), None)
    if share > (0 if background else _UNCOVERED):
        if background is None:
            background = "background"
            entries = (*labels.entries(), ClassEntry(name=background, color=(0, 0, 0)))
            labels = msgspec.structs.replace(labels, classes=entries)
            check_count(len(entries))
        class_of[IGNORE_INDEX] = [entry.name for entry in labels.entries()].index(background)
        labels = msgspec.structs.replace(labels, background=background)
    become = f"of the class {labels.background}" if labels.background else "ignored"
    uncovered = finding("uncovered", count=int(share > 0), share=share, become=become)
    notes = [uncovered, _empty_objects(classes, opened)]
    return Scan(layout, labels, class_of, (), pairs, notes)


def _empty_objects(classes: Sequence[str], opened: Mapping[str, Split | Shards]) -> Finding:
    """Report objects of COCO JSONs that cover no pixel."""
    lines = []
    splits = [split for split in opened.values() if isinstance(split, Split)]
    for split in splits:
        for image in split.annotations.values() if split.encoding.name == "coco-json" else ():
            with suppress(InputError):  # the scan reports it
                train_ids = [split.encoding.train_id(i, "") for i in empty_objects(image)]
                names = ["ignored" if i == IGNORE_INDEX else classes[i] for i in train_ids]
                lines += [f"{image.file_name}: {name}" for name in names]
    return finding("empty-object", lines)


def _read_mats(layout: Layout, named: Sequence[NamedClass], progress: Progress) -> Scan:
    variable = mat_variable(layout.folder / layout.pairs()[0].mask)
    table = lookup_table({i: i for i in range(IGNORE_INDEX)}, [IGNORE_INDEX], IGNORE_INDEX)
    as_it_is = Encoding(name="mat", table=table, variable=variable)
    every = scan_pairs(layout, lambda p: read_mat(layout.folder / p.mask, as_it_is), progress)
    pairs = mark_blurred(every)
    scan = Scan(layout, *labels_of_ids("mat", sum_up(pairs, "mat"), named, {}), pairs)
    return replace(scan, labels=msgspec.structs.replace(scan.labels, variable=variable))


def _read_colors(layout: Layout, named: Sequence[NamedClass], progress: Progress) -> Scan:
    read_mask = partial(read_colors, transparency=True)
    every = scan_pairs(layout, lambda p: read_mask(layout.folder / p.mask), progress, colors=True)
    pairs = mark_blurred(every)
    if not any(stats.mask for stats in pairs):
        raise InputError(pairs[0].mask_error)
    any_blurred = any(stats.mask.is_blurred for stats in pairs if stats.mask)
    meaning = labels_of_colors(sum_up(pairs, "rgb"), named, any_blurred)
    return Scan(layout, *meaning, pairs)


def _read_ids(
    layout: Layout, named: Sequence[NamedClass], palette: Mapping[int, Color], progress: Progress
) -> Scan:
    every = scan_pairs(layout, lambda pair: read_label(layout.folder / pair.mask), progress)
    encoding, pairs = _without_converted(layout.folder, every)
    no_data, pairs = _declared(layout.folder, pairs), mark_blurred(pairs)
    meaning = labels_of_ids(encoding, sum_up(pairs, encoding), named, palette, no_data)
    return Scan(layout, *meaning, pairs, no_data=no_data)


def _declared(folder: Path, pairs: Sequence[PairStats]) -> frozenset[int]:
    """Return the ids that GeoTIFFs among the masks declare as no data."""
    paths = [folder / stats.pair.mask for stats in pairs if stats.mask]
    values = {declared_nodata(path) for path in paths if path.suffix.lower() in (".tif", ".tiff")}
    return frozenset(i for i in range(IDS) if i in values)


def _without_converted(
    folder: Path, pairs: Sequence[PairStats]
) -> tuple[EncodingName, Sequence[PairStats]]:
    """Separate palette masks from grey ones; grey masks among palette masks count as unreadable.

    A palette mask that some program turned to grey holds the brightness of its colours.
    """
    held = [set(stats.mask.values.tolist()) if stats.mask else set() for stats in pairs]
    has = [stats.mask is not None and has_palette(folder / stats.pair.mask) for stats in pairs]
    own = set().union(*(values for values, palette in zip(held, has, strict=True) if palette))
    grey = [values for values, palette in zip(held, has, strict=True) if values and not palette]
    are_grey = sum(has) < len(grey) or all(values <= own for values in grey)
    if not any(has) or (grey and are_grey):
        return "index", pairs
    line = "no palette, though the other masks have one: its ids were lost in a conversion"
    return "palette", [
        stats
        if palette or not stats.mask
        else replace(stats, mask=None, mask_error=f"{stats.pair.mask}: {line}")
        for stats, palette in zip(pairs, has, strict=True)
    ]


def _sample_masks(paths: Sequence[Path]) -> tuple[bool, dict[int, Color]]:
    """Read a few masks: return whether their colours count, else the colours of ids in palettes.

    The colours count where most masks have no ids; where one id has two colours, because then each
    mask has its own palette; and where several ids are shades of one transparent drawing.
    """
    votes, palette, clash = 0, dict[int, int](), False
    for path in paths[:: len(paths) // _SAMPLED + 1]:
        try:
            ids = read_label(path)
        except InputError:
            with suppress(InputError):
                read_colors(path)
                votes += 1
            continue
        votes -= 1
        if has_palette(path):
            codes = read_colors(path, transparency=True).astype(np.int64)
            both = np.unique(ids.astype(np.int64) << 32 | codes)
            own = {int(b) >> 32: int(b) & 0xFFFFFFFF for b in both}
            clash |= TRANSPARENT in own.values() and len({*own.values()}) < len(own)
            clash |= any(palette.setdefault(i, code) != code for i, code in own.items())
    return votes > 0 or clash, {i: color_of(code) for i, code in palette.items()}


def read_described(folder: Path, progress: Progress) -> Scan:
    """Read all that the dataset.toml of a folder describes, and what is wrong with its splits."""
    dataset = Dataset.open(folder)
    splits, notes = _open_splits(dataset)
    files = {
        name: Files(
            s.images,
            s.labels,
            s.keys,
            valid=s.valid,
            places={key: (s.image(key), s.mask(key)) for key in s.keys},
            bands=s.bands,
        )
        for name, s in splits.items()
    }
    encoding, layout = dataset.encoding, Layout(folder, files, "dataset.toml")
    # Pictures are read as they are, so that unknown ids and blurred edges are found.
    read_mask = _raw_reader(folder, encoding) or label_reader(splits)
    pairs = scan_pairs(layout, read_mask, progress, colors=encoding.name == "rgb")
    if encoding.name in _PICTURES:
        pairs = mark_blurred(pairs)
    known = _known(encoding, sum_up(pairs, encoding.name).values)
    class_of = {value: i for value, i in known.items() if i != IGNORE_INDEX}
    ignored = tuple(value for value, i in known.items() if i == IGNORE_INDEX)
    return Scan(layout, dataset.description.labels, class_of, ignored, pairs, notes)


def _open_splits(dataset: Dataset) -> tuple[dict[str, Split], list[Finding]]:
    """Open each split; a split that cannot be opened is a finding, unless none can."""
    splits: dict[str, Split] = {}
    errors, missing = [], []
    for name in (name for name, files in dataset.splits.items() if files.has_masks):
        try:
            split = dataset.split(name)
        except InputError as error:
            errors.append(str(error))
            continue
        if not isinstance(split, Split):
            raise InputError(
                f"{dataset.folder}: holds shards, packed from checked files; examine those instead"
            )
        splits[name] = split
        if split.missing:
            missing.append(f"{name}: {split.missing} listed, {len(split)} here")
    if not splits:
        raise InputError(errors[0] if errors else f"{dataset.folder}: dataset.toml has no splits")
    count = sum(split.missing for split in splits.values())
    return splits, [
        finding("unreadable-split", errors, number=len(errors)),
        finding("listed-images", missing, count=count),
    ]


def _raw_reader(folder: Path, encoding: Encoding) -> ReadMask | None:
    """Return a reader of ids or codes, where masks are pictures."""
    if encoding.name not in _PICTURES:
        return None
    if encoding.name == "rgb":
        clear = encoding.transparency
        return lambda pair: read_colors(folder / pair.mask, transparency=clear)
    if (divisor := encoding.divisor) is None:
        return lambda pair: read_label(folder / pair.mask)

    def read(pair: Pair) -> Ids:
        ids = read_label(folder / pair.mask)
        return np.where(ids < divisor, ids, ids // divisor)

    return read


def _known(encoding: Encoding, values: NDArray[np.int64]) -> dict[int, int]:
    """Return the train ids of the values that the description knows."""
    if encoding.name in _PICTURES:
        places = np.minimum(values, encoding.table.size - 1)
        train_ids = encoding.table[places]
        if encoding.no_data:
            train_ids = np.where(values < 0, np.int16(IGNORE_INDEX), train_ids)
    else:
        train_ids = values.astype(np.int16)
    both = zip(values.tolist(), train_ids.tolist(), strict=True)
    return {value: i for value, i in both if i != UNKNOWN}
