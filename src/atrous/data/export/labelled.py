"""What is exported: one image with its label map."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Labelled(NamedTuple):
    """An image file and its labels."""

    key: str
    """Its path in the exported folder, from that of its split, without a suffix."""
    image: Path
    labels: NDArray[np.uint8]
    """(H, W) train ids, 255: ignored."""

    @property
    def name(self) -> str:
        """The path of the image in the exported folder, from that of its split."""
        return self.key + self.image.suffix

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.labels.shape[0], self.labels.shape[1]
