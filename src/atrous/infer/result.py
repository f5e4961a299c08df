"""Results: classes of one photo, raster or video, as numbers and as files."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.draw import class_counts, fractions, overlay
from atrous.files import replacing, write_json
from atrous.images.label_maps import write_label
from atrous.images.photos import encoded
from atrous.taxonomy import Taxonomy

_MAX_JPEG_SIDE = 65_500


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The shares of the classes in an input, and how they were computed."""

    taxonomy: Taxonomy
    seconds: float
    """Time of the computation."""
    model: str
    """Model and runtime: "camvid (int8, onnxruntime, 2 threads)"."""

    @property
    def shares(self) -> NDArray[np.float64]:
        """(K,) fraction of each class."""
        raise NotImplementedError

    def coverage(self) -> dict[str, float]:
        """Return the share of each present class in the pixels with a class, largest first."""
        shares, classes = self.shares, self.taxonomy.classes
        order = np.argsort(-shares, kind="stable")
        return {classes[i]: float(shares[i]) for i in order if shares[i]}

    def line(self) -> str:
        """Return a line on what the files hold, beside labels; empty for most results."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file. Sizes are (height, width), shares are fractions."""
        return {
            "model": self.model,
            "seconds": round(self.seconds, 4),
            "classes": list(self.taxonomy.classes),
            "coverage": {name: round(share, 6) for name, share in self.coverage().items()},
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation(Result):
    """The labels of one photo; `seconds` are of the network and the upsampling."""

    image: NDArray[np.uint8]
    """(H, W, 3) sRGB, upright."""
    labels: NDArray[np.uint8] | NDArray[np.uint16]
    """(H, W) train ids."""
    source: Path | None = None
    """The file, where there is one."""
    time: Fraction | None = None
    """Seconds from the first frame, in a video."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.labels.shape[0], self.labels.shape[1]

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """(K,) fraction of each class, of pixels with a class."""
        return fractions(class_counts(self.labels, self.taxonomy.num_classes))

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Return the photo under its labels' colours, with a legend; `opacity` from 0 to 1."""
        return overlay(self.image, self.labels, self.taxonomy, opacity, self.shares)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file. Sizes are (height, width), shares are fractions."""
        source = None if self.source is None else str(self.source)
        return {"image": source, "size": list(self.size), **super().to_dict()}

    def save(self, folder: Path | str = ".", stem: str | None = None) -> list[Path]:
        """Write STEM.labels.png (value = train id), STEM.overlay.jpg and STEM.json.

        An overlay that is too long for a JPEG becomes a PNG.

        Args:
            folder: made if it is not there.
            stem: by default that of the photo's file.

        Returns:
            The files written, in the order above.
        """
        stem = stem or (self.source.stem if self.source else "image")
        picture = self.overlay()
        suffix = "jpg" if max(picture.size) <= _MAX_JPEG_SIDE else "png"
        ends = ("labels.png", f"overlay.{suffix}", "json")
        paths = [Path(folder) / f"{stem}.{end}" for end in ends]
        write_label(paths[0], self.labels, self.taxonomy, flush=False)
        write_picture(paths[1], picture, flush=False)
        write_json(paths[2], self.to_dict(), flush=False)
        return paths


def write_picture(path: Path, picture: Image.Image, *, flush: bool = True) -> None:
    """Write a picture in the format of the suffix."""
    with replacing(path, flush=flush) as temporary:
        temporary.write_bytes(encoded(picture, temporary))
