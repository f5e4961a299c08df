"""Checks of the values of masks, and of the classes that they stand for."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import NO_DATA, color_name
from atrous.doctor.findings import Finding, Severity, finding, of_masks
from atrous.doctor.labels.values import is_background, is_white_a_class
from atrous.doctor.layout.files import Pair
from atrous.doctor.scan.scan import Scan
from atrous.doctor.scan.values import GAP, count_far
from atrous.errors import InputError
from atrous.images.label_maps import TRANSPARENT
from atrous.taxonomy import IGNORE_INDEX
from atrous.text import amount, some

_UNLIKE = 1e-4
"""Share of all pixels: fewer that are unlike all classes are noise."""
_MANY_OBJECTS, _COUNTS = 5, 3
"""Ids number objects if one mask has this many, and masks have this many different counts."""
_BY_DESIGN = 0.2
"""Share of masks that hold background alone; where more do, it is taken as intended."""


def strays(scan: Scan) -> Iterator[Finding]:
    """Values of no class in masks whose edges are not blurred."""
    if scan.described and scan.labels.unknown != "error":
        return  # the description itself says what becomes of them
    known = _known(scan)
    where: dict[int, list[Pair]] = defaultdict(list)
    for pair, mask in scan.masks:
        for value in mask.values.tolist():
            if not (mask.is_blurred or value in known):
                where[value].append(pair)
    names = {value: scan.value_name(value) for value in sorted(where)}
    pairs = dict.fromkeys(pair for found in where.values() for pair in found)
    yield finding(
        "stray-id",
        [f"{pair.mask}: {name}" for value, name in names.items() for pair in where[value]],
        pairs,
        count=len(pairs),
        values=amount(len(where), "colour" if scan.labels.encoding == "rgb" else "id"),
        named=some(names.values()),
        does="takes the nearest class" if scan.labels.unknown == "nearest" else "ignores",
    )


def blurred(scan: Scan) -> Iterator[Finding]:
    """Masks whose edges are interpolated or compressed."""
    labels, bad = scan.labels, [(pair, mask) for pair, mask in scan.masks if mask.is_blurred]
    if not bad:
        return
    between = {value for _, mask in bad for value in mask.values.tolist()} - _known(scan)
    what = "colour" if labels.encoding == "rgb" else "value"
    guess = ""
    if labels.unknown == "nearest" and not scan.described:
        classes = some(map(scan.value_name, scan.class_of), most=8)
        guess = f"; --write guesses that only {classes} are classes, and takes the nearest of them"
        if labels.encoding == "rgb" and (far := _far(scan)):
            guess += (
                f": {amount(far, 'pixel')} are unlike all of these, so thin classes may be lost"
            )
    elif between:
        guess = "; --write ignores the values between"
        white = sum(mask.pixels_of(IGNORE_INDEX) for _, mask in bad)
        if white and IGNORE_INDEX not in scan.class_of and labels.encoding != "rgb":
            guess += f", and 255 ({amount(white, 'pixel')})"
    yield of_masks(
        "interpolated",
        [pair for pair, _ in bad],
        severity="note" if scan.described and labels.unknown != "error" else None,
        only=f"; {amount(len(between), what)} only on borders" if between else "",
        guess=guess,
    )


def foreground_255(scan: Scan) -> Iterator[Finding]:
    """Masks in which 255 is a class."""
    is_class = IGNORE_INDEX in scan.class_of
    if scan.labels.encoding not in ("index", "palette") or (scan.described and is_class):
        return
    if is_class or (scan.described and is_white_a_class(scan.values)):
        yield of_masks("foreground-255", scan.holding(IGNORE_INDEX))


def numbered_objects(scan: Scan) -> Iterator[Finding]:
    """Ids without names that run from 1 to another number in each mask, as those of objects do."""
    labels, held = scan.labels, [(pair, mask) for pair, mask in scan.masks if mask.values.any()]
    named = [(i, place) for i, place in scan.class_of.items() if i != IGNORE_INDEX]
    made_up = all(scan.classes[place] == f"class {i}" for i, place in named)
    any_blurred = any(mask.is_blurred for _, mask in held)
    if scan.described or any_blurred or labels.encoding == "rgb" or not made_up:
        return
    ids = [{*mask.values.tolist()} - {0, IGNORE_INDEX} for _, mask in held]
    tops = {len(own) for own in ids}
    in_turn = all(own == {*range(1, len(own) + 1)} for own in ids)
    if in_turn and len(tops) >= _COUNTS and max(tops) >= _MANY_OBJECTS:
        yield of_masks("numbered-objects", [pair for pair, _ in held], top=max(tops))


def empty(scan: Scan) -> Iterator[Finding]:
    """Masks without any class, or with background alone."""
    names = scan.classes
    present = {pair: np.flatnonzero(scan.class_pixels[pair][:-1]) for pair, _ in scan.masks}
    unlabelled = [pair for pair, own in present.items() if not own.size]
    blank = [
        pair
        for pair, own in present.items()
        if len(own) == 1 and len(names) > 1 and is_background(names[own[0]])
    ]
    by_design = len(blank) > max(1, _BY_DESIGN * len(present))
    yield of_masks("empty-mask", unlabelled if by_design else unlabelled + blank)
    yield of_masks("empty-mask", blank if by_design else [], severity="note")


def no_data(scan: Scan) -> Iterator[Finding]:
    """Masks with negative values, or with what GeoTIFFs declare as no data."""
    if scan.labels.encoding not in ("index", "palette", "mat"):
        return
    declared = scan.no_data | {NO_DATA}
    for values, becomes, fix in (
        (declared & {*scan.ignored}, "is ignored", "name it under labels.map"),
        (declared & {*scan.class_of}, "is read as a class", "name it under labels.ignore"),
    ):
        held = sorted(values & {*scan.values.values.tolist()})
        named = some(map(str, held))
        yield of_masks("no-data", scan.holding(*held), values=named, becomes=becomes, fix=fix)


def colors(scan: Scan) -> Iterator[Finding]:
    """Masks in colours, and those drawn on a transparent background."""
    if scan.labels.encoding == "rgb" and not scan.described:
        place = scan.class_of.get(TRANSPARENT)
        meaning = "ignored" if place is None else f'the class "{scan.classes[place]}"'
        yield of_masks("transparent", scan.holding(TRANSPARENT), meaning=meaning)
        yield finding("rgb-masks", map(color_name, scan.class_of))


def _far(scan: Scan) -> int:
    """Pixels of masks in colours that are no mixture of classes; 0 for few."""
    known = [code for code in (*scan.class_of, *scan.ignored) if code != TRANSPARENT]
    far = count_far(scan.values.values, scan.values.not_between, known)
    return far if far >= _UNLIKE * scan.values.counts.sum() else 0


def _known(scan: Scan) -> set[int]:
    """The values that are classes or ignored."""
    known = {*scan.class_of, *scan.ignored}
    return known if scan.labels.encoding == "rgb" else known | {IGNORE_INDEX}


_RARE_CLASS = 1e-4
"""A class with a smaller share of all pixels is reported as rare."""

Pixels = NDArray[np.int64]
"""(K + 1,): pixels of each class, and last of none."""


def names_file(scan: Scan) -> Iterator[Finding]:
    """Names in a file that do not fit the values of the masks."""
    encoding, (file, named) = scan.labels.encoding, scan.names
    if named and encoding == "polygons":
        names = {entry.name.casefold() for entry in named} | {
            (scan.labels.background or "").casefold()
        }
        if lacks := [name for name in scan.classes if name.casefold() not in names]:
            yield _misfit("problem", f"{file} lacks {amount(len(lacks), 'class')}: {some(lacks)}")
    if not named or encoding not in ("index", "palette", "mat", "rgb"):
        return
    values = [value for value in scan.values.regions() if value != IGNORE_INDEX]
    _check_values(scan, values)
    kind = "colour" if encoding == "rgb" else "id"
    says = (
        f"{file} names {amount(len(named), 'class')}, the masks hold {amount(len(values), kind)} "
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
        proposed: whether the doctor proposes the division into splits.
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
        seen.append(f"{scan.value_name(value)}: {amount(count, 'pixel')} ({meaning})")
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
        yield finding(
            "missing-class",
            [f"{split}: {names[place]}" for split, place in found],
            severity=severity,
            line=some(f'"{names[place]}" never occurs in {split}' for split, place in found),
        )
    nowhere = np.flatnonzero(total[:-1] == 0).tolist()
    yield finding("class-in-no-mask", [names[place] for place in nowhere])


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
