"""Published data sets that a folder may hold: their ids, names and colours are known.

A set is believed where all paths are laid out as it is, no file names other classes, and all values
that are regions are its own.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

import msgspec
import numpy as np

from atrous.data.schema import builtin_text
from atrous.data.train_ids import read_classes, read_encoding, read_taxonomy
from atrous.doctor.findings import Finding, Severity, finding, some
from atrous.doctor.labels.class_names import NamedClass
from atrous.doctor.labels.spec import LabelSpec
from atrous.doctor.layout.files import Layout
from atrous.doctor.scan.scan import Scan
from atrous.taxonomy import IGNORE_INDEX

_COCO_THINGS = 80
"""Categories of COCO's instances; panoptic segments have 53 more."""
_MAX_IGNORED = 0.75
"""More is ignored in no set, not even where outlines are coarse."""


class _Known(msgspec.Struct, forbid_unknown_fields=True):
    """A set in known.toml."""

    title: str
    images: str
    """What the paths of all images match."""
    masks: str
    set: str = ""
    """The built-in set whose labels count; or these are given."""
    labels: dict[str, Any] = {}
    two: bool = False
    """Whether the masks hold two values, whichever they are, so that the names alone count."""


def as_known(scan: Scan) -> Scan:
    """Take ids, names and colours of the published set that a folder is laid out as, if it fits.

    A note says which set that is, or why it does not fit.
    """
    known = next((known for known in _table() if _is_laid_out(scan.layout, known)), None)
    if known is None:
        return scan
    labels = _labels_of(known, scan)
    line = known.title
    severity: Severity = "note"
    if misfit := _misfit(known, scan, labels):
        line += f", but {misfit}: the folder's own values are read"
    elif labels is not None:
        line += ", and read by its ids, names and colours"
        if (ignored := scan.values.share(labels.ignore)) > _MAX_IGNORED:
            line += f", which ignore {ignored:.0%} of the pixels"
            severity = "problem"
        class_of = scan.class_of if known.two else labels.train_ids
        scan = replace(scan, labels=labels, class_of=class_of)
    note = finding("known-set", count=1, severity=severity, line=line)
    return replace(scan, findings=[*scan.findings, note])


def _misfit(known: _Known, scan: Scan, labels: LabelSpec | None) -> str:
    """Why a folder that is laid out as a set is another one; "" if it is not."""
    if labels is None:
        return "is stored otherwise"
    named = scan.names.entries
    if named and not _agree(named, labels):
        return f"a file names other classes ({some(entry.name for entry in named)})"
    ids = {*labels.train_ids, *labels.ignore}
    if not known.two and (strange := [i for i in scan.values.regions() if i not in ids]):
        return f"holds {some(map(str, strange))}, which it has not"
    return "it would ignore all pixels" if scan.values.share(labels.ignore) == 1 else ""


def coco_notes(labels: LabelSpec) -> list[Finding]:
    """Say that the categories of a COCO JSON are COCO's own, if ids and names are."""
    table = tomllib.loads(builtin_text("coco-panoptic"))["labels"]
    names = [entry["name"] for entry in read_classes(table)]
    own = {i: names[place] for i, place in _train_ids(table).items()}
    given = {i: labels.classes[place] for i, place in labels.train_ids.items()}
    if len(given) < _COCO_THINGS or any(own.get(i) != name for i, name in given.items()):
        return []
    return [finding("coco-categories", count=1, number=len(given))]


@cache
def _table() -> list[_Known]:
    text = (resources.files("atrous.doctor.labels") / "known.toml").read_bytes()
    return msgspec.toml.decode(text, type=dict[str, list[_Known]])["known"]


def _is_laid_out(layout: Layout, known: _Known) -> bool:
    images, masks = re.compile(known.images), re.compile(known.masks)
    return all(
        images.search(files.image(key)) and masks.search(files.mask(key))
        for files in layout.splits.values()
        for key in files.keys
    )


def _labels_of(known: _Known, scan: Scan) -> LabelSpec | None:
    """The labels of a set, as the masks are stored; None where it is not stored so."""
    table = known.labels or tomllib.loads(builtin_text(known.set))["labels"]
    classes = read_classes(table)
    taxonomy = read_taxonomy("known", classes)
    if known.two:
        is_fit = len(scan.labels.classes) == 2
        return replace(scan.labels, classes=taxonomy.classes) if is_fit else None
    if scan.labels.encoding not in ("index", "palette"):
        return None
    ids = read_encoding(table, classes).table[:-1]
    return LabelSpec(
        encoding=scan.labels.encoding,
        classes=taxonomy.classes,
        colors=taxonomy.colors,
        train_ids=_train_ids(table),
        ignore=tuple(np.flatnonzero(ids == IGNORE_INDEX).tolist()),
        unknown=scan.labels.unknown,
        things=taxonomy.things,
    )


def _train_ids(table: Mapping[str, Any]) -> dict[int, int]:
    """The train id of each dataset id that is a class, by a table [labels]."""
    ids = read_encoding(table, read_classes(table)).table[:-1]
    return {i: int(ids[i]) for i in np.flatnonzero((ids >= 0) & (ids < IGNORE_INDEX)).tolist()}


def _agree(named: Sequence[NamedClass], labels: LabelSpec) -> bool:
    """Whether a file names the classes of a set, if with further words for each."""
    given = {re.split("[,;]", entry.name)[0].strip().lower() for entry in named}
    return sum(name.lower() in given for name in labels.classes) > 0.8 * len(labels.classes)
