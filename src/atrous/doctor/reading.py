"""The masks of a folder that nothing describes: how they are stored, what they hold and mean."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from atrous.data.encodings.coco import empty_objects
from atrous.data.encodings.masks import IDS, Encoding, lookup_table
from atrous.data.encodings.mat import read_mat
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.doctor.annotations import mat_variable, polygons_scheme, shapes_scheme, yolo_names
from atrous.doctor.binary import read_binary
from atrous.doctor.class_names import NO_ID, NamedClass
from atrous.doctor.findings import Finding, many, some
from atrous.doctor.foreign import foreign_labels
from atrous.doctor.proposal import open_unwritten
from atrous.doctor.scheme import Color, Scheme, color_of, colors_scheme, ids_scheme
from atrous.doctor.seen import Seen, census_of, pairs_of
from atrous.doctor.splits import Layout
from atrous.doctor.survey import Ids, Pair, Reader, Reading, find_blurred, survey
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

_PEEKED = 16
"""Masks that are read to tell how all are stored."""
_BACKGROUND = ("background", "_background_")
_UNCOVERED = 0.25
"""Where polygons leave more of all pixels uncovered, these are a class, the background."""


def read_folder(
    layout: Layout, scheme: Scheme | None, named: Sequence[NamedClass], progress: Progress
) -> Seen:
    """Read all pairs of a layout and tell what the values of the masks mean.

    Args:
        layout: the pairs.
        scheme: what they mean, if a COCO JSON says it.
        named: what a file says of the classes; empty if there is none.
        progress: told how many pairs are read, and of how many.

    Raises:
        InputError: the masks hold no classes.
    """
    folder, pairs = layout.folder, pairs_of(layout.splits)
    kind = Path(pairs[0].mask).suffix.lower()
    if "{class}" in pairs[0].mask:
        return read_binary(layout, named, progress)
    if scheme is not None:
        return _read_drawn(layout, scheme, progress)
    if kind == ".json":
        try:
            scheme, notes = shapes_scheme(folder, layout, named)
            seen = _read_drawn(layout, scheme, progress)
        except InputError as error:
            paths = [path for pair in pairs for path in (pair.image, pair.mask)]
            raise foreign_labels(folder, paths) or error from None
        return replace(seen, findings=[*notes, *seen.findings])
    if kind == ".txt":
        return _read_drawn(layout, polygons_scheme(yolo_names(folder, layout, named)), progress)
    if kind == ".mat":
        return _read_mats(folder, pairs, named, progress)
    by_color, palette = _peek([folder / pair.mask for pair in pairs])
    if by_color:
        return _read_colors(folder, pairs, named, progress)
    return _read_ids(folder, pairs, named, palette, progress)


def label_reader(splits: Mapping[str, Split | Shards]) -> Reader:
    """Return what reads a pair's label through the dataset's own splits, in train ids."""
    places = {
        (s, key): place for s, split in splits.items() for place, key in enumerate(split.keys)
    }
    return lambda pair: splits[pair.split].label(places[pair.split, pair.key])


def _read_drawn(layout: Layout, scheme: Scheme, progress: Progress) -> Seen:
    """Polygons and COCO JSONs: read as train ids; pixels that nothing covers may be background.

    Raises:
        InputError: no pair can be read.
    """
    opened = open_unwritten(layout.folder, scheme, layout.splits)
    pairs = pairs_of(layout.splits)
    readings = survey(layout.folder, pairs, label_reader(opened), progress, colors=False)
    errors = [reading.mask_error for reading in readings if reading.mask_error]
    if len(errors) == len(readings):
        raise InputError(f"none of {many(len(errors), 'label')} can be read: {errors[0]}")
    places = {place: place for place in range(len(scheme.classes))}
    if scheme.encoding == "coco-panoptic":
        return Seen(scheme, places, readings, [False] * len(readings))
    share, names = _uncovered(readings), scheme.classes
    named = next((name for name in names if name.lower() in _BACKGROUND), "")
    if share > (0 if named else _UNCOVERED):
        background = named or "background"
        if background not in names:
            names, colors = (*names, background), (*scheme.colors, (0, 0, 0))
            scheme = replace(scheme, classes=names, colors=colors)
        scheme = replace(scheme, background=background)
        places[IGNORE_INDEX] = names.index(background)
    findings = [*_bare(share, scheme.background), *_nothing_drawn(scheme, opened)]
    return Seen(scheme, places, readings, [False] * len(readings), findings)


def _bare(share: float, background: str) -> Iterator[Finding]:
    """What becomes of the pixels that no shape covers."""
    if share:
        become = f"of the class {background}" if background else "ignored"
        yield Finding(
            code="uncovered",
            severity="note",
            count=1,
            message=f"pixels that no shape covers ({share:.1%}) are {become}",
            examples=(),
            mend="change or remove background in dataset.toml, if they are something else",
        )


def _nothing_drawn(scheme: Scheme, opened: Mapping[str, Split | Shards]) -> Iterator[Finding]:
    """Objects of COCO JSONs that cover no pixel."""
    lines = []
    for split in opened.values() if scheme.encoding == "coco-json" else ():
        for image in split.annotations.values() if isinstance(split, Split) else ():
            with suppress(InputError):  # which is a finding of its own
                lines += [
                    f"{image.file_name}: {_class_of(scheme, i)}" for i in empty_objects(image)
                ]
    if lines:
        yield Finding(
            code="empty-object",
            severity="problem",
            count=len(lines),
            message=f"{many(len(lines), 'object')} whose outline covers no pixel: {some(lines)}",
            examples=tuple(lines),
            mend="draw them again, or remove them; they are not learnt",
        )


def _class_of(scheme: Scheme, dataset_id: int) -> str:
    place = scheme.train_ids.get(dataset_id)
    return "ignored" if place is None else scheme.classes[place]


def _uncovered(readings: Sequence[Reading]) -> float:
    """The part of all pixels that no shape covers."""
    tallies = [reading.tally for reading in readings if reading.tally]
    bare = sum(int(t.counts[t.values == IGNORE_INDEX].sum()) for t in tallies)
    return bare / max(sum(int(tally.counts.sum()) for tally in tallies), 1)


def _read_mats(
    folder: Path, pairs: Sequence[Pair], named: Sequence[NamedClass], progress: Progress
) -> Seen:
    variable = mat_variable(folder / pairs[0].mask)
    table = lookup_table({i: i for i in range(IGNORE_INDEX)}, [IGNORE_INDEX], IGNORE_INDEX)
    as_it_is = Encoding(name="mat", table=table, variable=variable)
    read = partial(_read_mat, folder, as_it_is)
    readings = survey(folder, pairs, read, progress, colors=False)
    seen = _seen_ids("mat", readings, named, {})
    extra = {} if variable == "S" else {"variable": variable}
    return replace(seen, scheme=replace(seen.scheme, extra=extra))


def _read_mat(folder: Path, encoding: Encoding, pair: Pair) -> Ids:
    return read_mat(folder / pair.mask, encoding)


def _read_colors(
    folder: Path, pairs: Sequence[Pair], named: Sequence[NamedClass], progress: Progress
) -> Seen:
    read = partial(_colors_of, folder)
    readings = survey(folder, pairs, read, progress, colors=True)
    if not any(reading.tally for reading in readings):
        raise InputError(readings[0].mask_error)
    blurred = find_blurred(readings)
    scheme = colors_scheme(census_of(readings, blurred, "rgb"), named, any(blurred))
    return Seen(scheme, scheme.train_ids, readings, blurred)


def _colors_of(folder: Path, pair: Pair) -> Ids:
    return read_colors(folder / pair.mask, transparency=True)


def _read_ids(
    folder: Path,
    pairs: Sequence[Pair],
    named: Sequence[NamedClass],
    palette: Mapping[int, Color],
    progress: Progress,
) -> Seen:
    every = survey(folder, pairs, lambda p: read_label(folder / p.mask), progress, colors=False)
    encoding, readings = _without_converted(folder, every)
    return _seen_ids(encoding, readings, named, palette, _declared(folder, readings))


def _declared(folder: Path, readings: Sequence[Reading]) -> frozenset[int]:
    """The ids that GeoTIFFs among the masks declare as no data."""
    paths = [folder / reading.pair.mask for reading in readings if reading.tally]
    values = {declared_nodata(path) for path in paths if path.suffix.lower() in (".tif", ".tiff")}
    return frozenset(i for i in range(IDS) if i in values)


def _without_converted(folder: Path, readings: Sequence[Reading]) -> tuple[str, Sequence[Reading]]:
    """Tell palette masks from grey ones; refuse grey ones among them whose ids are other ids.

    A palette mask that some program turned to grey holds the brightness of its colours.
    """
    held = [set(r.tally.values.tolist()) if r.tally else set() for r in readings]
    has = [r.tally is not None and has_palette(folder / r.pair.mask) for r in readings]
    own = set().union(*(values for values, palette in zip(held, has, strict=True) if palette))
    grey = [values for values, palette in zip(held, has, strict=True) if values and not palette]
    if grey and (sum(has) < len(grey) or all(values <= own for values in grey)):
        return "index", readings
    if not any(has):
        return "index", readings
    line = "no palette, though the other masks have one: its ids were lost in a conversion"
    return "palette", [
        reading
        if palette or not reading.tally
        else replace(reading, tally=None, mask_error=f"{reading.pair.mask}: {line}")
        for reading, palette in zip(readings, has, strict=True)
    ]


def _peek(paths: Sequence[Path]) -> tuple[bool, dict[int, Color]]:
    """Read a few masks: whether their colours count, and else the colours of ids in palettes.

    The colours count where most masks have no ids; where one id has two colours, since then each
    mask has a palette of its own; and where several ids are shades of one transparent drawing.
    """
    votes, palette, clash = 0, dict[int, int](), False
    for path in paths[:: len(paths) // _PEEKED + 1]:
        try:
            ids = read_label(path)
        except InputError:
            votes += _has_colors(path)
            continue
        votes -= 1
        if has_palette(path):
            codes = read_colors(path, transparency=True).astype(np.int64)
            both = np.unique(ids.astype(np.int64) << 32 | codes)
            own = {int(b) >> 32: int(b) & 0xFFFFFFFF for b in both}
            clash |= TRANSPARENT in own.values() and len({*own.values()}) < len(own)
            clash |= any(palette.setdefault(i, code) != code for i, code in own.items())
    return votes > 0 or clash, {i: color_of(code) for i, code in palette.items()}


def _has_colors(path: Path) -> bool:
    try:
        read_colors(path)
    except InputError:
        return False
    return True


def _seen_ids(
    encoding: str,
    readings: Sequence[Reading],
    named: Sequence[NamedClass],
    palette: Mapping[int, Color],
    no_data: frozenset[int] = frozenset(),
) -> Seen:
    blurred = find_blurred(readings)
    named = [entry for entry in named if entry.dataset_id != NO_ID]
    census = census_of(readings, blurred, encoding)
    scheme = ids_scheme(encoding, census, named, palette, no_data)
    return Seen(scheme, scheme.train_ids, readings, blurred, no_data=no_data)
