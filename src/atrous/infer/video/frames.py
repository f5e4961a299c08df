"""Videos, cameras and streams, read and written by FFmpeg (PyAV, the extra `video`).

A frame is uint8 (H, W, 3), sRGB, upright, as a photo is. Times count from the first frame and are
exact at any rate. Audio is left out. Frames of a live source (a camera, or an address that has no
length) that arrive while the caller is busy are dropped, and counted.

FFmpeg reads playlists, files that name other files and addresses. A file may not make it open an
address, nor an address a file.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.files import no_such_file, replacing

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
    *(".ts", ".wmv", ".flv", ".3gp", ".ogv", ".mjpeg"),
)
"""Suffixes that `atrous segment` takes as videos, in lower case."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+]+://", re.IGNORECASE)
_DEVICE = re.compile(r"/dev/video\d+")
_PROTOCOLS = "http,https,tls,tcp,udp,rtp,rtsp,rtsps,rtmp,rtmps,hls,crypto,httpproxy,srt"
_SECONDS_TO_OPEN, _SECONDS_TO_READ = 20.0, 5.0
"""Time limits for a source that sends nothing."""
_POLL = 0.05
"""Seconds between two checks whether a live source was stopped."""
_HD_HEIGHT = 720
"""From this height on, a video without a colour matrix is read as BT.709, as by players."""
_BT709, _UNSPECIFIED = 1, 2
_TV_RANGE = 1


def is_video(source: str) -> bool:
    """Return whether `source` is a video file, a camera (/dev/video0) or an address of any kind."""
    named = Path(source).suffix.lower() in VIDEO_SUFFIXES
    return named or bool(_ADDRESS.match(source) or _DEVICE.fullmatch(source))


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video."""

    image: NDArray[np.uint8]
    """(H, W, 3) sRGB, upright."""
    time: Fraction
    """Seconds from the first frame."""


class Video:
    """An open video: iterate over its frames, once, and close it (or use `with`)."""

    def __init__(self, source: str | Path):
        """Open a file, a camera (/dev/video0) or an address."""
        self.name = str(source)
        self._container = _open(self.name)
        if not self._container.streams.video:
            kinds = sorted({stream.type for stream in self._container.streams})
            self._container.close()
            found = " and ".join(kinds) or "nothing"
            raise InputError(f"{self.name}: holds no video, only {found}; give one that does")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.has_audio = bool(self._container.streams.audio)
        self.rate: Fraction | None = self._stream.average_rate
        """Frames a second on average, where known."""
        self.time_base: Fraction = self._stream.time_base or Fraction(1, 90_000)
        """Unit of the frames' times in seconds."""
        away = bool(_ADDRESS.match(self.name))
        length = self._container.duration  # in microseconds
        self.live = bool(_DEVICE.fullmatch(self.name)) or (away and length is None)
        self.num_frames = self._stream.frames or round((length or 0) / 1e6 * (self.rate or 0))
        """Number of frames according to the file; 0 if unknown."""
        self.dropped = 0
        self._stopped = False
        self._reader: threading.Thread | None = None

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file or the connection."""
        self.stop()
        if self._reader:
            self._reader.join()
        self._container.close()

    def stop(self) -> None:
        """End the frames here; may be called at any time, even by a signal handler."""
        self._stopped = True

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; a live source yields its newest frame.

        Damage, or a change of size, raises an error after the last frame before it.
        """
        return self._newest() if self.live else self._all()

    def _all(self) -> Iterator[Frame]:
        import av

        first, since = None, Fraction(0)
        try:
            for index, picture in enumerate(self._pictures()):
                if self._stopped:
                    return
                seconds = self._time(picture, index)
                image = _image(picture)
                first = first or (seconds, image.shape)
                since = seconds - first[0]
                if image.shape != first[1]:
                    (h, w, _), (old_h, old_w, _) = image.shape, first[1]
                    raise InputError(
                        f"{self.name}: its frames change from {old_w}x{old_h} to {w}x{h} after "
                        f"{float(since):.2f} s; cut it there"
                    )
                yield Frame(image, since)
        except av.FFmpegError as error:
            if self.live and first:
                return  # streams end with an error
            raise InputError(
                f"{self.name}: damaged or cut off after {float(since):.2f} s ({_reason(error)}); "
                "copy or connect again"
            ) from None
        if first is None and not self._stopped:
            raise InputError(f"{self.name}: no frame in it; it is damaged or empty, copy it again")

    def _pictures(self) -> Iterator["VideoFrame"]:
        """Decode the packets; damaged packets of a live source are left out."""
        import av

        for packet in self._container.demux(self._stream):
            if self._stopped:  # else a source of damaged packets alone never stops
                return
            try:
                yield from packet.decode()
            except av.InvalidDataError:
                if not self.live:
                    raise

    def _time(self, picture: "VideoFrame", index: int) -> Fraction:
        """Return the time in seconds; a source without times (raw MJPEG) has a constant rate."""
        if picture.pts is None or picture.time_base is None:
            return index / (self.rate or Fraction(25))
        return picture.pts * picture.time_base

    def _newest(self) -> Iterator[Frame]:
        """Read in a thread; a new frame replaces one that waits."""
        waiting: list[Frame] = []
        errors: list[Exception] = []
        changed = threading.Condition()

        def read() -> None:
            try:
                for frame in self._all():
                    with changed:
                        self.dropped += len(waiting)
                        waiting[:] = [frame]
                        changed.notify()
            except Exception as error:  # raised in the caller's thread
                errors.append(error)

        self._reader = threading.Thread(target=read, name="live video")
        self._reader.start()
        while not self._stopped:
            ended = not self._reader.is_alive()  # before the check for a last frame
            with changed:
                if not waiting and not ended:
                    changed.wait(_POLL)
                frame = waiting.pop() if waiting else None
            if frame is not None:
                yield frame
            elif ended:
                break
        if errors:
            raise errors[0]


class VideoWriter:
    """Writes frames to one video file, each at its time."""

    def __init__(self, path: Path, video: Video, codec: str, options: dict[str, str]):
        """Write to `path`, with the times of `video`, by an encoder of FFmpeg and its options."""
        import av

        self._name, self._codec = video.name, codec
        self._container = av.open(str(path), "w")
        rate = min(video.rate or Fraction(25), Fraction(1000))
        self._stream: Any = self._container.add_stream(codec, rate=rate, options=options)
        self._stream.codec_context.time_base = video.time_base
        self._time_base = video.time_base
        self._last = -1

    def add(self, frame: "VideoFrame", time: Fraction) -> None:
        """Append a frame of the first one's size; `time` in seconds."""
        import av

        if self._last < 0:
            self._stream.width, self._stream.height = frame.width, frame.height
            self._stream.pix_fmt = frame.format.name
            self._stream.codec_context.colorspace = frame.colorspace
            self._stream.codec_context.color_range = frame.color_range
        frame.pts = max(round(time / self._time_base), self._last + 1)
        frame.time_base = self._time_base
        try:
            self._container.mux(self._stream.encode(frame))
        except OSError:
            raise
        except av.FFmpegError as error:
            raise InputError(
                f"{self._name}: {self._codec} cannot encode frames of {frame.width}x{frame.height} "
                f"({_reason(error)}); scale the video first"
            ) from None
        self._last = frame.pts

    def close(self) -> None:
        """Write the frames that the encoder holds, and the end of the file."""
        if self._last >= 0:
            self._container.mux(self._stream.encode(None))
        self._container.close()


@contextmanager
def writing(path: Path, video: Video, codec: str, options: dict[str, str]) -> Iterator[VideoWriter]:
    """Yield a writer; its file appears when the block ends without an error."""
    with (
        replacing(path) as temporary,
        closing(VideoWriter(temporary, video, codec, options)) as writer,
    ):
        yield writer


def color_frame(image: NDArray[np.uint8]) -> "VideoFrame":
    """Convert RGB (H, W, 3) to 4:2:0, as H.264 players need it; H and W must be even."""
    import av

    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    return frame.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_TV_RANGE)


def label_frame(labels: NDArray[np.integer[Any]]) -> "VideoFrame":
    """Convert train ids (H, W), 0 to 255, to a grey frame of the same values."""
    import av

    return av.VideoFrame.from_ndarray(np.ascontiguousarray(labels, np.uint8), format="gray")


def _open(name: str) -> "InputContainer":
    address, device = bool(_ADDRESS.match(name)), bool(_DEVICE.fullmatch(name))
    if not address and not Path(name).exists():
        raise no_such_file(Path(name))
    import av  # a missing file is said before a missing extra

    av.logging.set_level(None)  # errors are raised
    try:
        container = av.open(
            name if address else str(Path(name).absolute()),
            format="v4l2" if device else None,
            container_options={"protocol_whitelist": _PROTOCOLS if address else "file"},
            timeout=(_SECONDS_TO_OPEN, _SECONDS_TO_READ),
        )
    except (av.FFmpegError, ValueError) as error:
        raise InputError(
            f"{name}: cannot be opened as a video ({_reason(error)}); check the "
            f"{'address' if address else 'file'}"
        ) from None
    if address and re.search("_pipe|image2", container.format.name):
        container.close()
        raise InputError(f"{name}: a photo at an address; download it first, then give the file")
    return container


def _image(picture: "VideoFrame") -> NDArray[np.uint8]:
    """Convert to RGB (H, W, 3) by the frame's matrix and range, and turn upright."""
    matrix = int(picture.colorspace)
    if matrix == _UNSPECIFIED and picture.height >= _HD_HEIGHT:
        matrix = _BT709
    rgb = picture.reformat(
        format="rgb24", src_colorspace=matrix, src_color_range=picture.color_range
    ).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, round(picture.rotation / 90)))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
