"""An image cut into segments, and the checks that its map and its segments belong together."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from reprlib import repr as short
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError

_MAX_AREA = 1 << 53  # up to here, doubles count exactly
_STRIP = 1 << 20  # pixels at a time, so that memory does not grow with the image

Ids = NDArray[np.integer[Any]]
Segments = Sequence[Mapping[str, Any]]
Counts = NDArray[np.int64]
Places = NDArray[np.int64]
"""Index of a segment among the segments of its image, counted from 1; 0 = void."""


class Panoptic(NamedTuple):
    """An image cut into segments, as COCO keeps it."""

    ids: Ids
    """(H, W) segment ids, 0 = void."""
    segments: Segments
    """One for each id: `id`, `category_id`, and optionally `iscrowd` (default 0) and `area`."""


def check_categories(categories: Sequence[Mapping[str, Any]]) -> None:
    """Check that categories are as in COCO's panoptic JSON: unique `id` and `name`, `isthing`."""
    if not isinstance(categories, Sequence) or not categories:
        raise InputError("there are no categories; list at least one, with id, name and isthing")
    for category in categories:
        if not (
            isinstance(category, Mapping)
            and _is_integer(category.get("id"))
            and isinstance(category.get("name"), str)
            and category["name"].isprintable()
            and category.get("isthing") in (0, 1)
        ):
            raise InputError(
                f"category {short(category)}: it needs a number as id, a name, and isthing (0 or 1)"
            )
    for key in ("id", "name"):
        check_once(f"two categories have the {key}", [category[key] for category in categories])


def check_once(problem: str, values: Sequence[int | str]) -> None:
    """Refuse a value that occurs twice, with `problem` and the value."""
    counts = Counter(values)
    if len(counts) < len(values):
        raise InputError(f"{problem} {short(counts.most_common(1)[0][0])}; each needs its own")


def check_segments(segments: Segments, categories: Container[int]) -> None:
    """Check that segments are as in COCO's panoptic JSON, whatever their map holds.

    Args:
        segments: `id`, `category_id`, and optionally `iscrowd` and `area`.
        categories: known values of `category_id`.
    """
    if not isinstance(segments, Sequence) or isinstance(segments, str):
        raise InputError(f"the segments are {short(segments)}, where a list was expected")
    for segment in segments:
        _check_segment(segment, categories)
    check_once("two segments have the id", [segment["id"] for segment in segments])


def _check_segment(segment: Any, categories: Container[int]) -> None:
    if not isinstance(segment, Mapping):
        raise InputError(f"{short(segment)} is no segment; one has an id and a category_id")
    segment_id, category = segment.get("id"), segment.get("category_id")
    if not (_is_integer(segment_id) and 0 < segment_id < 1 << 63):
        raise InputError(f"a segment has the id {short(segment_id)}; ids count from 1")
    if not (_is_integer(category) and category in categories):
        raise InputError(
            f"segment {segment_id} has the category_id {short(category)}, "
            "which is none of the categories"
        )
    crowd, area = segment.get("iscrowd", 0), segment.get("area", 1)
    if crowd not in (0, 1):
        raise InputError(f"segment {segment_id} has iscrowd {short(crowd)}; it is 0 or 1")
    if not (
        (_is_integer(area) or isinstance(area, float))
        and 0 < area < _MAX_AREA
        and int(area) == area
    ):
        raise InputError(
            f"segment {segment_id} has the area {short(area)}; it is a number of pixels"
        )


def check_panoptic(panoptic: Panoptic) -> Counts:
    """Check that the map holds the ids of the segments, void, and nothing else.

    Returns:
        (N,) pixels of each segment.
    """
    ids, segments = panoptic
    if not isinstance(ids, np.ndarray) or ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise InputError(
            "segment ids are an array of integers (H, W); a colour is R + 256 G + 65536 B"
        )
    (places,), pixels = overlaps(panoptic)
    area = np.bincount(places, pixels, minlength=1 + len(segments))[1:].astype(np.int64)
    if not area.all():
        raise InputError(
            f"segment {segments[int(area.argmin())]['id']} has no pixels in the map; "
            "leave it out, or keep maps at their full size"
        )
    return area


def overlaps(*sides: Panoptic) -> tuple[tuple[Places, ...], Counts]:
    """Count the pixels of each combination of segments that meet in an image, void included.

    Args:
        sides: segmentations of one image, of one size.

    Returns:
        The M combinations: the places of each side, (M,) each; and the pixels, (M,).
    """
    maps = [ids.ravel() for ids, _ in sides]
    known = [np.array([0, *(s["id"] for s in segments)], np.int64) for _, segments in sides]
    counts = []
    for start in range(0, max(1, maps[0].size), _STRIP):
        values, lengths = runs([ids[start : start + _STRIP] for ids in maps])
        places = tuple(map(_find, values, known))
        codes = np.ravel_multi_index(places, [len(ids) for ids in known])
        counts.append(_summed(codes, lengths))
    codes, pixels = _summed(*map(np.concatenate, zip(*counts, strict=True)))
    return np.unravel_index(codes, [len(ids) for ids in known]), pixels


def runs(maps: Sequence[Ids]) -> tuple[list[Ids], Counts]:
    """Cut flat maps of one length wherever any of them changes.

    Returns:
        The id of each run in each map, (R,) each; and the lengths of the runs, (R,).
    """
    begins = np.ones(maps[0].size, np.bool_)
    begins[1:] = np.any([ids[1:] != ids[:-1] for ids in maps], axis=0)
    starts = np.flatnonzero(begins)
    return [ids[starts] for ids in maps], np.diff(starts, append=begins.size)


def _find(ids: Ids, known: Places) -> Places:
    """Return the places of `ids` (R,) among `known` (1 + N,), the first of which is void."""
    order = np.argsort(known)
    sought = ids.astype(np.int64)
    places: Places = order[np.searchsorted(known, sought, sorter=order).clip(max=len(order) - 1)]
    stray = np.flatnonzero(known[places] != sought)
    if stray.size:
        raise InputError(
            f"the map holds the id {ids[stray[0]]}, which none of the segments has; "
            "take both from one source"
        )
    return places


def _summed(codes: Counts, lengths: Counts) -> tuple[Counts, Counts]:
    """Add up the `lengths` of equal `codes`."""
    codes, which = np.unique(codes, return_inverse=True)
    return codes, np.bincount(which, lengths, minlength=len(codes)).astype(np.int64)


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
