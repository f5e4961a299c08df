"""Every pair of a folder, read: what readers of all kinds of masks return."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from atrous.data.encodings.masks import check_same_size
from atrous.doctor.census import Census, take_census
from atrous.doctor.findings import Finding
from atrous.doctor.scheme import Scheme
from atrous.doctor.splits import Files, Layout
from atrous.doctor.survey import Pair, Reading
from atrous.errors import InputError
from atrous.images.label_maps import read_brightness


@dataclass(frozen=True, eq=False)
class Seen:
    """Every pair, read; and what the values of the masks mean."""

    scheme: Scheme
    places: Mapping[int, int]
    """The class of each value in the tallies: of dataset ids, or where these are drawn, train ids.
    """
    readings: Sequence[Reading]
    blurred: Sequence[bool]
    """Of each reading, whether its mask's edges are."""
    findings: Sequence[Finding] = ()
    """What was guessed on the way, or draws nothing."""
    no_data: frozenset[int] = frozenset()
    """Ids that GeoTIFFs declare as no data."""


def with_views(layout: Layout, seen: Seen) -> Seen:
    """Count the mask of a pair as unreadable whose field of view is damaged, or of another size."""

    def checked(reading: Reading) -> Reading:
        pattern = layout.splits[reading.pair.split].valid
        if not pattern or reading.tally is None:
            return reading
        path = layout.folder / pattern.replace("{key}", reading.pair.key)
        try:
            check_same_size(read_brightness(path), np.empty(reading.mask_size), path)
        except InputError as error:
            return replace(reading, tally=None, mask_error=str(error))
        return reading

    return replace(seen, readings=[checked(reading) for reading in seen.readings])


def census_of(readings: Sequence[Reading], blurred: Sequence[bool], encoding: str) -> Census:
    """The values of all masks together, which `encoding` says the kind of."""
    both = [(r.tally, b) for r, b in zip(readings, blurred, strict=True) if r.tally]
    tallies = [tally for tally, _ in both]
    return take_census(tallies, [is_blurred for _, is_blurred in both], encoding)


def pairs_of(splits: Mapping[str, Files]) -> list[Pair]:
    """The pairs of all splits, in order."""
    return [
        Pair(split, key, files.image(key), _mask_name(files, key), files.bands)
        for split, files in splits.items()
        for key in files.keys
    ]


def _mask_name(files: Files, key: str) -> str:
    """The path of a mask; where one JSON holds all masks, that and the image."""
    mask = files.mask(key)
    return mask if "{key}" in files.labels else f"{mask}, {files.image(key)}"
