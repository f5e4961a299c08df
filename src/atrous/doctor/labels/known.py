"""Published data sets that a folder may hold: their ids, names and colours are known.

A set is believed where all paths are laid out as it is, no file names other classes, and all values
that are regions are its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from atrous.data.schema import Labels, builtin
from atrous.data.train_ids import encoding_of, taxonomy_of
from atrous.decode import own_toml
from atrous.doctor.findings import Finding, Severity, finding
from atrous.doctor.labels.class_names import NamedClass
from atrous.doctor.labels.values import Meaning, class_entries, id_map
from atrous.doctor.layout.files import Layout
from atrous.doctor.scan.scan import Scan
from atrous.taxonomy import IGNORE_INDEX
from atrous.text import some

_COCO_THINGS = 80
"""Categories of COCO's instances; panoptic segments have 53 more."""
_MAX_IGNORED = 0.75
"""No set ignores a larger share of its pixels, not even where outlines are coarse."""


class _Known(msgspec.Struct, forbid_unknown_fields=True):
    """A set in known.toml."""

    title: str
    images: str
    """What the paths of all images match."""
    masks: str
    set: str = ""
    """The built-in set whose labels count; else `labels` are given."""
    labels: Labels | None = None
    two: bool = False
    """The masks hold two values, whichever they are: only the names of the set count."""


_KNOWN = own_toml(__file__, "known.toml", dict[str, list[_Known]])["known"]


def as_known(scan: Scan) -> Scan:
    """Take ids, names and colours of the published set that a folder is laid out as, if it fits.

    A note says which set that is, or why it does not fit.
    """
    known = next((known for known in _KNOWN if _is_laid_out(scan.layout, known)), None)
    if known is None:
        return scan
    meaning = _meaning(known, scan)
    line = known.title
    severity: Severity = "note"
    if misfit := _misfit(known, scan, meaning):
        line += f", but {misfit}: the folder's own values are read"
    elif meaning is not None:
        line += ", and read by its ids, names and colours"
        if (ignored := scan.values.share(meaning.ignored)) > _MAX_IGNORED:
            line += f", which ignore {ignored:.0%} of the pixels"
            severity = "problem"
        scan = replace(
            scan, labels=meaning.labels, class_of=meaning.class_of, ignored=meaning.ignored
        )
    note = finding("known-set", count=1, severity=severity, line=line)
    return replace(scan, findings=[*scan.findings, note])


def _misfit(known: _Known, scan: Scan, meaning: Meaning | None) -> str:
    """Return why the set does not fit a folder that is laid out like it; "" if it fits."""
    if meaning is None:
        return "is stored in another way"
    named = scan.names.entries
    if named and not _agree(named, meaning.labels):
        return f"a file names other classes ({some(entry.name for entry in named)})"
    ids = {*meaning.class_of, *meaning.ignored}
    if not known.two and (strange := [i for i in scan.values.regions() if i not in ids]):
        return f"holds {some(map(str, strange))}, which that set lacks"
    return "it would ignore all pixels" if scan.values.share(meaning.ignored) == 1 else ""


def coco_notes(given: Mapping[int, str]) -> list[Finding]:
    """Say that the categories of a COCO JSON are COCO's own, if ids and names are."""
    labels = builtin("coco-panoptic").labels
    names = [entry.name for entry in labels.entries()]
    table = encoding_of(labels).table
    own = {i: names[table[i]] for i in given if 0 <= table[i] < len(names)}
    is_coco = len(given) >= _COCO_THINGS and own == given
    return [finding("coco-categories", count=1, number=len(own))] if is_coco else []


def _is_laid_out(layout: Layout, known: _Known) -> bool:
    images, masks = re.compile(known.images), re.compile(known.masks)
    return all(
        images.search(files.image(key)) and masks.search(files.mask(key))
        for files in layout.splits.values()
        for key in files.keys
    )


def _meaning(known: _Known, scan: Scan) -> Meaning | None:
    """Return what the values of a set mean; None where the masks are stored in another way."""
    labels, encoding = known.labels or builtin(known.set).labels, scan.labels.encoding
    taxonomy = taxonomy_of(labels, known.title)
    if known.two:
        if len(scan.classes) != len(taxonomy.classes):
            return None
        colors = [entry.color for entry in scan.labels.entries()]
        renamed = msgspec.structs.replace(
            scan.labels, classes=class_entries(taxonomy.classes, colors)
        )
        return Meaning(renamed, scan.class_of, scan.ignored)
    if encoding not in ("index", "palette"):
        return None
    table = encoding_of(labels).table[:-1]
    is_class = (table >= 0) & (table < IGNORE_INDEX)
    train_ids = {i: int(table[i]) for i in np.flatnonzero(is_class).tolist()}
    ignored = tuple(np.flatnonzero(table == IGNORE_INDEX).tolist())
    stored = Labels(
        encoding=encoding,
        ignore=ignored,
        unknown=scan.labels.unknown,
        map=id_map(train_ids),
        classes=class_entries(taxonomy.classes, taxonomy.colors, taxonomy.things),
    )
    return Meaning(stored, train_ids, ignored)


def _agree(named: Sequence[NamedClass], labels: Labels) -> bool:
    """Return whether a file names the classes of a set, further words after a comma aside."""
    given = {re.split("[,;]", entry.name)[0].strip().lower() for entry in named}
    names = [entry.name.lower() for entry in labels.entries()]
    return sum(name in given for name in names) > 0.8 * len(names)
