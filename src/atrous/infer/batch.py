"""Many photos and rasters to labelled files: search folders, segment in parallel, save.

inputs = find_inputs(["holiday", "field.tif"], Path("out"))
for source, result, files in segment_images(segmenter, inputs, segmenter.reading(...)[0]): ...
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from atrous.errors import InputError
from atrous.images import photos as photo_files
from atrous.images.bands import Bands
from atrous.images.folder import images_in
from atrous.images.pixels import is_raster
from atrous.infer.outputs import STANDARD, Kind
from atrous.infer.result import Segmentation
from atrous.infer.segmenter import Outcome, Segmenter
from atrous.infer.video.frames import is_video
from atrous.progress import Notify, Progress, Track, unheard, untracked

if TYPE_CHECKING:
    from atrous.infer.raster.segment import RasterSegmentation
    from atrous.infer.video.segment import VideoSegmentation

    AnyResult = Segmentation | RasterSegmentation | VideoSegmentation

__all__ = ["Inputs", "Saved", "find_inputs", "segment_images"]

_DARK = 1 << 13
"""A 16-bit photo whose values are all below this most likely holds fewer bits."""


class Saved(NamedTuple):
    """One input with its result, or the error if it has none."""

    source: Path | str
    result: "AnyResult | InputError"
    files: list[Path]


@dataclass(frozen=True)
class Inputs:
    """Inputs of each kind, each with the path, without ending, of its files."""

    photos: dict[Path, Path] = field(default_factory=dict)
    rasters: dict[Path, Path] = field(default_factory=dict)
    videos: dict[str, Path] = field(default_factory=dict)

    @property
    def images(self) -> dict[Path, Path]:
        """Photos and rasters."""
        return self.photos | self.rasters

    def __len__(self) -> int:
        return len(self.photos) + len(self.rasters) + len(self.videos)


def find_inputs(paths: Iterable[str], out: Path, notify: Notify = unheard) -> Inputs:
    """Sort files, folders, cameras and addresses by kind, and choose the names of their files.

    Args:
        paths: photos, rasters, videos, cameras, addresses of streams, or folders, which are
            searched for photos and rasters at any depth.
        out: folder for the files; the folders below a searched folder are kept.
        notify: called with a line about files of a folder that cannot be read.
    """
    inputs = Inputs()
    taken: set[Path] = set()
    for text in paths:
        path = Path(text)
        if is_video(text) and not path.is_dir():
            inputs.videos[text] = _free(out, _video_name(text), taken)
            continue
        for image in images_in(path, notify) if path.is_dir() else [path]:
            kind = inputs.rasters if is_raster(image) else inputs.photos
            if image not in kind:
                folder = out / image.relative_to(path).parent if path.is_dir() else out
                kind[image] = _free(folder, image, taken)
    return inputs


def _video_name(text: str) -> Path:
    """Return the file that a video's or a stream's outputs are named after."""
    address = urlsplit(text)
    if not address.netloc:
        return Path(text)
    if Path(address.path).suffix.lower() in photo_files.IMAGE_SUFFIXES:
        raise InputError(f"{text}: an address; download it first, then give the file")
    return Path(Path(address.path.strip("/") or address.hostname or "stream").name)


def _free(folder: Path, file: Path, taken: set[Path]) -> Path:
    """Take the first free name: FOLDER/STEM, FOLDER/STEM.SUFFIX, then numbered ones."""
    numbered = (f"{file.name}-{number}" for number in range(2, len(taken) + 3))
    names = (file.stem, file.name, *numbered)
    free = next(folder / name for name in names if folder / name not in taken)
    taken.add(free)
    return free


def segment_images(
    segmenter: Segmenter,
    inputs: Inputs,
    bands: Bands | None = None,
    *,
    write: Sequence[Kind] = STANDARD,
    tolerance: float = 0,
    track: Track = untracked,
    notify: Notify = unheard,
) -> Iterator[Saved]:
    """Segment and save the photos, `segmenter.calls` at a time, then the rasters.

    Args:
        segmenter: the model.
        inputs: the images, and where their files go; videos are left out.
        bands: result of `Segmenter.reading`, by default of these images; if it names bands or
            values, all images are read as rasters.
        write: which files, as of `Segmentation.save`; rasters have those of `segment_raster`.
        tolerance: by which polygons are simplified, in pixels.
        track: shows the progress of photos, and of the tiles of each raster.
        notify: called with a line about a photo whose labels are doubtful.
    """
    bands = bands or segmenter.reading([*inputs.images])[0]
    photos, rasters = inputs.photos, inputs.rasters
    if bands.are_given:
        photos, rasters = {}, inputs.images

    def save(path: Path, result: Segmentation) -> list[Path]:
        return result.save(photos[path].parent, photos[path].name, write, tolerance)

    def save_raster(path: Path, progress: Progress) -> tuple["RasterSegmentation", list[Path]]:
        from atrous.infer.raster.segment import segment_raster  # photos need not load it

        return segment_raster(
            segmenter,
            path,
            rasters[path],
            bands=bands,
            write=write,
            tolerance=tolerance,
            progress=progress,
        )

    yield from _segment_photos(segmenter, photos, bands, save, track, notify)
    yield from _segment_rasters(rasters, save_raster, track)


def _segment_photos(
    segmenter: Segmenter,
    photos: Collection[Path],
    bands: Bands,
    save: Callable[[Path, Segmentation], list[Path]],
    track: Track,
    notify: Notify,
) -> Iterator[Saved]:
    def finish(outcome: Outcome) -> Saved:
        path, result = outcome
        return Saved(path, result, [] if isinstance(result, InputError) else save(path, result))

    if not photos:
        return
    with track("photos") as progress:
        for done, saved in enumerate(segmenter.map(finish, photos, bands), start=1):
            progress(done, len(photos))
            if not isinstance(saved.result, InputError):
                _notify_doubts(Path(saved.source), notify)
            yield saved


def _segment_rasters(
    rasters: Iterable[Path],
    save: "Callable[[Path, Progress], tuple[RasterSegmentation, list[Path]]]",
    track: Track,
) -> Iterator[Saved]:
    for path in rasters:
        try:
            with track("tiles") as progress:
                saved = Saved(path, *save(path, progress))
        except InputError as error:
            saved = Saved(path, error, [])
        yield saved


def _notify_doubts(path: Path, notify: Notify) -> None:
    """Notify of reasons why the labels of a photo may be wrong."""
    if photo_files.has_frames(path):
        notify(f"{path}: several pictures; the first one is labelled")
    if 0 < (largest := photo_files.largest_of_16_bits(path) or 0) < _DARK:
        line = f"16 bits, but no value over {largest}, so it was nearly black to the model"
        white = (1 << largest.bit_length()) - 1
        notify(f"{path}: {line}; perhaps --range 0 {white}")
