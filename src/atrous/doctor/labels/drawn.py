"""The classes that files of shapes name: LabelMe, Supervisely, YOLO; and MATLAB files."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import UNSET

from atrous.data.encodings.masks import Encoding, lookup_table
from atrous.data.encodings.mat import read_mat
from atrous.data.encodings.polygons import shape_names
from atrous.data.schema import Labels
from atrous.doctor.findings import Finding, finding
from atrous.doctor.labels.class_names import NamedClass, is_void, same_class
from atrous.doctor.labels.values import class_entries
from atrous.doctor.layout.files import Layout
from atrous.errors import InputError
from atrous.taxonomy import IGNORE_INDEX

_VARIABLES = ("S", "LabelMap", "label", "labels", "mask", "gt", "seg", "annotation")
_MAX_BYTES = 1 << 26
"""Largest file of one image that is read."""


def labels_of_shapes(layout: Layout, named: Sequence[NamedClass]) -> tuple[Labels, list[Finding]]:
    """Return the labels of LabelMe or Supervisely files: the names of all shapes, sorted.

    Where `named` has them all, its classes, order and colours count.
    """
    counts: Counter[str] = Counter()
    errors: list[InputError] = []
    for path in _label_paths(layout):
        try:
            counts.update(shape_names(path))
        except InputError as error:
            errors.append(error)
    if not counts and errors:
        raise errors[0]
    if not counts:
        raise InputError(
            f"{layout.folder}: no shape with a name in its JSON files; label the images"
        )
    places = {entry.name.casefold(): place for place, entry in enumerate(named)}
    if {name.casefold() for name in counts} <= {*places}:
        groups = same_class({**dict.fromkeys((entry.name for entry in named), 0), **counts})
        groups.sort(key=lambda group: places[group[0].casefold()])
    else:
        groups = same_class(counts)
    void = [group for group in groups if is_void(group[0])]
    groups = [group for group in groups if group not in void]
    colors = {entry.name.casefold(): entry.color for entry in named}
    classes = [group[0] for group in groups]
    labels = Labels(
        encoding="polygons",
        map={name: place for place, group in enumerate(groups) for name in group[1:]}
        | {name: IGNORE_INDEX for group in void for name in group}
        or UNSET,
        classes=class_entries(classes, [colors.get(name.casefold()) for name in classes]),
    )
    return labels, name_notes(groups, [group[0] for group in void if counts[group[0]]])


def name_notes(groups: Iterable[Sequence[str]], void: Sequence[str]) -> list[Finding]:
    """Report names that were read as one class, and names that are ignored."""
    several = [" = ".join(group) for group in groups if len(group) > 1]
    return [finding("same-name", several), finding("ignored-name", void)]


def labels_of_yolo(layout: Layout, named: Sequence[NamedClass]) -> Labels:
    """Return the labels of YOLO files: `named`, and made-up names up to the largest class index."""
    largest, boxes, polygons = -1, 0, 0
    for path in _label_paths(layout):
        for line in path.read_text("ascii", errors="replace").splitlines():
            index, *numbers = line.split() or [""]
            if index.isdecimal() and len(index) < 4:
                largest = max(largest, int(index))
                boxes, polygons = boxes + (len(numbers) == 4), polygons + (len(numbers) > 4)
    if boxes and not polygons:
        raise InputError(
            f"{layout.folder}: its YOLO files hold boxes; export polygons (segmentation)"
        )
    known = {entry.dataset_id: entry.name for entry in named}
    count = max(largest + 1, len(named))
    classes = [known.get(i, f"class {i}") for i in range(count)]
    return Labels(encoding="polygons", classes=class_entries(classes))


def mat_variable(path: Path) -> str:
    """Return the variable of a MATLAB file with the label map: the first usual name that fits."""
    any_id = lookup_table({}, (), IGNORE_INDEX)
    for variable in _VARIABLES:
        with suppress(InputError):
            read_mat(path, Encoding(name="mat", table=any_id, variable=variable))
            return variable
    return _VARIABLES[0]


def _label_paths(layout: Layout) -> Iterator[Path]:
    for files in layout.splits.values():
        for key in files.keys:
            path = layout.folder / files.mask(key)
            if path.stat().st_size <= _MAX_BYTES:
                yield path
