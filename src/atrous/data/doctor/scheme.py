"""What the values of masks mean: which are classes, and how they become train ids.

Where a file names the classes it is believed. Elsewhere every value that lies somewhere as more
than the blur of an edge is a class, but for ids far beyond all others in a mask or two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from atrous.data.doctor.class_names import NamedClass, is_void
from atrous.data.doctor.survey import Tally, rgb
from atrous.files import InputError
from atrous.taxonomy import IGNORE_INDEX, distinct_colors

Color = tuple[int, int, int]

_BACKGROUND = ("background", "_background_", "other", "class 0")
_RARE = 0.1
"""Of all masks: an id of fewer, or of one alone, may be a stray one."""
_LITTLE = 0.02
"""Of a mask: what is less, and in no other one, may be a stray."""
_FEW_MASKS = 4
"""Of fewer masks nothing is said to be rare."""
_FAR = 3
"""An id is far from the others where so many ids lie unused between."""

_SPREAD = 50
"""Ids with gaps, the largest but 255 at least so, are spread to be seen: 0, 85, 170, 255."""
_MUCH = 0.25
"""Of the area: an unnamed 0 with more of it is a class."""
_NEAR = 8
"""Colours as close, in each channel, are one to JPEG."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How masks are stored, and the classes of their values: the [labels] of a dataset.toml."""

    encoding: str
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    train_ids: Mapping[int, int]
    """Of each dataset id, or 24-bit code."""
    ignore: tuple[int, ...] = ()
    unknown: str = "error"
    names: Mapping[str, int] = field(default_factory=dict)
    """LabelMe: train ids of further names of a class; 255 is ignored."""
    background: str = ""
    things: frozenset[int] = frozenset()
    """Train ids."""
    extra: Mapping[str, str | int | list[str]] = field(default_factory=dict)
    """Further fields of [labels], such as a divisor."""


@dataclass(frozen=True, eq=False)
class Census:
    """The values of all masks together, sorted; each array is (N,)."""

    values: NDArray[np.int64]
    counts: NDArray[np.int64]
    masks: NDArray[np.int64]
    """In how many masks."""
    clean: NDArray[np.int64]
    """In how many whose edges are not blurred."""
    is_region: NDArray[np.bool_]
    """Whether it lies somewhere as more than the blur of an edge."""
    is_alone: NDArray[np.bool_]
    """Whether it is less than 2 % of one mask, and in no other; never where many are so."""
    is_mixed: NDArray[np.bool_]
    """Whether it lies on the edge between others only, and is one of several that do."""
    num_masks: int
    one_or_white: bool = False
    """Whether some masks hold 1, others 255, and none both."""

    def regions(self) -> list[int]:
        """The values that are regions, sorted."""
        return [int(value) for value in self.values[self.is_region]]


def take_census(tallies: Sequence[Tally], blurred: Sequence[bool]) -> Census:
    """Sum up what masks hold, where `blurred` says whose edges are interpolated."""
    if not tallies:
        nothing = np.zeros(0, np.int64)
        never = nothing.astype(bool)
        return Census(nothing, nothing, nothing, nothing, never, never, never, 0)
    every = np.concatenate([tally.values for tally in tallies])
    values, places = np.unique(every, return_inverse=True)

    def total(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
        return np.bincount(places, np.concatenate(parts), len(values)).astype(np.int64)

    counts = total([tally.counts for tally in tallies])
    solid = total([tally.solid for tally in tallies])
    masks = total([np.ones_like(tally.values) for tally in tallies])
    clean = total(
        [np.full_like(t.values, not blur) for t, blur in zip(tallies, blurred, strict=True)]
    )
    is_region = (clean > 0) | ((solid > 0.1 * counts) & (counts > 1e-3 * counts.sum()))
    alone = (masks == 1) & (counts * len(tallies) < _LITTLE * counts.sum())
    holders = sum(bool(np.isin(values[alone], tally.values).any()) for tally in tallies)
    if len(tallies) < _FEW_MASKS or holders > max(1, _RARE * len(tallies)):
        alone[:] = False  # many rare classes
    soft = total([tally.soft for tally in tallies])
    mixed = (solid == 0) & (2 * soft >= counts) & (counts < 1e-3 * counts.sum())
    mixed &= mixed.sum() > 2
    ones, whites = ({n for n, t in enumerate(tallies) if i in t.values} for i in (1, IGNORE_INDEX))
    apart = bool(ones and whites and not ones & whites)
    return Census(values, counts, masks, clean, is_region, alone, mixed, len(tallies), apart)


def ids_scheme(
    encoding: str, census: Census, named: Sequence[NamedClass], palette: Mapping[int, Color]
) -> Scheme:
    """The scheme of masks whose values are ids.

    Args:
        encoding: "index", "palette" or "mat".
        census: of all masks.
        named: what a file says of the classes; empty if there is none.
        palette: colours of ids, from the masks themselves.

    Raises:
        InputError: there are more ids than classes can be.
    """
    names = _names_of_ids(census, named)
    classes = {i: name for i, name in names.items() if not is_void(name)}
    present = {int(value) for value in census.values}
    ignore = ({*names} | {0, IGNORE_INDEX} & present) - {*classes}
    check_count(len(classes))
    given = {entry.name: entry.color for entry in named if entry.color}
    order = list(dict.fromkeys(classes.values()))  # two ids may stand for one class
    first = {name: i for i, name in reversed(classes.items())}
    return Scheme(
        encoding=encoding,
        classes=tuple(order),
        colors=tuple(
            given.get(name) or palette.get(first[name]) or spare
            for name, spare in zip(order, distinct_colors(len(order)), strict=True)
        ),
        train_ids={i: order.index(name) for i, name in classes.items()},
        ignore=tuple(sorted(ignore)),
        unknown="ignore" if present - {*classes} - ignore else "error",
    )


def colors_scheme(census: Census, named: Sequence[NamedClass], any_blurred: bool) -> Scheme:
    """The scheme of masks whose colours are ids.

    Raises:
        InputError: there are more colours than classes can be.
    """
    first = {code_of(entry.color): entry.name for entry in reversed(named) if entry.color}
    codes = {name: code for code, name in reversed(first.items())}
    if not codes:
        regions = _without_near(census)
        check_count(len(regions))
        # A name without a colour says which value it means only if the colours are greys.
        grey = {code_of((entry.dataset_id,) * 3): entry.name for entry in named[:256]}
        names = [grey.get(c) for c in regions]
        if None in names:
            names = [f"class {place}" for place in range(len(regions))]
        codes = {str(name): code for name, code in zip(names, regions, strict=True)}
    classes = {name: code for name, code in codes.items() if not is_void(name)}
    check_count(len(classes))
    leftover = {int(value) for value in census.values} - {*codes.values()}
    return Scheme(
        encoding="rgb",
        classes=tuple(classes),
        colors=tuple(color_of(code) for code in classes.values()),
        train_ids={code: place for place, code in enumerate(classes.values())},
        ignore=tuple(sorted({*codes.values()} - {*classes.values()})),
        unknown=("nearest" if any_blurred else "ignore") if leftover else "error",
    )


def with_nearest(
    scheme: Scheme, places: Mapping[int, int], values: NDArray[np.int64]
) -> dict[int, int]:
    """Add to the class of each known value that of the unknown ones which become the nearest."""
    known = [*places, *scheme.ignore]
    if scheme.unknown != "nearest" or not known:
        return dict(places)
    unknown = values[~np.isin(values, known)]
    nearest, best = np.full_like(unknown, known[0]), np.full(unknown.shape, np.inf)
    for code in known:
        distance = ((rgb(unknown) - rgb(code)[:, None]) ** 2).sum(0)
        nearest[distance < best] = code
        best = np.minimum(best, distance)
    both = zip(unknown.tolist(), nearest.tolist(), strict=True)
    return {**places, **{value: places[code] for value, code in both if code in places}}


def code_of(color: Color) -> int:
    """The 24-bit code of a colour."""
    return color[0] + 256 * color[1] + 65536 * color[2]


def color_of(code: int) -> Color:
    """The colour of a 24-bit code."""
    return code & 255, code >> 8 & 255, code >> 16


def is_background(name: str) -> bool:
    """Whether a class's name says that it is what no other class is."""
    return name.lower() in _BACKGROUND or is_void(name)


def _without_near(census: Census) -> list[int]:
    """The colours that are regions, less strays and those that JPEG made of another, sorted."""
    is_class = census.is_region & ~census.is_alone & ~census.is_mixed
    regions = census.values[is_class].tolist()
    clean = {*census.values[is_class & (census.clean > 0)].tolist()}
    counts = dict(zip(census.values.tolist(), census.counts.tolist(), strict=True))
    kept = sorted(clean)
    for code in sorted(set(regions) - clean, key=lambda code: -counts[code]):
        if all(_distance(code, other) > _NEAR for other in kept):
            kept.append(code)
    return sorted(kept)


def _distance(a: int, b: int) -> int:
    """Between two 24-bit codes: of the channel in which they differ most."""
    return max(abs(x - y) for x, y in zip(color_of(a), color_of(b), strict=True))


def check_count(count: int) -> None:
    """Refuse what cannot be numbered by train ids.

    Raises:
        InputError: there are none, or more than classes can be.
    """
    if not 0 < count <= IGNORE_INDEX:
        raise InputError(
            f"the masks hold {count} different values, where 1 to {IGNORE_INDEX} classes can be; "
            "they may number objects, or be photos: give masks of classes"
        )


def is_white_a_class(census: Census, num_named: int = 0) -> bool:
    """Whether 255 stands for a class.

    So it does where the ids are spread over 0 to 255 to be seen, or where some masks hold 0 and 1
    and all others 0 and 255.

    Args:
        census: of all masks.
        num_named: how many classes a file names; 0 if there is none.
    """
    ids = census.regions()
    others = [i for i in ids if i < IGNORE_INDEX]
    if IGNORE_INDEX not in ids or max(ids) > IGNORE_INDEX or not others:
        return False
    if others in ([0], [0, 1]):
        return num_named <= 2 and (others == [0] or census.one_or_white)
    spread = all(b - a > 1 for a, b in pairwise(others))
    return spread and max(others) >= _SPREAD and num_named in (0, len(ids))


def _names_of_ids(census: Census, named: Sequence[NamedClass]) -> dict[int, str]:
    """The ids that are classes, and their names."""
    ids = [i for i in census.regions() if 0 <= i < 1 << 16]
    if is_white_a_class(census, len(named)):
        names = [entry.name for entry in named]
        if ids[:-1] in ([0], [0, 1]):
            names = names if len(names) > 1 else ["background", *(names or ["foreground"])]
            return {i: names[i > 0] for i in ids}
        return dict(zip(ids, names or (f"class {i}" for i in ids), strict=False))
    ids = [i for i in ids if i != IGNORE_INDEX]
    if named:
        return _named_ids(ids, named, census)
    return {i: f"class {i}" for i in _without_strays(ids, census) or [0]}


def _named_ids(ids: Sequence[int], named: Sequence[NamedClass], census: Census) -> dict[int, str]:
    """The name of each dataset id that a file names.

    Many files leave out the 0 and so count from 1: then the id that is one more than they have
    names is a common one. Where 0 takes much of the area, it is the background; else unlabelled.
    """
    names = {entry.dataset_id: entry.name for entry in named if entry.dataset_id < 1 << 16}
    beyond = len(named)
    if sorted(names) != list(range(beyond)) or is_background(named[0].name):
        return names
    common = [i for i in ids if not _is_rare(i, census)]
    if not common or max(common) != beyond:
        return names
    share = census.counts[census.values == 0].sum() / census.counts.sum()
    zero = {0: "background"} if share > _MUCH or beyond == 1 else {}
    return zero | {i + 1: name for i, name in names.items()}


def _without_strays(ids: Sequence[int], census: Census) -> list[int]:
    """The ids less those that lie far beyond all others, in few masks.

    Where the others have gaps too, those of which one mask alone has a little.
    """
    common = [i for i in ids if not _is_rare(i, census)]
    gap = max((b - a for a, b in pairwise(common)), default=1)
    kept = [i for i in ids if not common or i <= common[-1]]
    alone = {*census.values[census.is_alone].tolist()}
    for i in ids[len(kept) :]:
        if i - kept[-1] > max(_FAR, gap) and (i in alone if gap > 1 else _is_rare(i, census)):
            break
        kept.append(i)
    return kept


def _is_rare(value: int, census: Census) -> bool:
    """Whether so few masks hold a value that it may be there by mistake."""
    masks = census.masks[np.searchsorted(census.values, value)]
    few = max(1.0, _RARE * census.num_masks)
    return bool(census.num_masks >= _FEW_MASKS and masks <= few)
