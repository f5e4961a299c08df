"""Sample: one image with its labels, wherever it was read from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One labelled image."""

    image: NDArray[np.uint8]
    """(H, W, 3) sRGB."""
    label: NDArray[np.uint8]
    """(H, W) train ids, 255 = ignored."""
    key: str
