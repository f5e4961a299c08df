"""Results: classes of one photo, raster or video, as numbers and as files."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.draw import class_counts, fractions, overlay
from atrous.errors import InputError
from atrous.files import replacing, write_json
from atrous.images.label_maps import write_label
from atrous.images.photos import encoded
from atrous.infer.outputs import (
    STANDARD,
    Kind,
    check_kinds,
    confidence_bytes,
    write_cutouts,
    write_geojson,
    write_masks,
    write_rle,
)
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
    confidence: NDArray[np.float32] | None = None
    """(H, W) probability of each label, 0 to 1, where it was asked for."""
    certainty: float | None = None
    """How sure the network is on the whole (`atrous.infer.certainty`), where it was asked for."""
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
        sure = {} if self.certainty is None else {"certainty": round(self.certainty, 4)}
        return {"image": source, "size": list(self.size), **super().to_dict(), **sure}

    def save(
        self,
        folder: Path | str = ".",
        stem: str | None = None,
        write: Sequence[Kind] = STANDARD,
        tolerance: float = 0,
    ) -> list[Path]:
        """Write STEM.labels.png (value = train id), STEM.overlay.jpg, STEM.json, or other files.

        An overlay that is too long for a JPEG becomes a PNG.

        Args:
            folder: made if it is not there.
            stem: by default that of the photo's file.
            write: which files; docs/outputs.md describes each. "polygons" needs the extra polygons,
                "rle" the extra data, "confidence" a result of `load(..., with_confidence=True)`.
            tolerance: by which polygons are simplified, in pixels; 0: not at all.

        Returns:
            The files written, in the order of `write`.
        """
        check_kinds(write)
        stem = stem or (self.source.stem if self.source else "image")
        return [path for kind in write for path in self._write(kind, Path(folder), stem, tolerance)]

    def _write(self, kind: Kind, folder: Path, stem: str, tolerance: float) -> list[Path]:
        labels, taxonomy, path = self.labels, self.taxonomy, folder / f"{stem}.{kind}"
        if kind == "masks":
            return write_masks(path, labels, taxonomy)
        if kind == "cutouts":
            return write_cutouts(path, labels, taxonomy, self.image)
        if kind == "labels":
            path = folder / f"{stem}.labels.png"
            write_label(path, labels, taxonomy, flush=False)
        elif kind == "overlay":
            picture = self.overlay()
            suffix = "jpg" if max(picture.size) <= _MAX_JPEG_SIDE else "png"
            path = folder / f"{stem}.overlay.{suffix}"
            write_picture(path, picture, flush=False)
        elif kind == "confidence":
            if self.confidence is None:
                raise InputError("confidence: not computed; load the model with_confidence=True")
            path = folder / f"{stem}.confidence.png"
            picture = Image.fromarray(confidence_bytes(self.confidence, labels))
            write_picture(path, picture, flush=False)
        elif kind == "polygons":
            path = folder / f"{stem}.polygons.geojson"
            write_geojson(path, labels, taxonomy, tolerance, flush=False)
        elif kind == "rle":
            path = folder / f"{stem}.rle.json"
            write_rle(path, labels, taxonomy, self.source.name if self.source else stem)
        else:
            write_json(path, self.to_dict(), flush=False)
        return [path]


def write_picture(path: Path, picture: Image.Image, *, flush: bool = True) -> None:
    """Write a picture in the format of the suffix."""
    with replacing(path, flush=flush) as temporary:
        temporary.write_bytes(encoded(picture, temporary))
