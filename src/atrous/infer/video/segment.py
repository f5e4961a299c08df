"""Videos through a model, into files: overlay, labels, and what each frame shows.

The overlay is H.264 in an .mp4, the labels are FFV1 in an .mkv: lossless, each grey value a train
id. Both keep the times of the frames (a Matroska file to a millisecond; the JSON file has them in
full). Decoding and encoding happen in the caller's thread, beside the network's.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
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

from atrous.draw import legend, mix
from atrous.errors import InputError
from atrous.files import replacing
from atrous.infer.segmenter import Segmentation, Segmenter
from atrous.infer.video.frames import Video, VideoWriter, color_frame, label_frame
from atrous.progress import Progress
from atrous.taxonomy import Taxonomy

if TYPE_CHECKING:
    from av import VideoFrame

ENDINGS = (".overlay.mp4", ".labels.mkv", ".json")
_OVERLAY = ("libx264", {"preset": "veryfast", "crf": "21"})
_LABELS = ("ffv1", {"level": "3", "g": "1"})


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoSegmentation:
    """What the model saw in one video, whose frames are on disk."""

    source: str
    size: tuple[int, int]
    """(H, W) of each frame."""
    times: list[Fraction]
    """Seconds of each frame from the first one."""
    shares: NDArray[np.float32]
    """(frames, K) fractions of each frame's pixels."""
    dropped: int
    """Frames that a live source gave while the network was busy."""
    has_audio: bool
    """Whether the source has sound, which the files have not."""
    problem: str | None
    """What ended the video before its time."""
    taxonomy: Taxonomy
    seconds: float
    """From the first frame read to the last one written."""
    model: str
    """Which model and runtime: "camvid (int8, onnxruntime, 2 threads)"."""

    @property
    def fps(self) -> float | None:
        """Frames a second that are in the files, on average."""
        span = float(self.times[-1])
        return (len(self.times) - 1) / span if span else None

    def coverage(self) -> dict[str, float]:
        """Return the mean fraction of the pixels of each class that is present, largest first."""
        means = self.shares.mean(0, dtype=np.float64)  # (K,)
        order = np.argsort(-means, kind="stable")
        return {self.taxonomy.classes[i]: float(means[i]) for i in order if means[i]}

    def line(self) -> str:
        """Say in one line what the files hold."""
        count = len(self.times)
        parts = [f"{count} frame{'s' * (count != 1)}"]
        parts += [f"{self.fps:.1f} a second"] if self.fps else []
        parts += [f"{self.dropped} dropped to keep up"] if self.dropped else []
        parts += ["audio left out"] if self.has_audio else []
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds, but for the frames. Sizes are (height, width)."""
        return {
            "video": self.source,
            "size": list(self.size),
            "frames": len(self.times),
            "dropped": self.dropped,
            "fps": self.fps and round(self.fps, 3),
            "audio": "left out" if self.has_audio else None,
            "problem": self.problem,
            "model": self.model,
            "seconds": round(self.seconds, 4),
            "classes": list(self.taxonomy.classes),
            "coverage": {name: round(share, 6) for name, share in self.coverage().items()},
        }

    def frames_to_dict(self) -> dict[str, Any]:
        """Return each frame's time, and each present class's fraction of each frame."""
        indices = [self.taxonomy.classes.index(name) for name in self.coverage()]
        return {
            "times": [round(float(time), 6) for time in self.times],
            "coverage_of_frames": {
                self.taxonomy.classes[i]: [round(float(share), 4) for share in self.shares[:, i]]
                for i in indices
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
    progress: Progress | None = None,
) -> tuple[VideoSegmentation, list[Path]]:
    """Write TARGET.overlay.mp4, TARGET.labels.mkv and TARGET.json of a video.

    Args:
        segmenter: the model.
        video: an open one; `video.stop()` ends it early, and the files hold what came before.
        target: path of the files without their endings.
        most: frames after which to stop.
        progress: told how many frames are done, and of how many (0: nobody knows).

    Returns:
        The numbers, and the files in the order above.

    Raises:
        InputError: not one frame could be read.
        OSError: the disk is full or the folder cannot be written.
    """
    files = [target.with_name(target.name + ending) for ending in ENDINGS]
    total = min(filter(None, (most, video.num_frames)), default=0)
    drawn = segmenter.map_frames(_drawing(segmenter.metadata.taxonomy), islice(video, most))
    start, times, shares, problem = perf_counter(), list[Fraction](), [], None
    with (
        closing(drawn),
        _writing(files[0], video, *_OVERLAY) as overlay,
        _writing(files[1], video, *_LABELS) as labels,
    ):
        try:
            for frame in drawn:
                overlay.add(frame.overlay, frame.time)
                labels.add(frame.labels, frame.time)
                times.append(frame.time)
                shares.append(frame.shares)
                if progress:
                    progress(len(times), total)
        except InputError as error:
            problem = str(error)
        if not times:
            raise InputError(problem or f"{video.name}: stopped before its first frame")
    result = VideoSegmentation(
        source=video.name,
        size=(frame.labels.height, frame.labels.width),
        times=times,
        shares=np.stack(shares),
        dropped=video.dropped,
        has_audio=video.has_audio,
        problem=problem,
        taxonomy=segmenter.metadata.taxonomy,
        seconds=perf_counter() - start,
        model=segmenter.description,
    )
    with replacing(files[2]) as temporary:
        document = result.to_dict() | result.frames_to_dict()
        temporary.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return result, files


def _drawing(taxonomy: Taxonomy) -> Callable[[Segmentation], _Drawn]:
    """Return what turns a frame's Segmentation into frames to encode; it runs in many threads."""
    rows = [
        (name, math.nan, color)
        for name, color in zip(taxonomy.classes, taxonomy.colors, strict=True)
    ]

    @cache
    def panel(height: int) -> Image.Image:
        return legend(rows, height)

    def draw(result: Segmentation) -> _Drawn:
        picture = mix(result.image, result.labels, taxonomy, panel(result.size[0]))
        counts = np.bincount(result.labels.ravel(), minlength=taxonomy.num_classes)
        assert result.time is not None
        return _Drawn(
            overlay=color_frame(_even(picture)),
            labels=label_frame(result.labels),
            shares=(counts[: taxonomy.num_classes] / result.labels.size).astype(np.float32),
            time=result.time,
        )

    return draw


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add a white row or column, where there is an odd number of them: (H, W, 3)."""
    odd = ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0))
    return np.pad(image, odd, constant_values=255)


@contextmanager
def _writing(
    path: Path, video: Video, codec: str, options: dict[str, str]
) -> Iterator[VideoWriter]:
    """Yield a writer whose file appears, whole, when the block has ended well."""
    with replacing(path) as temporary, closing(VideoWriter(temporary, video, codec, options)) as to:
        yield to
