"""What is wrong with the values of masks: strays, blurred edges, 255 as a class, nothing at all."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from atrous.data.encodings.masks import NO_DATA, color_name
from atrous.doctor.far_colors import count_far
from atrous.doctor.findings import Case, Finding, Severity, many, some, value_name
from atrous.doctor.scheme import is_background, is_white_a_class
from atrous.doctor.survey import Reading
from atrous.images.label_maps import TRANSPARENT
from atrous.taxonomy import IGNORE_INDEX

_UNLIKE = 1e-4
"""Of all pixels: fewer that are unlike all classes are noise."""
_MANY_OBJECTS, _COUNTS = 5, 3
"""Of ids that number objects: in one mask at least, and how many different such numbers."""
_BY_DESIGN = 0.2
"""Where more of all masks hold nothing but background, they are meant to."""


def mask_findings(case: Case) -> list[Finding]:
    """What is wrong with the values of masks."""
    judges = (_strays, _interpolated, _white, _numbered, _empty, _no_data, _transparent, _colors)
    return [finding for judge in judges for finding in judge(case)]


def _of_masks(
    readings: Sequence[Reading], code: str, severity: Severity, fault: str, fix: str
) -> Finding:
    """A finding of whole masks, whose message says how many, then `fault`."""
    return Finding(
        code=code,
        severity=severity,
        count=len(readings),
        message=f"{many(len(readings), 'mask')} {fault}",
        examples=tuple(reading.pair.mask for reading in readings),
        mend=fix,
        pairs=tuple(reading.pair for reading in readings),
    )


def _strays(case: Case) -> Iterator[Finding]:
    if case.described and case.scheme.unknown != "error":
        return  # the description itself says what becomes of them
    known = _known(case)
    where: dict[int, list[Reading]] = defaultdict(list)
    for reading, blurred in zip(case.readings, case.blurred, strict=True):
        for value in reading.tally.values.tolist() if reading.tally and not blurred else ():
            if value not in known:
                where[value].append(reading)
    if where:
        what = "colour" if case.scheme.encoding == "rgb" else "id"
        pairs = tuple(dict.fromkeys(reading.pair for found in where.values() for reading in found))
        yield Finding(
            code="stray-id",
            severity="problem",
            count=len(pairs),
            message=f"{many(len(pairs), 'mask')} with {many(len(where), what)} of no class: "
            + some(value_name(case.scheme, value) for value in sorted(where)),
            examples=tuple(
                f"{reading.pair.mask}: {value_name(case.scheme, value)}"
                for value in sorted(where)
                for reading in where[value]
            ),
            mend="correct these masks, or name the class under labels.map; --write "
            + ("takes the nearest class" if case.scheme.unknown == "nearest" else "ignores")
            + " these pixels",
            pairs=pairs,
        )


def _interpolated(case: Case) -> Iterator[Finding]:
    bad = [r for r, blurred in zip(case.readings, case.blurred, strict=True) if blurred]
    if not bad:
        return
    known = _known(case)
    between = {value for r in bad if r.tally for value in r.tally.values.tolist()} - known
    what = "colour" if case.scheme.encoding == "rgb" else "value"
    only = f"; {many(len(between), what)} only on borders" if between else ""
    mended = case.described and case.scheme.unknown != "error"
    mend = "export them again, or resize without interpolation (nearest), and as PNG, not JPEG"
    if case.scheme.unknown == "nearest" and not case.described:
        classes = some([value_name(case.scheme, value) for value in case.places], most=8)
        mend += f"; --write guesses that only {classes} are classes, and takes the nearest of them"
        if case.scheme.encoding == "rgb" and (far := _far(case)):
            mend += f": {many(far, 'pixel')} are unlike all of these, so thin classes may be lost"
    elif between:
        mend += "; --write ignores the values between"
        white = sum(
            int(r.tally.counts[r.tally.values == IGNORE_INDEX].sum()) for r in bad if r.tally
        )
        if white and IGNORE_INDEX not in case.places and case.scheme.encoding != "rgb":
            mend += f", and 255 ({many(int(white), 'pixel')})"
    yield _of_masks(
        bad,
        "interpolated",
        "note" if mended else "problem",
        f"with blurred edges, resized or compressed{only}",
        mend,
    )


def _far(case: Case) -> int:
    """Pixels of masks in colours that are no mixture of classes; 0 for few."""
    known = [code for code in (*case.places, *case.scheme.ignore) if code != TRANSPARENT]
    far = count_far(case.census.values, case.census.crests, known)
    return far if far >= _UNLIKE * case.census.counts.sum() else 0


def _white(case: Case) -> Iterator[Finding]:
    scheme, is_class = case.scheme, IGNORE_INDEX in case.places
    if scheme.encoding not in ("index", "palette") or (case.described and is_class):
        return
    holders = [r for r in case.readings if r.tally and IGNORE_INDEX in r.tally.values]
    if holders and (is_class or (case.described and is_white_a_class(case.census))):
        yield _of_masks(
            holders,
            "foreground-255",
            "problem",
            "where 255 is a class, though 255 means ignored",
            "say so by labels.map, as --write does",
        )


def _numbered(case: Case) -> Iterator[Finding]:
    """Ids without names that run from 1 to another number in each mask, as those of objects do."""
    scheme, held = case.scheme, [r for r in case.readings if r.tally and r.tally.values.any()]
    made_up = all(scheme.classes[place] == f"class {i}" for i, place in scheme.train_ids.items())
    if case.described or any(case.blurred) or scheme.encoding == "rgb" or not made_up:
        return
    ids = [{*r.tally.values.tolist()} - {0, IGNORE_INDEX} for r in held if r.tally]
    tops = {len(own) for own in ids}
    in_turn = all(own == {*range(1, len(own) + 1)} for own in ids)
    if in_turn and len(tops) >= _COUNTS and max(tops) >= _MANY_OBJECTS:
        yield _of_masks(
            held,
            "numbered-objects",
            "problem",
            "whose ids run from 1 to another number in each, "
            f"up to {max(tops)}: they may number objects, and are read as classes",
            "give masks of classes; if all objects are of one class, write 1 for each",
        )


def _empty(case: Case) -> Iterator[Finding]:
    names = case.scheme.classes
    counts = [(r, case.counts[r.pair]) for r in case.readings if r.tally]
    unlabelled = [reading for reading, count in counts if not count[:-1].any()]
    blank = [
        reading
        for reading, count in counts
        if len(present := np.flatnonzero(count[:-1])) == 1
        and len(names) > 1
        and is_background(names[int(present[0])])
    ]
    bad = unlabelled + (blank if len(blank) <= max(1, _BY_DESIGN * len(counts)) else [])
    groups: tuple[tuple[Severity, list[Reading]], ...] = (
        ("problem", bad),
        ("note", [reading for reading in blank if reading not in bad]),
    )
    for severity, found in groups:
        if found:
            yield _of_masks(
                found,
                "empty-mask",
                severity,
                "without any class but background",
                "label them, or leave them if their images show nothing else",
            )


def _no_data(case: Case) -> Iterator[Finding]:
    if case.scheme.encoding not in ("index", "palette", "mat"):
        return
    present = {*case.census.values.tolist()}
    declared = (case.no_data | {NO_DATA}) & present
    for values, what, mend in (
        (declared & {*case.scheme.ignore}, "is ignored", "name it under labels.map"),
        (declared & {*case.places}, "is read as a class", "name it under labels.ignore"),
    ):
        holders = [r for r in case.readings if r.tally and values & {*r.tally.values.tolist()}]
        if holders:
            yield _of_masks(
                holders,
                "no-data",
                "note",
                f"with {some(map(str, sorted(values)))}, said to be no data: it {what}; {mend} if"
                " it is otherwise",
                mend,
            )


def _transparent(case: Case) -> Iterator[Finding]:
    holders = [r for r in case.readings if r.tally and TRANSPARENT in r.tally.values]
    if case.described or case.scheme.encoding != "rgb" or not holders:
        return
    place = case.places.get(TRANSPARENT)
    meaning = "ignored" if place is None else f'the class "{case.scheme.classes[place]}"'
    yield _of_masks(
        holders,
        "transparent",
        "note",
        f"drawn on a transparent ground: it is taken as {meaning}, a guess",
        'name "transparent" under labels.map or labels.ignore if it is otherwise',
    )


def _colors(case: Case) -> Iterator[Finding]:
    if case.scheme.encoding == "rgb" and not case.described:
        codes = list(case.scheme.train_ids)
        yield Finding(
            code="rgb-masks",
            severity="note",
            count=len(codes),
            message=f"{many(len(codes), 'colour')} that stand for classes: masks are RGB",
            examples=tuple(map(color_name, codes)),
            mend="none needed: they are read in place",
        )


def _known(case: Case) -> set[int]:
    """The values that are classes or ignored."""
    known = {*case.places, *case.scheme.ignore}
    return known if case.scheme.encoding == "rgb" else known | {IGNORE_INDEX}
