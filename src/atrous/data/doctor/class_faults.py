"""What is wrong with the classes of splits: they are missing, or rare."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from atrous.data.doctor.findings import Case, Finding, Severity, many, some

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
    return [*_missing(case, pixels, total, divisible), _balance(case, total)]


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
