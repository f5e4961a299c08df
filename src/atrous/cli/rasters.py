"""The part of `atrous segment` that takes rasters: TIFFs with coordinates, and the very large."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from atrous.cli.progress import watched
from atrous.files import InputError

if TYPE_CHECKING:
    from atrous.infer.large import RasterSegmentation
    from atrous.infer.segmenter import Segmenter

RasterOutcome = tuple[Path, "RasterSegmentation | InputError"]


def saved_rasters(
    segmenter: "Segmenter",
    targets: Mapping[Path, Path],
    bands: tuple[int, ...],
    value_range: tuple[float, float] | None,
) -> Iterator[tuple[RasterOutcome, list[Path]]]:
    """Segment and save each raster, in order; `targets` holds its files' path without ending."""
    if not targets:
        return
    from atrous.infer.large import segment_raster

    for path, target in targets.items():
        try:
            with watched("tiles") as progress:
                result, files = segment_raster(
                    segmenter,
                    path,
                    target,
                    bands=bands,
                    value_range=value_range,
                    progress=progress,
                )
            yield (path, result), files
        except InputError as error:
            yield (path, error), []
