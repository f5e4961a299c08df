"""Which bands of a file are a network's channels, and which values are black and white."""

from dataclasses import dataclass
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError

_LARGEST = 1e30
"""Of values; a NaN is not below it, either."""
_CUSTOMARY_NO_DATA = (-9999, -32767, -32768)
"""What files hold that do not declare it, as well as the least of 32-bit floats."""
_LEAST = -1e30
_MOST_BANDS, _MOST_CHANNELS = 65535, 256


@dataclass(frozen=True)
class Bands:
    """Which bands of a file are a network's channels, and which values are black and white."""

    numbers: tuple[int, ...] = ()
    """From 1, one for each channel; none: red, green and blue, or grey three times."""
    value_range: tuple[float, float] | None = None
    """Black and white of all bands; None: 0 and 255, of 8 bits."""
    alpha: bool = True
    """Whether the fourth band of TIFFs is transparency."""
    of: int | None = None
    """How many bands a file must have, without transparency; None: any that has these."""

    def __post_init__(self) -> None:
        if any(not 1 <= number <= _MOST_BANDS for number in self.numbers):
            raise InputError(f"bands {self.named()}: their numbers count from 1")
        if len(self.numbers) > _MOST_CHANNELS:
            raise InputError(f"{len(self.numbers)} bands; give {_MOST_CHANNELS} at most")
        if self.value_range is not None and not 0 < -np.subtract(*self.value_range) < np.inf:
            black, white = self.value_range
            raise InputError(f"range {black:g} {white:g}: give black, then white, a larger value")

    @classmethod
    def read(cls, numbers: Any, value_range: Any) -> "Bands":
        """Read the two from TOML or JSON, where either may be missing.

        Raises:
            InputError: they are no such values.
        """
        if numbers is not None and not (
            isinstance(numbers, list) and numbers and all(type(number) is int for number in numbers)
        ):
            raise InputError(f"bands is {short(numbers)}; give numbers, such as [4, 3, 2, 1]")
        if value_range is not None and not (
            isinstance(value_range, list)
            and len(value_range) == 2
            and all(type(v) in (int, float) and abs(v) < _LARGEST for v in value_range)
        ):
            raise InputError(f"range is {short(value_range)}; give two values, such as [0, 10000]")
        pair = None if value_range is None else (float(value_range[0]), float(value_range[1]))
        return cls(tuple(numbers or ()), pair)

    def to_dict(self) -> dict[str, list[int] | list[float]]:
        """The fields of a dataset.toml or run.json that `read` reads back; none by default."""
        fields: dict[str, list[int] | list[float]] = {}
        if self.numbers:
            fields["bands"] = list(self.numbers)
        if self.value_range is not None:
            fields["range"] = list(self.value_range)
        return fields

    def toml_lines(self) -> list[str]:
        """The lines of a dataset.toml that say how images are read, where that must be said."""
        lines = [f"{field} = {values}" for field, values in self.to_dict().items()]
        return lines if self.alpha else [*lines, "alpha = false"]

    def named(self) -> str:
        """The numbers, as an option takes them."""
        return " ".join(map(str, self.numbers))

    @property
    def channels(self) -> int:
        """C of the images that are read."""
        return len(self.numbers) or 3

    @property
    def are_said(self) -> bool:
        """Whether the bands or values were named: then rasterio reads all files."""
        return bool(self.numbers) or self.value_range is not None


COLORS = Bands()
"""How photos are read."""


class Channels(NamedTuple):
    """What the channels of a set's images are, by one of its files."""

    colors: tuple[int | None, ...] = (0, 1, 2)
    """What each shows: 0 red, 1 green, 2 blue; None: another, or nobody knows."""
    of: int | None = None
    """How many bands the file has; None where the bands were not named."""


def likely_range(values: NDArray[Any]) -> tuple[float, float]:
    """Black and white of values (N,), as a guess: 96 in 100 of them lie within."""
    values = values[has_value(values)]
    ends = np.percentile(values, (2, 98)) if values.size else (0, 1)
    low, high = (float(f"{end:.4g}") for end in ends)
    return low, high if high > low else low + 1


def has_value(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where values are finite, and none that say "no data" by custom; of the same shape."""
    if values.dtype.kind == "u":
        return np.ones(values.shape, bool)
    customary = np.isin(values, _CUSTOMARY_NO_DATA)
    return np.asarray(np.isfinite(values) & (values > _LEAST) & ~customary)
