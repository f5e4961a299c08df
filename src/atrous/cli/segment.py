"""`atrous segment`: photos and folders to labels, overlays and coverage."""

import json
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from atrous.cli.options import MODEL_DEFAULTS, Count, Json, ModelOptions
from atrous.cli.progress import say, track
from atrous.errors import InputError
from atrous.infer.batch import Saved, find_inputs, segment_images
from atrous.infer.certainty import OTHER, SHIPPED, UNSURE
from atrous.infer.outputs import STANDARD, Kind
from atrous.infer.result import Segmentation
from atrous.infer.segmenter import Segmenter
from atrous.infer.video.frames import Video
from atrous.taxonomy import Taxonomy
from atrous.text import percent_share

if TYPE_CHECKING:
    from atrous.infer.batch import AnyResult

_BAR_WIDTH = 44
"""Columns of a bar for the whole area: with the names, a table stays within 80 columns."""
_MAX_ROWS = 8
"""Classes that a table shows; the smaller ones are summed up."""
PHOTOS_AT_A_TIME = 4
"""Most photos in the network at a time, one for each thread; limits the memory."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How images and videos are read."""

    tile: int | None = None
    """Side of the tiles that images are cut into, a multiple of 128 pixels; by default 1024 for
    images over 4 million pixels. 0: no tiles."""
    bands: tuple[int, ...] = ()
    """Numbers, from 1, of a TIFF's red, green and blue band, or of a grey band; by default the
    bands that the model was trained on."""
    value_range: Annotated[tuple[float, float] | None, Parameter(name="--range")] = None
    """Values of a TIFF that are black and white, if it does not have 8 bits."""
    frames: Count | None = None
    """Number of frames of a video to label; by default all."""


_INPUT_DEFAULTS = InputOptions()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Which files are written."""

    write: Annotated[tuple[Kind, ...], Parameter(show_default=False)] = STANDARD
    """Files to write of each photo: labels, overlay and json by default; confidence (as grey, 255:
    certain), polygons (GeoJSON), rle (a COCO JSON), cutouts and masks (a PNG for each class). Of a
    raster all but the last three."""
    tolerance: Annotated[float, Parameter(validator=Number(gte=0))] = 0
    """Simplify the polygons by about this many pixels; by default they follow each pixel."""


_OUTPUT_DEFAULTS = OutputOptions()


def segment(
    *paths: Annotated[str, Parameter(required=True)],
    model: str | None = None,
    out: Path = Path(),
    model_options: ModelOptions = MODEL_DEFAULTS,
    input_options: InputOptions = _INPUT_DEFAULTS,
    output_options: OutputOptions = _OUTPUT_DEFAULTS,
    json_output: Json = False,
) -> int:
    """Label photos: write NAME.labels.png, NAME.overlay.jpg and NAME.json of each, or others.

    A video, a camera or a stream gives NAME.overlay.mp4, NAME.labels.mkv and NAME.json.

    Args:
        paths: Photos, folders that are searched for photos, videos (clip.mp4), cameras
            (/dev/video0), or addresses of streams (rtsp://..., http://...). Ctrl-C ends a stream.
        model: Name of a shipped or published model, hf://OWNER/NAME, a bundle (.onnx), or a
            run folder; by default camvid, for streets.
        out: Folder for the files; by default the current one.
        model_options: How the model is run.
        input_options: How images and videos are read.
        output_options: Which files are written.
        json_output: Print one JSON document instead of tables.

    Returns:
        The exit code: 2 where a photo could not be read, 0 otherwise.
    """
    inputs, options = find_inputs(paths, out, say), input_options
    write, tolerance = output_options.write, output_options.tolerance
    _check_write(write, tolerance, has_videos=bool(inputs.videos))
    is_large = inputs.rasters or inputs.videos or options.bands or options.value_range
    calls = PHOTOS_AT_A_TIME if is_large else min(len(inputs.photos), PHOTOS_AT_A_TIME)
    segmenter = model_options.load(
        model or SHIPPED,
        calls,
        options.tile,
        with_confidence="confidence" in write,
        with_certainty=model is None,
    )
    reading, line = segmenter.reading([*inputs.images], options.bands, options.value_range)
    if line:
        say(line)
    results: Iterator[Saved] = chain(
        segment_images(
            segmenter,
            inputs,
            reading,
            write=write,
            tolerance=tolerance,
            track=track,
            notify=say,
        ),
        _segment_videos(segmenter, inputs.videos, options.frames),
    )
    if model is None:
        results = _advised(results)
    if json_output:
        return _print_json(results)
    return _print_tables(results, segmenter.metadata.taxonomy, len(inputs))


def _check_write(write: Sequence[Kind], tolerance: float, *, has_videos: bool) -> None:
    if has_videos and write != STANDARD:
        raise InputError("--write: videos have labels, overlay and json; leave it out for them")
    if tolerance and "polygons" not in write:
        raise InputError("--tolerance simplifies polygons; add --write polygons")


def _advised(results: Iterable[Saved]) -> Iterator[Saved]:
    """Pass results on; at last say, in one line, if photos look unlike those the model knows."""
    photos, unlike = 0, []
    for saved in results:
        sure = saved.result.certainty if isinstance(saved.result, Segmentation) else None
        photos += sure is not None
        if sure is not None and sure < UNSURE:
            unlike.append(str(saved.source))
        yield saved
    if unlike:
        which = f"{unlike[0]} looks" if photos == 1 else f"{len(unlike)} of {photos} photos look"
        say(f"{which} unlike the streets that {SHIPPED} knows; try --model {OTHER}")


def _segment_videos(
    segmenter: Segmenter, targets: Mapping[str, Path], num_frames: int | None
) -> Iterator[Saved]:
    """Segment and save each video, in order.

    A video that ends too early is yielded twice: with its result, and with its error.

    Args:
        segmenter: the model.
        targets: video -> path of its files without their endings.
        num_frames: frames of each video to label; None: all.
    """
    from atrous.infer.video.segment import segment_video  # photos need not load it

    for source, target in targets.items():
        try:
            with (
                Video(source) as video,
                _ended_by_ctrl_c(video) as interrupted,
                track("frames") as progress,
            ):
                result, files = segment_video(
                    segmenter, video, target, most=num_frames, progress=progress
                )
        except InputError as error:
            yield Saved(source, error, [])
            continue
        yield Saved(source, result, files)
        if result.problem:
            yield Saved(source, InputError(result.problem), [])
        if interrupted.is_set() and not video.live:
            raise KeyboardInterrupt


@contextmanager
def _ended_by_ctrl_c(video: Video) -> Iterator[Event]:
    """Let Ctrl-C end the video and finish its files; a second Ctrl-C ends the program.

    Yields:
        The event that the first Ctrl-C sets.
    """
    interrupted = Event()

    def stop(*_: object) -> None:
        interrupted.set()
        video.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _print_json(results: Iterable[Saved]) -> int:
    """Print one document; return the exit code."""
    documents: dict[str, list[Any]] = {"images": [], "videos": [], "errors": []}
    for source, result, files in results:
        if isinstance(result, InputError):
            documents["errors"].append(str(result))
            say(f"error: {result}")
        else:
            kind = "images" if isinstance(source, Path) else "videos"
            documents[kind].append({**result.to_dict(), "files": [str(file) for file in files]})
    print(json.dumps(documents, indent=2))
    return 2 if documents["errors"] else 0


def _print_tables(results: Iterable[Saved], taxonomy: Taxonomy, count: int) -> int:
    """Print a table of each result, then a summary of all `count` inputs; return the exit code."""
    done, exit_code, block = 0, 0, _block()
    for source, result, files in results:
        if isinstance(result, InputError):
            exit_code = 2
            say(f"error: {result}")
        else:
            print(_table(source, result, files, block))
            done += 1
    if count > 1:
        print(f"{done} of {count} photos segmented")
    if done:
        classes = taxonomy.classes
        shown = ", ".join(classes[:4]) + (", ..." if len(classes) > 4 else "")
        print(f"This model knows {len(classes)} classes ({shown}). Others: atrous models")
    return exit_code


def _table(source: Path | str, result: "AnyResult", files: Sequence[Path], block: str) -> str:
    """Return the classes of one input, largest first, as bars of `block`, and its files."""
    height, width = result.size
    took = f"{1000 * result.seconds:.0f} ms" if result.seconds < 10 else f"{result.seconds:.0f} s"
    lines = [f"{source}  {width}x{height}  {result.model}  {took}"]
    rows = list(result.coverage().items())
    name_width = min(28, max((len(name) for name, _ in rows), default=0))
    for name, share in rows[:_MAX_ROWS]:
        bar = block * round(share * _BAR_WIDTH)
        lines.append(f"  {name:<{name_width}}  {percent_share(share):>7}  {bar}".rstrip())
    if rest := sum(share for _, share in rows[_MAX_ROWS:]):
        lines.append(f"  {'others':<{name_width}}  {percent_share(rest):>7}")
    if line := result.line():
        lines.append(f"  {line}")
    # One name for all the classes' pictures of a kind.
    names = (f"{f.parent}/" if f.parent.suffix in (".masks", ".cutouts") else str(f) for f in files)
    lines.append("wrote  " + "  ".join(dict.fromkeys(names)))
    return "\n".join(lines)


def _block() -> str:
    """Return a full block, or # where standard output cannot write one."""
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#"
    return "█"
