"""What is wrong with the values of masks: strays, blurred edges, 255 as a class, nothing at all."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from atrous.data.encodings.masks import NO_DATA, color_name
from atrous.doctor.findings import Finding, Severity, finding, many, of_masks
from atrous.doctor.labels.values import is_background, is_white_a_class
from atrous.doctor.layout.files import Pair
from atrous.doctor.scan.far_colors import count_far
from atrous.doctor.scan.scan import Scan
from atrous.images.label_maps import TRANSPARENT
from atrous.taxonomy import IGNORE_INDEX
from atrous.text import some

_UNLIKE = 1e-4
"""Of all pixels: fewer that are unlike all classes are noise."""
_MANY_OBJECTS, _COUNTS = 5, 3
"""Of ids that number objects: in one mask at least, and how many different such numbers."""
_BY_DESIGN = 0.2
"""Where more of all masks hold nothing but background, they are meant to."""


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
    if where:
        names = {value: scan.value_name(value) for value in sorted(where)}
        pairs = dict.fromkeys(pair for found in where.values() for pair in found)
        yield finding(
            "stray-id",
            [f"{pair.mask}: {name}" for value, name in names.items() for pair in where[value]],
            pairs,
            count=len(pairs),
            values=many(len(where), "colour" if scan.labels.encoding == "rgb" else "id"),
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
            guess += f": {many(far, 'pixel')} are unlike all of these, so thin classes may be lost"
    elif between:
        guess = "; --write ignores the values between"
        white = sum(mask.pixels_of(IGNORE_INDEX) for _, mask in bad)
        if white and IGNORE_INDEX not in scan.class_of and labels.encoding != "rgb":
            guess += f", and 255 ({many(white, 'pixel')})"
    yield of_masks(
        "interpolated",
        [pair for pair, _ in bad],
        severity="note" if scan.described and labels.unknown != "error" else None,
        only=f"; {many(len(between), what)} only on borders" if between else "",
        guess=guess,
    )


def foreground_255(scan: Scan) -> Iterator[Finding]:
    """Masks in which 255 is a class."""
    is_class = IGNORE_INDEX in scan.class_of
    if scan.labels.encoding not in ("index", "palette") or (scan.described and is_class):
        return
    pairs = scan.holding(IGNORE_INDEX)
    if pairs and (is_class or (scan.described and is_white_a_class(scan.values))):
        yield of_masks("foreground-255", pairs)


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
    groups: tuple[tuple[Severity, list[Pair]], ...] = (
        ("problem", unlabelled if by_design else unlabelled + blank),
        ("note", blank if by_design else []),
    )
    for severity, pairs in groups:
        if pairs:
            yield of_masks("empty-mask", pairs, severity=severity)


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
        if pairs := scan.holding(*held):
            named = some(map(str, held))
            yield of_masks("no-data", pairs, values=named, becomes=becomes, fix=fix)


def transparent(scan: Scan) -> Iterator[Finding]:
    """Masks drawn on a transparent background."""
    if scan.described or scan.labels.encoding != "rgb":
        return
    if pairs := scan.holding(TRANSPARENT):
        place = scan.class_of.get(TRANSPARENT)
        meaning = "ignored" if place is None else f'the class "{scan.classes[place]}"'
        yield of_masks("transparent", pairs, meaning=meaning)


def colors(scan: Scan) -> Iterator[Finding]:
    """Masks in colours."""
    if scan.labels.encoding == "rgb" and not scan.described:
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
