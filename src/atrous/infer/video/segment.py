"""Videos through a model, into files: overlay, labels, and the classes of each frame.

The overlay is H.264 in an .mp4, the labels are FFV1 in an .mkv: lossless, each grey value a train
id. Both keep the times of the frames (a Matroska file to a millisecond; the JSON file has them in
full). Decoding and encoding happen in the caller's thread, beside the network's.
"""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.draw import class_counts, legend, mix
from atrous.errors import InputError
from atrous.files import write_json
from atrous.infer.result import Result, Segmentation
from atrous.infer.segmenter import Segmenter
from atrous.infer.video.frames import Video, color_frame, label_frame, writing
from atrous.progress import Progress, silent
from atrous.taxonomy import Taxonomy
from atrous.text import amount

if TYPE_CHECKING:
    from av import VideoFrame

_OVERLAY = ("libx264", {"preset": "veryfast", "crf": "21"})
_LABELS = ("ffv1", {"level": "3", "g": "1"})


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoSegmentation(Result):
    """The labels of one video, whose frames are on disk; `seconds` include reading and writing."""

    source: str
    size: tuple[int, int]
    """(H, W) of each frame."""
    times: list[Fraction]
    """Seconds of each frame from the first one."""
    frame_shares: NDArray[np.float32]
    """(frames, K) fractions of each frame's pixels."""
    dropped: int
    """Frames that a live source gave while the network was busy."""
    has_audio: bool
    """Whether the source has sound; the files have none."""
    problem: str | None
    """The error that ended the video early."""

    @property
    def fps(self) -> float | None:
        """Frames a second in the files, on average."""
        span = float(self.times[-1])
        return (len(self.times) - 1) / span if span else None

    @property
    def shares(self) -> NDArray[np.float64]:
        """(K,) mean fraction of each frame's pixels."""
        return np.asarray(self.frame_shares.mean(0, dtype=np.float64))

    def line(self) -> str:
        """Describe the content of the files in one line."""
        parts = [amount(len(self.times), "frame")]
        parts += [f"{self.fps:.1f} a second"] if self.fps else []
        parts += [f"{self.dropped} dropped to keep up"] if self.dropped else []
        parts += ["audio left out"] if self.has_audio else []
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the JSON file without the frames. Sizes are (height, width)."""
        return {
            "video": self.source,
            "size": list(self.size),
            "frames": len(self.times),
            "dropped": self.dropped,
            "fps": self.fps and round(self.fps, 3),
            "audio": "left out" if self.has_audio else None,
            "problem": self.problem,
            **super().to_dict(),
        }

    def frames_to_dict(self) -> dict[str, Any]:
        """Return each frame's time, and each present class's fraction of each frame."""
        classes = self.taxonomy.classes
        columns = {name: self.frame_shares[:, classes.index(name)] for name in self.coverage()}
        return {
            "times": [round(float(time), 6) for time in self.times],
            "coverage_of_frames": {
                name: [round(float(share), 4) for share in column]
                for name, column in columns.items()
            },
        }


@dataclass(frozen=True, eq=False)
class _Drawn:
    """One frame, ready to be encoded."""

    overlay: "VideoFrame"
    labels: "VideoFrame"
    shares: NDArray[np.float32]  # (K,)
    time: Fraction


def segment_video(
    segmenter: Segmenter,
    video: Video,
    target: Path,
    *,
    most: int | None = None,
    progress: Progress = silent,
) -> tuple[VideoSegmentation, list[Path]]:
    """Write TARGET.overlay.mp4, TARGET.labels.mkv and TARGET.json of a video.

    Args:
        segmenter: the model.
        video: an open video; after `video.stop()` the files hold the frames up to then.
        target: path of the files without their endings.
        most: number of frames after which to stop.
        progress: called with the number of frames done and the total (0: unknown).

    Returns:
        The numbers, and the files in the order above.
    """
    endings = (".overlay.mp4", ".labels.mkv", ".json")
    files = [target.with_name(target.name + ending) for ending in endings]
    total = min(filter(None, (most, video.num_frames)), default=0)
    draw = _drawing(segmenter.metadata.taxonomy)
    drawn = segmenter.map_frames(draw, islice(video, most), live=video.live)
    start, times, shares, problem = perf_counter(), list[Fraction](), [], None
    with (
        closing(drawn),
        writing(files[0], video, *_OVERLAY) as overlay,
        writing(files[1], video, *_LABELS) as labels,
    ):
        try:
            for frame in drawn:
                overlay.add(frame.overlay, frame.time)
                labels.add(frame.labels, frame.time)
                times.append(frame.time)
                shares.append(frame.shares)
                progress(len(times), total)
        except InputError as error:
            problem = str(error)
        if not times:
            raise InputError(problem or f"{video.name}: stopped before its first frame")
    result = VideoSegmentation(
        source=video.name,
        size=(frame.labels.height, frame.labels.width),
        times=times,
        frame_shares=np.stack(shares),
        dropped=video.dropped,
        has_audio=video.has_audio,
        problem=problem,
        taxonomy=segmenter.metadata.taxonomy,
        seconds=perf_counter() - start,
        model=segmenter.description,
    )
    write_json(files[2], result.to_dict() | result.frames_to_dict(), indent=None)
    return result, files


def _drawing(taxonomy: Taxonomy) -> Callable[[Segmentation], _Drawn]:
    """Return a thread-safe function from a frame's Segmentation to the frames to encode."""
    names_and_colors = zip(taxonomy.classes, taxonomy.colors, strict=True)
    rows = [(name, math.nan, color) for name, color in names_and_colors]

    @cache
    def panel(height: int) -> Image.Image:
        return legend(rows, height)

    def draw(result: Segmentation) -> _Drawn:
        picture = mix(result.image, result.labels, taxonomy, panel(result.size[0]))
        counts = class_counts(result.labels, taxonomy.num_classes)
        assert result.time is not None
        return _Drawn(
            overlay=color_frame(_even(picture)),
            labels=label_frame(result.labels),
            shares=(counts / result.labels.size).astype(np.float32),
            time=result.time,
        )

    return draw


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add a white row or column where their number is odd: (H, W, 3)."""
    odd = ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0))
    return np.pad(image, odd, constant_values=255)
