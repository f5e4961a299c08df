"""The part of `atrous segment` that takes videos, cameras and streams, until Ctrl-C."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from atrous.cli.progress import watched
from atrous.errors import InputError

if TYPE_CHECKING:
    from atrous.infer.batch import Saved
    from atrous.infer.segmenter import Segmenter
    from atrous.infer.video.frames import Video


def segment_videos(
    segmenter: "Segmenter", targets: Mapping[str, Path], num_frames: int | None
) -> "Iterator[Saved]":
    """Segment and save each video, in order; `targets` holds its files' path without ending.

    A video that ends too early is yielded twice: with its result, and with its error.
    """
    if not targets:
        return
    from atrous.infer.batch import Saved
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
def _ended_by_ctrl_c(video: "Video") -> Iterator[Event]:
    """Let Ctrl-C end the video, whose files are then finished; a second one ends everything.

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
