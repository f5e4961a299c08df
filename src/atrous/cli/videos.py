"""The part of `atrous segment` that takes videos, cameras and streams."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from atrous.cli.progress import watched
from atrous.errors import InputError

if TYPE_CHECKING:
    from atrous.infer.segmenter import Segmenter
    from atrous.infer.video.frames import Video
    from atrous.infer.video.segment import VideoSegmentation

VideoOutcome = tuple[str, "VideoSegmentation | InputError"]


def saved_videos(
    segmenter: "Segmenter", targets: Mapping[str, Path], most: int | None
) -> Iterator[tuple[VideoOutcome, list[Path]]]:
    """Segment and save each video, in order; `targets` holds its files' path without ending.

    One that ends before its time is yielded twice: as it is, and as what was wrong.
    """
    if not targets:
        return
    from atrous.infer.video.frames import Video
    from atrous.infer.video.segment import segment_video

    for source, target in targets.items():
        try:
            with (
                Video(source) as video,
                _ended_by_ctrl_c(video) as interrupted,
                watched("frames") as progress,
            ):
                result, files = segment_video(
                    segmenter, video, target, most=most, progress=progress
                )
        except InputError as error:
            yield (source, error), []
            continue
        yield (source, result), files
        if result.problem:
            yield (source, InputError(result.problem)), []
        if interrupted.is_set() and not video.live:
            raise KeyboardInterrupt


@contextmanager
def _ended_by_ctrl_c(video: "Video") -> Iterator[Event]:
    """Let Ctrl-C end the video, whose files are then finished; a second one ends everything.

    Yields:
        What is set by the first.
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
