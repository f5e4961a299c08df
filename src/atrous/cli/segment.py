"""`atrous segment`: photos and folders to labels, overlays and coverage."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from cyclopts import Parameter
from cyclopts.validators import Number

from atrous.cli.progress import resolved, watched
from atrous.cli.rasters import saved_rasters
from atrous.cli.videos import saved_videos
from atrous.errors import InputError
from atrous.files import walk

if TYPE_CHECKING:
    from atrous.images.bands import Bands
    from atrous.infer.raster.segment import RasterSegmentation
    from atrous.infer.segmenter import Outcome, Segmentation, Segmenter
    from atrous.infer.video.segment import VideoSegmentation

    Result = Segmentation | RasterSegmentation | VideoSegmentation
    Saved = tuple[tuple[Path | str, Result | InputError], list[Path]]

_BAR_WIDTH = 44
"""Of the whole area, in characters: with the names, a table stays within 80 columns."""
_MOST_ROWS = 8
"""Classes that a table shows; the smaller ones are summed up."""
PHOTOS_AT_A_TIME = 4
"""In the network, where there are as many threads; it bounds the memory, too."""
_DARK = 1 << 13
"""A photo of 16 bits without a larger value is of fewer bits, most likely."""
_OWN_ENDINGS = (".labels.png", ".labels.tif", ".overlay.jpg", ".overlay.png")


def segment(
    *paths: Annotated[str, Parameter(required=True)],
    model: str = "camvid",
    out: Path = Path(),
    runtime: str = "auto",
    threads: int | None = None,
    tile: int | None = None,
    flip: Annotated[bool, Parameter(negative=())] = False,
    scales: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative=())] = (),
    crf: str | None = None,
    bands: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative=())] = (),
    value_range: Annotated[
        tuple[float, float] | None, Parameter(name="--range", negative=())
    ] = None,
    frames: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Label photos: writes NAME.labels.png, NAME.overlay.jpg and NAME.json of each.

    Of a video, a camera or a stream: NAME.overlay.mp4, NAME.labels.mkv and NAME.json.

    Args:
        paths: Photos, folders that are searched for photos, videos (clip.mp4), cameras
            (/dev/video0), or addresses of streams (rtsp://..., http://...). Ctrl-C ends a stream.
        model: Name of a shipped or published model, a bundle (.onnx), or a run folder.
        out: Folder for the files; by default the current one.
        runtime: What computes: auto, onnxruntime, openvino, openvino:bf16, torch, ...; auto takes
            what `atrous bench` found fastest here.
        threads: How many to use; by default as many as this process may run on.
        tile: Side of the tiles that images are taken in, a multiple of 128 pixels; by default 1024
            for images over 4 million pixels. 0: never.
        flip: See each image mirrored, too, and take the mean: slower, and better as a rule.
        scales: See each image at these parts of its size, such as 1 1.25 1.5, and take the mean.
        crf: Refine the labels by a dense CRF, with these parameters: deeplab, kazuto or
            kraehenbuehl.
        bands: Which bands of a TIFF are red, green and blue, counted from 1; or a grey one; or
            those that the model was trained on, which it takes by default.
        value_range: Which values of a TIFF are black and white, if it has not 8 bits.
        frames: How many of a video to take; by default all.
        json_output: Print one JSON document instead of tables.

    Returns:
        The exit code: 2 where a photo could not be read, 0 otherwise.
    """
    # for the sake of `atrous segment --help`
    from atrous.images.pixels import is_raster
    from atrous.infer.segmenter import load

    targets, videos = _targets(paths, out)
    rasters = {p: t for p, t in targets.items() if bands or value_range or is_raster(p)}
    calls = PHOTOS_AT_A_TIME if rasters or videos else min(len(targets), PHOTOS_AT_A_TIME)
    segmenter = load(resolved(model), threads, runtime, calls, tile, flip, scales, crf)
    reading, said = segmenter.reading([*targets], bands, value_range)
    if said:
        print(said, file=sys.stderr)
    if reading.are_said:  # by the model itself, where no option says it
        rasters = targets
    photos = {p: t for p, t in targets.items() if p not in rasters}
    documents: dict[str, list[dict[str, Any]]] = {"images": [], "videos": []}
    failures: list[str] = []
    block, done = _block(), 0
    saved: Iterable[Saved] = chain(
        _saved(segmenter, photos, reading),
        saved_rasters(segmenter, rasters, reading),
        saved_videos(segmenter, videos, frames),
    )
    for outcome, files in saved:
        path, result = outcome
        if isinstance(result, InputError):
            failures.append(str(result))
            print(f"error: {result}", file=sys.stderr)
            continue
        if path in photos:
            _say_doubts(Path(path), reading)
        if json_output:
            document = {**result.to_dict(), "files": [str(file) for file in files]}
            documents["videos" if path in videos else "images"].append(document)
        else:
            print(_table(path, result, files, block))
            done += 1
    if json_output:
        print(json.dumps({**documents, "errors": failures}, indent=2))
    else:
        _print_end(segmenter, len(targets) + len(videos), done)
    return 2 if failures else 0


def _targets(paths: Sequence[str], out: Path) -> tuple[dict[Path, Path], dict[str, Path]]:
    """Return the photos and the videos, each with the path, without ending, of its files."""
    from atrous.images.photos import IMAGE_SUFFIXES
    from atrous.infer.video.frames import is_video

    targets: dict[Path, Path] = {}
    videos: dict[str, Path] = {}
    taken: set[Path] = set()
    for text in paths:
        path = Path(text)
        if is_video(text) and not path.is_dir():
            address = urlsplit(text)
            if address.netloc and Path(address.path).suffix.lower() in IMAGE_SUFFIXES:
                raise InputError(f"{text}: an address; download it first, then give the file")
            name = Path(address.path.strip("/") or address.hostname or "stream").name
            videos[text] = _free(out, Path(name) if address.netloc else path, taken)
            taken.add(videos[text])
            continue
        for photo in _photos_in(path) if path.is_dir() else [path]:
            place = out / (photo.relative_to(path).parent if path.is_dir() else "")
            if photo not in targets:
                targets[photo] = _free(place, photo, taken)
                taken.add(targets[photo])
    return targets, videos


def _free(place: Path, photo: Path, taken: set[Path]) -> Path:
    """Return PLACE/STEM; where that is taken, PLACE/STEM.SUFFIX; then with a number."""
    names = [photo.stem, photo.name] + [
        f"{photo.name}-{number}" for number in range(2, len(taken) + 3)
    ]
    return next(place / name for name in names if place / name not in taken)


def _photos_in(folder: Path) -> list[Path]:
    """Return the photos at any depth, sorted; without hidden ones and without what atrous wrote."""
    from atrous.images.photos import IMAGE_SUFFIXES, UNREAD_SUFFIXES

    files = [
        path
        for path in sorted(folder / name for name in walk(folder))
        if path.suffix.lower() in IMAGE_SUFFIXES + UNREAD_SUFFIXES
        and not path.name.endswith(_OWN_ENDINGS)
    ]
    unread = _say_unread(files)
    if not (photos := [path for path in files if path not in unread]):
        raise InputError(
            f"{folder}: no photos in this folder; give one that holds JPEG, PNG or the like"
        )
    return photos


def _say_unread(files: Sequence[Path]) -> set[Path]:
    """Name the photos whose format cannot be read, and return them."""
    from atrous.doctor.findings import some
    from atrous.images.photos import (
        HEIF_INSTALL,
        HEIF_SUFFIXES,
        UNREAD_SUFFIXES,
        can_read_heif,
        is_heif,
    )

    others = [path for path in files if path.suffix.lower() in UNREAD_SUFFIXES]
    suspects = [] if can_read_heif() else [p for p in files if p.suffix.lower() in HEIF_SUFFIXES]
    heif = [path for path in suspects if is_heif(path)]
    for paths, fix in (
        (others, "of a format that is not read: convert to JPEG, PNG or TIFF"),
        (heif, f"HEIC, which an extra reads: {HEIF_INSTALL}"),
    ):
        if paths:
            print(f"passed over: {some(map(str, paths))}: {fix}", file=sys.stderr)
    return {*others, *heif}


def _say_doubts(path: Path, bands: "Bands") -> None:
    """Say of a photo that was labelled what its labels may not be of."""
    from atrous.images.photos import has_frames, largest_of_16_bits

    if has_frames(path):
        print(f"{path}: several pictures; the first one is labelled", file=sys.stderr)
    if bands.value_range is None and 0 < (largest := largest_of_16_bits(path) or 0) < _DARK:
        line = f"16 bits, but no value over {largest}, so it was nearly black to the model"
        white = (1 << largest.bit_length()) - 1
        print(f"{path}: {line}; perhaps --range 0 {white}", file=sys.stderr)


def _saved(
    segmenter: "Segmenter", targets: dict[Path, Path], bands: "Bands"
) -> Iterator[tuple["Outcome", list[Path]]]:
    """Segment and save each photo, in order."""

    def save(outcome: "Outcome") -> tuple["Outcome", list[Path]]:
        path, result = outcome
        if isinstance(result, InputError):
            return outcome, []
        return outcome, result.save(targets[path].parent, targets[path].name)

    with watched("photos") as progress:
        for count, saved in enumerate(segmenter.map(save, targets, bands), start=1):
            progress(count, len(targets))
            yield saved


def _table(path: Path | str, result: "Result", files: Sequence[Path], block: str) -> str:
    """Return what a person sees of one photo: its classes, largest first, and the files."""
    from atrous.infer.video.segment import VideoSegmentation

    height, width = result.size
    seconds = result.seconds
    took = f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"
    lines = [f"{path}  {width}x{height}  {result.model}  {took}"]
    rows = list(result.coverage().items())
    name_width = min(28, max((len(name) for name, _ in rows), default=0))
    for name, share in rows[:_MOST_ROWS]:
        bar = block * round(share * _BAR_WIDTH)
        lines.append(f"  {name:<{name_width}}  {100 * share:5.1f} %  {bar}".rstrip())
    if rest := sum(share for _, share in rows[_MOST_ROWS:]):
        lines.append(f"  {'others':<{name_width}}  {100 * rest:5.1f} %")
    if isinstance(result, VideoSegmentation):
        lines.append(f"  {result.line()}")
    lines.append("wrote  " + "  ".join(str(file) for file in files))
    return "\n".join(lines)


def _block() -> str:
    """Return a full block, or # where standard output cannot write one."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#"
    return "█"


def _print_end(segmenter: "Segmenter", count: int, done: int) -> None:
    if count > 1:
        print(f"{done} of {count} photos segmented")
    if not done:
        return
    classes = segmenter.metadata.taxonomy.classes
    shown = ", ".join(classes[:4]) + (", ..." if len(classes) > 4 else "")
    print(f"This model knows {len(classes)} classes ({shown}). Others: atrous models")
