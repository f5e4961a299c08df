"""The bands of a file that are a network's channels, and the values of black and white."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError

_CUSTOMARY_NO_DATA = (-9999, -32767, -32768)
"""Values that mean no data in files that declare none; the least 32-bit floats do, too."""
_LEAST = -1e30
_MOST_BANDS, _MOST_CHANNELS = 65535, 256


@dataclass(frozen=True)
class Bands:
    """The bands of a file that are a network's channels, and the values of black and white."""

    numbers: tuple[int, ...] = ()
    """Bands from 1, one for each channel; none: red, green and blue, or grey three times."""
    value_range: tuple[float, float] | None = None
    """Black and white in all bands; None: 0 and 255, of 8 bits."""
    alpha: bool = True
    """Whether the fourth band of TIFFs is transparency."""
    of: int | None = None
    """Bands that a file must have, without transparency; None: any number."""

    def __post_init__(self) -> None:
        if any(not 1 <= number <= _MOST_BANDS for number in self.numbers):
            raise InputError(f"bands {self.named()}: their numbers count from 1")
        if len(self.numbers) > _MOST_CHANNELS:
            raise InputError(f"{len(self.numbers)} bands; give {_MOST_CHANNELS} at most")
        if self.value_range is not None and not 0 < -np.subtract(*self.value_range) < np.inf:
            black, white = self.value_range
            raise InputError(f"range {black:g} {white:g}: give black, then white, a larger value")

    def with_choice(
        self, numbers: tuple[int, ...], value_range: tuple[float, float] | None
    ) -> "Bands":
        """Return these bands with what is given in their place; one number is grey for colours."""
        chosen = numbers * (3 if len(numbers) == 1 and self.channels == 3 else 1) or self.numbers
        if chosen and len(chosen) != self.channels:
            wanted = "red, green and blue" if self.channels == 3 else f"the model's {self.channels}"
            example = " ".join(map(str, range(self.channels, 0, -1)))
            raise InputError(
                f"{len(chosen)} bands; say which are {wanted}, such as --bands {example}"
            )
        of = None if numbers else self.of
        return Bands(chosen, value_range or self.value_range, self.alpha, of)

    def named(self) -> str:
        """Return the numbers as an option takes them."""
        return " ".join(map(str, self.numbers))

    @property
    def channels(self) -> int:
        """C of the images."""
        return len(self.numbers) or 3

    @property
    def are_given(self) -> bool:
        """Whether the bands or values are given: then rasterio reads all files."""
        return bool(self.numbers) or self.value_range is not None


COLORS = Bands()
"""How photos are read."""


class Channels(NamedTuple):
    """The channels of a data set's images, by one of its files."""

    colors: tuple[int | None, ...] = (0, 1, 2)
    """Each one's colour: 0 red, 1 green, 2 blue; None: another or unknown."""
    of: int | None = None
    """Number of bands in the file; None where the bands were not given."""


def likely_range(values: NDArray[Any]) -> tuple[float, float]:
    """Guess black and white of values (N,): 96 in 100 of them lie within."""
    values = values[has_value(values)]
    ends = np.percentile(values, (2, 98)) if values.size else (0, 1)
    low, high = (float(f"{end:.4g}") for end in ends)
    return low, high if high > low else low + 1


def has_value(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where values are finite and do not mean "no data" by custom; of the same shape."""
    if values.dtype.kind == "u":
        return np.ones(values.shape, bool)
    customary = np.isin(values, _CUSTOMARY_NO_DATA)
    return np.asarray(np.isfinite(values) & (values > _LEAST) & ~customary)
