"""What the values of masks mean: which are classes, and how they become train ids.

Where a file names the classes it is believed. Elsewhere every value that covers more than
the blur of an edge somewhere is a class, except ids far beyond all others in a mask or two.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, zip_longest
from typing import Literal, NamedTuple

from msgspec import UNSET, UnsetType

from atrous.data.encodings.masks import NO_DATA, color_name
from atrous.data.schema import ClassEntry, EncodingName, Labels, color_code
from atrous.data.schema import Color as AnyColor
from atrous.doctor.labels.class_names import NO_ID, Color, NamedClass, is_void
from atrous.doctor.scan.values import GAP, ValueStats, are_spread, find_far_colors
from atrous.errors import InputError
from atrous.images.label_maps import TRANSPARENT
from atrous.taxonomy import IGNORE_INDEX, distinct_colors

_BACKGROUND = ("background", "_background_", "other", "class 0")
_FAR = 3
"""An id more than this above all others is far from them."""

_SPREAD = 50
"""Ids with gaps, the largest below 255 at least this, are spread for the eye: 0, 85, 170, 255."""
_MUCH = 0.25
"""Share of the area: an unnamed 0 that covers more is a class."""
_NEAR = 8
"""Colours within this distance in each channel are merged as JPEG noise."""


class Meaning(NamedTuple):
    """What the values of masks mean."""

    labels: Labels
    class_of: Mapping[int, int]
    """The train id of each value that is a class."""
    ignored: tuple[int, ...] = ()
    """Values that no loss and no score counts."""


def labels_of_ids(
    encoding: EncodingName,
    stats: ValueStats,
    named: Sequence[NamedClass],
    palette: Mapping[int, Color],
    no_data: frozenset[int] = frozenset(),
) -> Meaning:
    """Tell what the values of masks mean where they are ids.

    Args:
        encoding: "index", "palette" or "mat".
        stats: the values of all masks.
        named: what a file says of the classes; empty if there is none.
        palette: colours of ids, from the masks themselves.
        no_data: ids that GeoTIFFs declare as no data; ignored where all other ids are smaller.
    """
    named = [entry for entry in named if entry.dataset_id != NO_ID]
    present = {int(value) for value in stats.values if value >= 0}
    no_data = frozenset(i for i in no_data if i > max(present - no_data, default=-1))
    names = _names_of_ids(stats, named, no_data)
    classes = {i: name for i, name in names.items() if not is_void(name)}
    ignore = ({*names} | ({0, IGNORE_INDEX} | no_data) & present) - {*classes}
    if (stats.values < 0).any():
        ignore.add(NO_DATA)
    given = {entry.name: entry.color for entry in named if entry.color}
    order = list(dict.fromkeys(classes.values()))  # two ids may stand for one class
    first = {name: i for i, name in reversed(classes.items())}
    entries = class_entries(order, [given.get(n) or palette.get(first[n]) for n in order])
    train_ids = {i: order.index(name) for i, name in classes.items()}
    near = bool(stats.levels) and {*classes} <= {*stats.levels, IGNORE_INDEX}
    labels = Labels(
        encoding=encoding,
        ignore=tuple(sorted(ignore)),
        unknown=_unknown(present - {*classes} - ignore, nearest=near),
        map=id_map(train_ids),
        classes=entries,
    )
    return Meaning(labels, train_ids, tuple(sorted(ignore)))


def labels_of_colors(stats: ValueStats, named: Sequence[NamedClass], any_blurred: bool) -> Meaning:
    """Tell what the colours of masks mean."""
    first = {color_code(entry.color): entry.name for entry in reversed(named) if entry.color}
    codes = {name: code for code, name in reversed(first.items())}
    if not codes:
        regions = _region_colors(stats)
        check_count(len(regions))
        # A name without a colour says which value it means only if the colours are greys.
        grey = {color_code((entry.dataset_id,) * 3): entry.name for entry in named[:256]}
        held = {0 if code == TRANSPARENT else code for code in regions}
        codes = {grey[code]: code for code in sorted(held & grey.keys())}
        if {*codes.values()} != held:
            codes = {f"class {place}": code for place, code in enumerate(regions)}
    clear, codes = _transparent_class(stats, codes)
    classes = {name: code for name, code in codes.items() if not is_void(name)}
    entries = class_entries([*classes], map(color_of, classes.values()))
    places = {name: place for place, name in enumerate(classes)}
    train_ids = {code: places[name] for name, code in classes.items()}
    ignore = {*codes.values()} - {*classes.values()}
    further = {}
    if clear in places:
        train_ids[TRANSPARENT] = further[color_name(TRANSPARENT)] = places[clear]
    elif TRANSPARENT in stats.values:
        ignore.add(TRANSPARENT)
    leftover = {int(value) for value in stats.values} - {*train_ids} - ignore
    labels = Labels(
        encoding="rgb",
        ignore=tuple(map(color_name, sorted(ignore))),
        unknown=_unknown(leftover, nearest=any_blurred),
        map=further or UNSET,
        classes=entries,
    )
    return Meaning(labels, train_ids, tuple(sorted(ignore)))


def _transparent_class(stats: ValueStats, codes: dict[str, int]) -> tuple[str, dict[str, int]]:
    """Return the class of transparent pixels, "" if they have none, and all classes with it.

    The class is what a file calls background, unless masks hold its colour beside transparent
    pixels; where no file names classes, black or else a new class.
    """
    drawn = {int(code) for code in stats.values}
    if TRANSPARENT not in drawn:
        return "", codes
    if TRANSPARENT not in codes.values():  # a file names the classes
        near = [n for n, code in codes.items() if code not in stats.beside_transparent]
        return next((name for name in near if is_background(name)), ""), codes
    black = next((name for name, code in codes.items() if code == 0), None)
    others = {name: code for name, code in codes.items() if code != TRANSPARENT}
    if black is not None and 0 not in stats.beside_transparent:
        return black, others
    spare = (0, 0xFFFFFF, *map(color_code, distinct_colors(len(drawn))))
    unused = next(code for code in spare if code not in drawn)
    return "background", {"background": unused, **others}


def class_entries(
    names: Sequence[str],
    colors: Iterable[AnyColor | None] = (),
    things: Collection[int] = (),
) -> tuple[ClassEntry, ...]:
    """The classes of a dataset.toml, in the order of train ids.

    Args:
        names: of all classes.
        colors: of the first classes; those that are None, or left out, are made up.
        things: the train ids of countable classes.
    """
    check_count(len(names))
    spare = distinct_colors(len(names))
    try:
        return tuple(
            ClassEntry(name=name, color=color or spare[place], thing=place in things)
            for place, (name, color) in enumerate(zip_longest(names, colors))
        )
    except ValueError as error:
        raise InputError(f"{error}; rename the class") from None


def id_map(train_ids: Mapping[int, int]) -> dict[str, int] | UnsetType:
    """Return the `map` of [labels]; unset where each id is a train id."""
    if all(i == place for i, place in train_ids.items()):
        return UNSET
    return {str(i): place for i, place in train_ids.items()}


def _unknown(leftover: set[int], *, nearest: bool) -> Literal["error", "ignore", "nearest"]:
    """Return what becomes of values that are neither classes nor ignored."""
    return ("nearest" if nearest else "ignore") if leftover else "error"


def color_of(code: int) -> Color:
    """The colour of a 24-bit code; black where that is transparent."""
    return code & 255, code >> 8 & 255, code >> 16 & 255


def is_background(name: str) -> bool:
    """Return whether a class's name says that it covers the rest: `background`, `other`."""
    return name.lower() in _BACKGROUND or is_void(name)


def _region_colors(stats: ValueStats) -> list[int]:
    """Return the colours of regions, sorted, without strays and JPEG's variants of a colour."""
    if stats.levels:
        return [*stats.levels]
    is_class = stats.is_region & ~stats.is_alone & ~stats.is_mixed
    regions = stats.values[is_class].tolist()
    clean = {*stats.values[is_class & (stats.clean > 0)].tolist()}
    counts = dict(zip(stats.values.tolist(), stats.counts.tolist(), strict=True))
    kept = sorted(clean)
    for code in sorted(set(regions) - clean, key=lambda code: -counts[code]):
        if all(_distance(code, other) > _NEAR for other in kept):
            kept.append(code)
    if (stats.clean == 0).any() and len(kept) == 1:
        kept += find_far_colors(stats.values, stats.not_between, kept)
    return sorted(kept)


def _distance(a: int, b: int) -> int:
    """Return the largest difference of two 24-bit codes in a channel."""
    return max(abs(x - y) for x, y in zip(color_of(a), color_of(b), strict=True))


def check_count(count: int) -> None:
    """Refuse a number of classes that train ids cannot count."""
    if not 0 < count <= IGNORE_INDEX:
        raise InputError(
            f"the masks hold {count} different values, where 1 to {IGNORE_INDEX} classes can be; "
            "they may number objects, or be photos: give masks of classes"
        )


def is_white_a_class(stats: ValueStats, num_named: int = 0) -> bool:
    """Return whether 255 stands for a class.

    It does where the ids are spread over 0 to 255 for the eye, or where some masks hold 0 and 1
    and all others 0 and 255.

    Args:
        stats: the values of all masks.
        num_named: how many classes a file names; 0 if there is none.
    """
    ids = stats.regions()
    others = [i for i in ids if i < IGNORE_INDEX]
    if IGNORE_INDEX not in ids or max(ids) > IGNORE_INDEX or not others:
        return False
    if len(stats.levels) == 2:
        return num_named <= 2
    if others in ([0], [0, 1]):
        return num_named <= 2 and (others == [0] or stats.one_or_white)
    spread = all(b - a > 1 for a, b in pairwise(others))
    return spread and max(others) >= _SPREAD and num_named in (0, len(ids))


def _names_of_ids(
    stats: ValueStats, named: Sequence[NamedClass], no_data: frozenset[int]
) -> dict[int, str]:
    """The ids that are classes, and their names."""
    ids = [i for i in stats.regions() if 0 <= i < 1 << 16 and i not in no_data]
    names = [entry.name for entry in named]
    if by_grey := _names_of_greys(ids, named, blurred=bool(stats.levels)):
        return by_grey
    if IGNORE_INDEX in ids and is_white_a_class(stats, len(named)):
        if ids[:-1] in ([0], [0, 1]):
            return {i: _binary(names)[i > 0] for i in ids}
        return dict(zip(ids, names or (f"class {i}" for i in ids), strict=False))
    if len(stats.levels) == 2 and stats.levels[0] == 0 and len(names) <= 2:
        beyond = {IGNORE_INDEX} & {*stats.values.tolist()} - no_data  # few pixels, not ignored
        return {i: _binary(names)[i > 0] for i in sorted({*ids} | beyond)}
    in_order = [entry.dataset_id for entry in named] == list(range(len(ids)))
    if in_order and are_spread(ids):
        return dict(zip(ids, names, strict=True))
    ids = [i for i in ids if i != IGNORE_INDEX]
    if named:
        return _named_ids(ids, named, stats)
    return {i: f"class {i}" for i in _without_strays(ids, stats) or [0]}


def _names_of_greys(
    ids: Sequence[int], named: Sequence[NamedClass], *, blurred: bool
) -> dict[int, str]:
    """Return the name of each id where a file gives every class a grey and the ids fit; else {}.

    A grey is a colour, or a number where one of them is 255.
    """
    greys = {entry.dataset_id: entry.name for entry in named}
    if IGNORE_INDEX not in greys:
        greys = {e.color[0]: e.name for e in named if e.color and len({*e.color}) == 1}
    if not ids or not greys or len(greys) < len(named):
        return {}
    near = {min(greys, key=lambda grey: abs(grey - i)): i for i in ids}
    slack = GAP if blurred else 0
    if len(near) < len(ids) or any(abs(grey - i) > slack for grey, i in near.items()):
        return {}
    return {near.get(g, g): name for g, name in greys.items() if g in near or not blurred}


def _binary(names: Sequence[str]) -> Sequence[str]:
    """Return the names of two classes; a single name is that of the foreground."""
    return names if len(names) > 1 else ["background", *(names or ["foreground"])]


def _named_ids(
    ids: Sequence[int], named: Sequence[NamedClass], stats: ValueStats
) -> dict[int, str]:
    """The name of each dataset id that a file names.

    Many files leave out the 0 and so count from 1: then the id that is one more than they have
    names is a common one. Where 0 takes much of the area, it is the background; else unlabelled.
    Where each has a grey, the darker one has the lower id, whatever the order of the lines.
    """
    greys = {entry.color[0]: entry for entry in named if entry.color and len({*entry.color}) == 1}
    if len(greys) == len(named) and [e.dataset_id for e in named] == list(range(len(named))):
        named = [replace(greys[grey], dataset_id=i) for i, grey in enumerate(sorted(greys))]
    names = {entry.dataset_id: entry.name for entry in named if entry.dataset_id < 1 << 16}
    beyond = len(named)
    common = [i for i in ids if not stats.is_rare(i)]
    if sorted(names) != list(range(beyond)) or max(common, default=0) != beyond:
        return names
    if is_background(named[0].name) and (stats.values == 0).any():
        return names
    zero = {0: "background"} if stats.share([0]) > _MUCH or beyond == 1 else {}
    return zero | {i + 1: name for i, name in names.items()}


def _without_strays(ids: Sequence[int], stats: ValueStats) -> list[int]:
    """Return the ids without those far beyond all others that few masks hold.

    Where the other ids have gaps too, a stray also has to be small and in a single mask.
    """
    common = [i for i in ids if not stats.is_rare(i)]
    gap = max((b - a for a, b in pairwise(common)), default=1)
    kept = [i for i in ids if not common or i <= common[-1]]
    alone = {*stats.values[stats.is_alone].tolist()}
    for i in ids[len(kept) :]:
        if i - kept[-1] > max(_FAR, gap) and (i in alone if gap > 1 else stats.is_rare(i)):
            break
        kept.append(i)
    return kept
