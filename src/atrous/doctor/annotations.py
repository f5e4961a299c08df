"""What files of shapes say of classes: LabelMe, Supervisely, YOLO; and MATLAB files."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from atrous.data.encodings.masks import Encoding, lookup_table
from atrous.data.encodings.mat import read_mat
from atrous.data.encodings.polygons import shape_names
from atrous.doctor.class_names import NamedClass, is_void, same_class
from atrous.doctor.findings import Finding, many, some
from atrous.doctor.scheme import Scheme, check_count
from atrous.doctor.splits import Layout
from atrous.errors import InputError
from atrous.taxonomy import IGNORE_INDEX, distinct_colors

_VARIABLES = ("S", "LabelMap", "label", "labels", "mask", "gt", "seg", "annotation")
_MOST_BYTES = 1 << 26
"""Of the file of one image."""


def shapes_scheme(
    folder: Path, layout: Layout, named: Sequence[NamedClass]
) -> tuple[Scheme, list[Finding]]:
    """The scheme of LabelMe or Supervisely files: the names of all their shapes, sorted.

    Where `named` has them all, its classes, order and colours count.

    Raises:
        InputError: no file can be read, or none has a shape.
    """
    counts: Counter[str] = Counter()
    errors: list[InputError] = []
    for path in _label_paths(folder, layout):
        try:
            counts.update(shape_names(path))
        except InputError as error:
            errors.append(error)
    if not counts and errors:
        raise errors[0]
    if not counts:
        raise InputError(f"{folder}: no shape with a name in its JSON files; label the images")
    places = {entry.name.casefold(): place for place, entry in enumerate(named)}
    groups = same_class({**dict.fromkeys((entry.name for entry in named), 0), **counts})
    if {name.casefold() for name in counts} <= {*places}:
        groups.sort(key=lambda group: places[group[0].casefold()])
    else:
        groups = same_class(counts)
    void = [group for group in groups if is_void(group[0])]
    groups = [group for group in groups if group not in void]
    check_count(len(groups))
    colors = {entry.name.casefold(): entry.color for entry in named}
    scheme = Scheme(
        encoding="polygons",
        classes=tuple(group[0] for group in groups),
        colors=tuple(
            colors.get(group[0].casefold()) or spare
            for group, spare in zip(groups, distinct_colors(len(groups)), strict=True)
        ),
        train_ids={},
        names={name: place for place, group in enumerate(groups) for name in group[1:]}
        | {name: IGNORE_INDEX for group in void for name in group},
    )
    return scheme, name_notes(groups, [group[0] for group in void if counts[group[0]]])


def name_notes(groups: Iterable[Sequence[str]], void: Sequence[str]) -> list[Finding]:
    """What was made of names: those of one class, and those that are ignored."""
    notes, several = [], [" = ".join(group) for group in groups if len(group) > 1]
    if several:
        notes.append(
            Finding(
                code="same-name",
                severity="note",
                count=len(several),
                message=f"{many(len(several), 'class')} under several names or ids, each read as"
                f" one: {some(several)}",
                examples=tuple(several),
                mend="none needed if they are the same; else rename one of them in the labels",
            )
        )
    if void:
        notes.append(
            Finding(
                code="ignored-name",
                severity="note",
                count=len(void),
                message=f"ignored, not learnt, as the name says: {some(void)}",
                examples=tuple(void),
                mend="none needed; to learn it, make it a class in dataset.toml",
            )
        )
    return notes


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
