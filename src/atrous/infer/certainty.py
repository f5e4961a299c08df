"""How sure a network is of a photo on the whole: a hint that the photo is none of its kind.

The shipped model knows streets and labels everything as a street. docs/weights.md says how the
statistic and its threshold were chosen.
"""

import numpy as np
from numpy.typing import NDArray

SHIPPED = "camvid"
"""The model that is taken where none is named."""

OTHER = "google/deeplabv3plus_mobilenetv2_ade20k"
"""The model to try for a photo of which the shipped one is unsure."""

UNSURE = 0.94
"""Below this certainty a photo is most likely none that the shipped model knows."""

_CELLS = 4096
"""Most cells that are looked at, about: a photo of any size costs the same."""


def certainty_of(logits: NDArray[np.float32]) -> float:
    """Return the mean over the cells of logits (K, h, w) of the largest probability, 0 to 1."""
    step = max(1, round((logits[0].size / _CELLS) ** 0.5))
    cells = logits[:, ::step, ::step]  # (K, n, m)
    return float((1 / np.exp(cells - cells.max(0)).sum(0)).mean())
