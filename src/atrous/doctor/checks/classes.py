"""What is wrong with classes: names that do not fit, classes that are missing or rare."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from atrous.doctor.findings import Finding, Severity, finding, many
from atrous.doctor.scan.levels import GAP
from atrous.doctor.scan.scan import Scan
from atrous.errors import InputError
from atrous.taxonomy import IGNORE_INDEX
from atrous.text import some

_RARE_CLASS = 1e-4
"""A class with a smaller part of all pixels is named."""

Pixels = NDArray[np.int64]
"""(K + 1,): pixels of each class, and last of none."""


def names_file(scan: Scan) -> Iterator[Finding]:
    """Names in a file that do not fit the values of the masks."""
    encoding, (file, named) = scan.labels.encoding, scan.names
    if named and encoding == "polygons":
        names = {entry.name.casefold() for entry in named} | {
            (scan.labels.background or "").casefold()
        }
        lacks = [name for name in scan.classes if name.casefold() not in names]
        if lacks:
            yield _misfit("problem", f"{file} lacks {many(len(lacks), 'class')}: {some(lacks)}")
    if not named or encoding not in ("index", "palette", "mat", "rgb"):
        return
    values = [value for value in scan.values.regions() if value != IGNORE_INDEX]
    _check_values(scan, values)
    kind = "colour" if encoding == "rgb" else "id"
    says = (
        f"{file} names {many(len(named), 'class')}, the masks hold {many(len(values), kind)} "
        f"({some(map(scan.value_name, values))})"
    )
    given = {entry.name: entry.dataset_id for entry in named}
    taken = {scan.classes[place]: value for value, place in scan.class_of.items()}
    if not given.keys() & taken:
        yield _misfit("note", f"{says}: its names are not used, as it does not say which is which")
    moved = [n for n, value in taken.items() if kind == "id" and given.get(n, value) != value]
    if moved:
        yield _misfit("note", f"{says}: read as {some(f'{n} = {taken[n]}' for n in moved)}")
    often = scan.values.values[scan.values.masks > max(1, 0.1 * scan.values.num_masks)]
    unnamed = {*values} & {*often.tolist()}
    unnamed -= {*scan.class_of, *scan.ignored, IGNORE_INDEX}
    if unnamed and given.keys() & taken:
        become = "taken as the nearest" if scan.labels.unknown == "nearest" else "ignored"
        yield _misfit("problem", f"{says}: {len(unnamed)} have no name and are {become}")


def _check_values(scan: Scan, values: list[int]) -> None:
    """Refuse a file of names that fits none of the masks' values, or not one class for each."""
    kind = "colour" if scan.labels.encoding == "rgb" else "id"
    if values and not scan.class_of.keys() & {*values, IGNORE_INDEX}:
        raise InputError(
            f"{scan.folder / scan.names.file}: no {kind} in it occurs in the masks, which hold "
            f"{some(map(scan.value_name, values))}; give the names of these masks, or take "
            "the file away"
        )
    levels = scan.values.levels if kind == "id" else ()
    if any(sum(abs(i - level) < GAP for i in scan.class_of) > 1 for level in levels):
        raise InputError(
            f"{scan.folder / scan.names.file}: does not fit the masks, which hold "
            f"{some(map(str, levels))} with blurred edges; name one class for each, in this order"
        )


def _misfit(severity: Severity, line: str) -> Finding:
    return finding("names-do-not-fit", count=1, severity=severity, line=line)


def of_splits(scan: Scan, pixels: Mapping[str, Pixels], *, proposed: bool) -> Iterator[Finding]:
    """What is wrong with the classes of splits.

    Args:
        scan: the folder.
        pixels: of each split.
        proposed: whether the division into splits is ours.
    """
    total = np.sum(list(pixels.values()), axis=0) if pixels else np.zeros(1, np.int64)
    if total[:-1].any():
        yield from _one_class(scan, pixels.get("train", total))
        yield from _missing(scan, pixels, total, proposed=proposed)
        yield _balance(scan, total)


def _one_class(scan: Scan, train: Pixels) -> Iterator[Finding]:
    """A set of one class, from which nothing can be learnt."""
    present = [scan.classes[place] for place in np.flatnonzero(train[:-1]).tolist()]
    if len(present) > 1:
        return
    seen = []
    for i in np.argsort(-scan.values.counts, kind="stable").tolist():
        value, count = int(scan.values.values[i]), int(scan.values.counts[i])
        meaning = "ignored" if value in (*scan.ignored, IGNORE_INDEX) else "no class"
        if value in scan.class_of:
            meaning = scan.classes[scan.class_of[value]]
        seen.append(f"{scan.value_name(value)}: {many(count, 'pixel')} ({meaning})")
    yield finding(
        "one-class",
        seen,
        count=len(present),
        names=some(present) or "none",
        values=some(seen, most=6),
    )


def _missing(
    scan: Scan, pixels: Mapping[str, Pixels], total: Pixels, *, proposed: bool
) -> Iterator[Finding]:
    """Classes that a split, or the whole folder, lacks."""
    names = scan.classes
    # What is in fewer masks than there are splits cannot be in all of them.
    holders = np.sum([own[:-1] > 0 for own in scan.class_pixels.values()], axis=0)
    divisible = (holders >= len(pixels)) & (not proposed)
    lacks: dict[Severity, list[tuple[str, int]]] = {"problem": [], "note": []}
    for split, own in pixels.items():
        for place in np.flatnonzero((own[:-1] == 0) & (total[:-1] > 0)).tolist():
            lacks["problem" if divisible[place] else "note"].append((split, place))
    for severity, found in lacks.items():
        if found:
            yield finding(
                "missing-class",
                [f"{split}: {names[place]}" for split, place in found],
                severity=severity,
                line=some(f'"{names[place]}" never occurs in {split}' for split, place in found),
            )
    if nowhere := [names[place] for place in np.flatnonzero(total[:-1] == 0).tolist()]:
        yield finding("class-in-no-mask", nowhere)


def _balance(scan: Scan, total: Pixels) -> Finding:
    """The share of each class."""
    shares = total[:-1] / max(int(total[:-1].sum()), 1)
    order = np.argsort(-shares, kind="stable").tolist()
    names = scan.classes
    rare = [names[i] for i in order if 0 < shares[i] < _RARE_CLASS]
    largest, smallest = order[0], [i for i in order if shares[i] > 0][-1]
    return finding(
        "class-balance",
        [f"{names[i]}: {_percent(shares[i])}" for i in order],
        smallest=f"{_percent(shares[smallest])} ({names[smallest]})",
        largest=f"{_percent(shares[largest])} ({names[largest]})",
        rare=f"; under {_percent(_RARE_CLASS)}: {some(rare)}" if rare else "",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.01 else f"{100 * share:.1f} %"
