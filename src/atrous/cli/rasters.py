"""The part of `atrous segment` that takes rasters: TIFFs with coordinates, and the very large."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from atrous.cli.progress import watched
from atrous.errors import InputError

if TYPE_CHECKING:
    from atrous.data.dataset import Dataset
    from atrous.images.bands import Bands
    from atrous.infer.raster.segment import RasterSegmentation
    from atrous.infer.segmenter import Segmenter


def say_fourth_band(dataset: "Dataset") -> None:
    """Say what a fourth band of the data set's TIFFs was taken for, if there is one."""
    if said := dataset.fourth_band[1]:
        print(said, file=sys.stderr)


RasterOutcome = tuple[Path, "RasterSegmentation | InputError"]


def saved_rasters(
    segmenter: "Segmenter",
    targets: Mapping[Path, Path],
    bands: "Bands",
) -> Iterator[tuple[RasterOutcome, list[Path]]]:
    """Segment and save each raster, in order; `targets` holds its files' path without ending."""
    if not targets:
        return
    from atrous.infer.raster.segment import segment_raster

    for path, target in targets.items():
        try:
            with watched("tiles") as progress:
                result, files = segment_raster(
                    segmenter,
                    path,
                    target,
                    bands=bands,
                    progress=progress,
                )
            yield (path, result), files
        except InputError as error:
            yield (path, error), []
