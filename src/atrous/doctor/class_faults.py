"""What is wrong with the classes of splits: they are missing, or rare."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from atrous.doctor.class_names import NamedClass
from atrous.doctor.findings import Case, Finding, Severity, many, some, value_name
from atrous.doctor.levels import GAP
from atrous.errors import InputError
from atrous.taxonomy import IGNORE_INDEX

RARE_CLASS = 1e-4
"""A class with a smaller part of all pixels is told by name."""


def class_findings(
    case: Case,
    pixels: Mapping[str, NDArray[np.int64]],
    holders: NDArray[np.int64],
    *,
    proposed: bool,
) -> list[Finding]:
    """What is wrong with the classes of splits.

    Args:
        case: what was seen.
        pixels: (K + 1,) of each split: of each class, and of none.
        holders: (K,) in how many masks each class occurs.
        proposed: whether the division into splits is ours.
    """
    total = np.sum(list(pixels.values()), axis=0) if pixels else np.zeros(1, np.int64)
    if not total[:-1].any():
        return []
    # What is in fewer masks than there are splits cannot be in all of them.
    divisible = (holders >= len(pixels)) & (not proposed)
    lone = _lone(case, pixels.get("train", total))
    return [*lone, *_missing(case, pixels, total, divisible), _balance(case, total)]


def _lone(case: Case, pixels: NDArray[np.int64]) -> Iterator[Finding]:
    """A set of one class, (K + 1,) pixels of what is trained on: nothing can be learnt from it."""
    present = [case.scheme.classes[place] for place in np.flatnonzero(pixels[:-1]).tolist()]
    if len(present) > 1:
        return
    seen = []
    for i in np.argsort(-case.census.counts, kind="stable").tolist():
        value, count = int(case.census.values[i]), int(case.census.counts[i])
        place = case.places.get(value)
        ignored = value in (*case.scheme.ignore, IGNORE_INDEX)
        meaning = "ignored" if ignored else "no class"
        meaning = meaning if place is None else case.scheme.classes[place]
        seen.append(f"{value_name(case.scheme, value)}: {many(count, 'pixel')} ({meaning})")
    yield Finding(
        code="one-class",
        severity="problem",
        count=len(present),
        message=f"{many(len(present), 'class')} to train on, {some(present) or 'none'}: masks hold"
        f" {some(seen, most=6)}",
        examples=tuple(seen),
        mend="give masks of two classes or more; name each value that is a class under labels.map",
    )


def class_name_findings(
    case: Case, names_file: str, named: Sequence[NamedClass]
) -> Iterator[Finding]:
    """Where the names in a file do not fit the values of the masks.

    Raises:
        InputError: no value of the masks has a name.
    """
    if named and case.scheme.encoding == "polygons":
        yield from _unnamed_shapes(case, names_file, named)
    if not named or case.scheme.encoding not in ("index", "palette", "mat", "rgb"):
        return
    kind = "colour" if case.scheme.encoding == "rgb" else "id"
    values = [v for v in case.census.regions() if v != IGNORE_INDEX]
    shown = some(value_name(case.scheme, value) for value in values)
    if values and not case.places.keys() & {*values, IGNORE_INDEX}:
        raise InputError(
            f"{case.folder / names_file}: no {kind} in it occurs in the masks, which hold {shown}; "
            "give the names of these masks, or take the file away"
        )
    levels = case.census.levels if kind == "id" else ()
    if any(sum(abs(i - level) < GAP for i in case.places) > 1 for level in levels):
        raise InputError(
            f"{case.folder / names_file}: does not fit the masks, which hold "
            f"{some(map(str, levels))} with blurred edges; name one class for each, in this order"
        )
    says = f"{names_file} names {many(len(named), 'class')}, the masks hold"
    says += f" {many(len(values), kind)} ({shown})"
    names = {entry.name for entry in named}
    taken = {case.scheme.classes[place]: value for value, place in case.places.items()}
    if not names & taken.keys():
        yield _misfit("note", f"{says}: its names are not used, as it does not say which is which")
    given = {entry.name: entry.dataset_id for entry in named}
    moved = [n for n, value in taken.items() if kind == "id" and given.get(n, value) != value]
    if moved:
        yield _misfit("note", f"{says}: read as {some(f'{n} = {taken[n]}' for n in moved)}")
    often = case.census.values[case.census.masks > max(1, 0.1 * case.census.num_masks)]
    unnamed = {*values} & {*often.tolist()}
    unnamed -= {*case.places, *case.scheme.ignore, IGNORE_INDEX}
    if unnamed and names & taken.keys():
        become = "taken as the nearest" if case.scheme.unknown == "nearest" else "ignored"
        yield _misfit("problem", f"{says}: {len(unnamed)} have no name and are {become}")


def _unnamed_shapes(case: Case, names_file: str, named: Sequence[NamedClass]) -> Iterator[Finding]:
    """Classes of YOLO or LabelMe files that a file of names lacks."""
    names = {entry.name.casefold() for entry in named}
    lacks = [
        name
        for name in case.scheme.classes
        if name.casefold() not in names and name != case.scheme.background
    ]
    if lacks:
        yield _misfit("problem", f"{names_file} lacks {many(len(lacks), 'class')}: {some(lacks)}")


def _misfit(severity: Severity, message: str) -> Finding:
    return Finding(
        code="names-do-not-fit",
        severity=severity,
        count=1,
        message=message,
        examples=(),
        mend="give the file of names that belongs to these masks, or name classes in dataset.toml",
    )


def _missing(
    case: Case,
    pixels: Mapping[str, NDArray[np.int64]],
    total: NDArray[np.int64],
    divisible: NDArray[np.bool_],
) -> Iterator[Finding]:
    names = case.scheme.classes
    lacks = [
        (split, place)
        for split, counts in pixels.items()
        for place in np.flatnonzero((counts[:-1] == 0) & (total[:-1] > 0)).tolist()
    ]
    groups: tuple[tuple[Severity, list[tuple[str, int]]], ...] = (
        ("problem", [(s, place) for s, place in lacks if divisible[place]]),
        ("note", [(s, place) for s, place in lacks if not divisible[place]]),
    )
    for severity, found in groups:
        if found:
            yield Finding(
                code="missing-class",
                severity=severity,
                count=len(found),
                message=some(f'"{names[place]}" never occurs in {split}' for split, place in found),
                examples=tuple(f"{split}: {names[place]}" for split, place in found),
                mend="divide the images otherwise, or add some: a class that is not in train is"
                " not learnt, one that is not in val has no score",
            )
    nowhere = [names[place] for place in np.flatnonzero(total[:-1] == 0).tolist()]
    if nowhere:
        yield Finding(
            code="missing-class",
            severity="note",
            count=len(nowhere),
            message=f"{many(len(nowhere), 'class')} in no mask at all: {some(nowhere)}",
            examples=tuple(nowhere),
            mend="none needed where the folder is a part of a larger set",
        )


def _balance(case: Case, total: NDArray[np.int64]) -> Finding:
    shares = total[:-1] / max(int(total[:-1].sum()), 1)
    order = np.argsort(-shares, kind="stable").tolist()
    rare = [case.scheme.classes[i] for i in order if 0 < shares[i] < RARE_CLASS]
    largest, smallest = order[0], [i for i in order if shares[i] > 0][-1:] or [order[0]]
    message = (
        f"classes take from {_percent(shares[smallest[0]])} ({case.scheme.classes[smallest[0]]})"
        f" to {_percent(shares[largest])} ({case.scheme.classes[largest]}) of the labelled pixels"
    )
    if rare:
        message += f"; under {_percent(RARE_CLASS)}: {some(rare)}"
    return Finding(
        code="class-balance",
        severity="note",
        count=len(order),
        message=message,
        examples=tuple(f"{case.scheme.classes[i]}: {_percent(shares[i])}" for i in order),
        mend="more images of the rare classes help most; see docs/training.md for class weights",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.01 else f"{100 * share:.1f} %"
