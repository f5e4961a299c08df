"""Scan: every pair of a folder, read, and what the values of its masks mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import (
    check_same_size,
    color_name,
    nearest_colors,
    nearest_ids,
)
from atrous.data.schema import Labels
from atrous.doctor.findings import Finding
from atrous.doctor.labels.class_names import NO_NAMES, ClassNames
from atrous.doctor.layout.files import Layout, Pair
from atrous.doctor.scan.pairs import MaskStats, PairStats
from atrous.doctor.scan.values import ValueStats, sum_up
from atrous.errors import InputError
from atrous.images.label_maps import read_brightness


@dataclass(frozen=True, eq=False)
class Scan:
    """All that is known of a folder: the input of the checks."""

    layout: Layout
    labels: Labels
    class_of: Mapping[int, int]
    """The train id of each known value in the masks' statistics: of dataset ids, 24-bit codes, or
    what else the masks were read as."""
    ignored: tuple[int, ...]
    """The known values that no loss and no score counts."""
    pairs: Sequence[PairStats]
    findings: Sequence[Finding] = ()
    """Findings of the reader: guesses, and objects that cover no pixel."""
    no_data: frozenset[int] = frozenset()
    """Ids that GeoTIFFs declare as no data."""
    names: ClassNames = NO_NAMES
    """What a file says of the classes."""

    @property
    def folder(self) -> Path:
        """The folder."""
        return self.layout.folder

    @property
    def described(self) -> bool:
        """Return whether the folder has a dataset.toml."""
        return self.layout.origin == "dataset.toml"

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their train ids."""
        return tuple(entry.name for entry in self.labels.entries())

    def value_name(self, value: int) -> str:
        """Write a value of a mask: an id, or a colour."""
        return color_name(value) if self.labels.encoding == "rgb" else str(value)

    @cached_property
    def masks(self) -> list[tuple[Pair, MaskStats]]:
        """The pairs whose masks can be read."""
        return [(stats.pair, stats.mask) for stats in self.pairs if stats.mask]

    @cached_property
    def values(self) -> ValueStats:
        """The values of all masks together."""
        return sum_up(self.pairs, self.labels.encoding)

    @cached_property
    def class_pixels(self) -> dict[Pair, NDArray[np.int64]]:
        """(K + 1,) of each pair: pixels of each class, and last of none."""
        num_classes, train_ids = len(self.classes), self._with_nearest()
        pixels = {stats.pair: np.zeros(num_classes + 1, np.int64) for stats in self.pairs}
        for pair, mask in self.masks:
            for value, count in mask.items():
                pixels[pair][train_ids.get(value, num_classes)] += count
        return pixels

    def holding(self, *values: int) -> list[Pair]:
        """The pairs whose masks hold one of `values`."""
        return [pair for pair, mask in self.masks if np.isin(mask.values, values).any()]

    def _with_nearest(self) -> dict[int, int]:
        """Return the class of each value, also of unknown ones that count as the nearest one."""
        known = [*self.class_of, *self.ignored]
        if self.labels.unknown != "nearest" or not known:
            return dict(self.class_of)
        values = self.values.values
        unknown = values[~np.isin(values, known) & (values >= 0)]
        find = nearest_colors if self.labels.encoding == "rgb" else nearest_ids
        near = dict(zip(unknown.tolist(), find(unknown, known).tolist(), strict=True))
        train_ids = {v: self.class_of[code] for v, code in near.items() if code in self.class_of}
        return {**self.class_of, **train_ids}

    def with_checked_fields_of_view(self) -> "Scan":
        """Count a mask as unreadable whose field of view is damaged, or of another size."""

        def checked(stats: PairStats) -> PairStats:
            pattern = self.layout.splits[stats.pair.split].valid
            if not pattern or stats.mask is None:
                return stats
            path = self.folder / pattern.replace("{key}", stats.pair.key)
            try:
                check_same_size(read_brightness(path), np.empty(stats.mask_size), path)
            except InputError as error:
                return replace(stats, mask=None, mask_error=str(error))
            return stats

        return replace(self, pairs=[checked(stats) for stats in self.pairs])
