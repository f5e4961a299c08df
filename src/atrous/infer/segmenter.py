"""Segmenter: a photo, an array or a stream of files to Segmentations.

In a stream each photo goes all its way (decoding, network, files) in one thread of its own, and as
many go at a time as the runtime takes calls, and one more: two photos in the network with one
thread each are faster than one with two, and while one waits for the disk another uses the
processor. Order is kept. In memory are at most the photos under way and as many that wait for their
turn.
"""

import json
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.draw import Share, legend, mix, shares
from atrous.errors import InputError
from atrous.files import replacing
from atrous.images.bands import Bands
from atrous.images.photos import encoded, photo_array, shown, write_label
from atrous.images.pixels import fourth_is_alpha, read_pixels
from atrous.infer.crf import Crf, crf_labels, crf_named
from atrous.infer.ordered_map import in_order
from atrous.infer.runtimes.open import Runtime, open_runtime
from atrous.infer.tiling import Tiled
from atrous.infer.tta import Augmented
from atrous.infer.upsample import logits_to_labels, logits_to_labels_confidence
from atrous.infer.video.frames import Frame, Video
from atrous.kernels import usable_cores
from atrous.taxonomy import IGNORE_INDEX, Taxonomy
from atrous.text import amount

Photo = str | Path | Image.Image | NDArray[np.uint8]
Outcome = tuple[Path, "Segmentation | InputError"]

_LONGEST_JPEG = 65_500
"""Pixels of a side."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """What the model saw in one photo."""

    image: NDArray[np.uint8]
    """(H, W, 3) sRGB, upright."""
    labels: NDArray[np.uint8] | NDArray[np.uint16]
    """(H, W) train ids."""
    taxonomy: Taxonomy
    seconds: float
    """Of the network and the upsampling, without decoding."""
    model: str
    """Which model and runtime: "camvid (int8, onnxruntime, 2 threads)"."""
    source: Path | None = None
    """The file, where there is one."""
    time: Fraction | None = None
    """Of a video's frame: seconds from its first one."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.labels.shape[0], self.labels.shape[1]

    def coverage(self) -> dict[str, float]:
        """Return the share of each class that is present, largest first, of pixels with a class."""
        return {name: share for name, share, _ in self._shares}

    @cached_property
    def _shares(self) -> list[Share]:
        return shares(self.labels, self.taxonomy)

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Return the photo under its labels' colours, with a legend; `opacity` from 0 to 1."""
        panel = legend(self._shares, len(self.labels))
        return Image.fromarray(mix(self.image, self.labels, self.taxonomy, panel, opacity))

    def to_dict(self) -> dict[str, Any]:
        """Return what the JSON file holds. Sizes are (height, width), shares are fractions."""
        return {
            "image": None if self.source is None else str(self.source),
            "size": list(self.labels.shape),
            "model": self.model,
            "seconds": round(self.seconds, 4),
            "classes": list(self.taxonomy.classes),
            "coverage": {name: round(share, 6) for name, share in self.coverage().items()},
        }

    def save(self, folder: Path | str = ".", stem: str | None = None) -> list[Path]:
        """Write STEM.labels.png (value = train id), STEM.overlay.jpg and STEM.json.

        An overlay that is too long for a JPEG becomes a PNG.

        Args:
            folder: made if it is not there.
            stem: by default that of the photo's file.

        Returns:
            The files written, in the order above.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        stem = stem or (self.source.stem if self.source else "image")
        overlay = self.overlay()
        suffix = "jpg" if max(overlay.size) <= _LONGEST_JPEG else "png"
        ends = ("labels.png", f"overlay.{suffix}", "json")
        paths = [Path(folder) / f"{stem}.{end}" for end in ends]
        write_label(paths[0], self.labels, self.taxonomy, flush=False)
        with replacing(paths[1], flush=False) as temporary:
            temporary.write_bytes(encoded(overlay, temporary))
        with replacing(paths[2], flush=False) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        return paths


class Segmenter:
    """Photos to Segmentations, with one runtime."""

    def __init__(self, runtime: Runtime, calls: int = 1, crf: Crf | None = None):
        """Take a runtime that was opened for that many `calls` at a time, and what refines it."""
        self.runtime = runtime
        self.calls = calls
        self.crf = crf
        self._threads = max(1, runtime.threads // calls)  # of one call
        self._free_calls = threading.Semaphore(calls)
        self.metadata = runtime.metadata
        threads = amount(runtime.threads, "thread")
        details = f"{runtime.precision}, {runtime.name}, {threads}"
        refined = "" if crf is None else f", {crf.name} CRF"
        self.description = f"{runtime.model_name}{refined} ({details})"

    def __call__(self, photo: Photo) -> Segmentation:
        """Segment a file, a Pillow image, or an array uint8 (H, W, C), in sRGB or of its bands.

        Raises:
            InputError: the file cannot be read, or the array is not such a photo.
        """
        if isinstance(photo, str | Path):
            return self._file(Path(photo))
        if isinstance(photo, Image.Image):
            return self._segment(photo_array(photo))
        return self._segment(_checked(photo, self.metadata.channels))

    def reading(
        self,
        paths: Sequence[Path],
        bands: Sequence[int] = (),
        value_range: tuple[float, float] | None = None,
    ) -> tuple[Bands, str]:
        """Decide how a set of files is read, and say it; by default as the model's own data were.

        Args:
            paths: the files, which decide what a fourth band of TIFFs is.
            bands: numbers of those to take; one is taken as grey by a model of colours.
            value_range: which of their values are black and white.

        Raises:
            InputError: the model takes another number of bands.
        """
        own = self.metadata.reading
        numbers = tuple(bands) * (3 if len(bands) == 1 and own.channels == 3 else 1) or own.numbers
        if numbers and len(numbers) != own.channels:
            wanted = "red, green and blue" if own.channels == 3 else f"the model's {own.channels}"
            example = " ".join(map(str, range(own.channels, 0, -1)))
            raise InputError(
                f"{len(numbers)} bands; say which are {wanted}, such as --bands {example}"
            )
        is_alpha, said = fourth_is_alpha(paths)
        of = None if bands else own.of
        return Bands(numbers, value_range or own.value_range, is_alpha, of), said

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Return the labels (H, W) of one image (H, W, C).

        Raises:
            InputError: it has other bands than the model takes, or is too large for the CRF.
        """
        if self.crf is not None:
            return self.predict_with_confidence(image)[0]
        logits = self._logits(image)  # (K, h, w)
        size = image.shape[0], image.shape[1]
        return logits_to_labels(logits, self.metadata.stride, size, self._threads)

    def predict_with_confidence(
        self, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], NDArray[np.float32]]:
        """Return the labels (H, W) of one image (H, W, C), and their probabilities (H, W).

        Raises:
            InputError: it has other bands than the model takes, or is too large for the CRF.
        """
        logits = self._logits(image)  # (K, h, w)
        if self.crf is not None:
            return crf_labels(logits, self.metadata.stride, image, self.crf, self._threads)
        size = image.shape[0], image.shape[1]
        return logits_to_labels_confidence(logits, self.metadata.stride, size, self._threads)

    def _logits(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        channels = self.metadata.channels
        if image.shape[2] != channels:
            raise InputError(
                f"{image.shape[2]} bands, where {self.runtime.model_name} takes {channels}; give "
                f"images of these, or bands in dataset.toml if their files have {channels} or more"
            )
        logits: NDArray[np.float32] = self.runtime(image[None])[0]
        return logits

    def stream(self, paths: Iterable[Path | str]) -> Iterator[Outcome]:
        """Yield each path, in order, with its Segmentation, or with the error if it has one."""
        return self.map(lambda outcome: outcome, paths)

    def map(
        self,
        function: Callable[[Outcome], Result],
        paths: Iterable[Path | str],
        bands: Bands | None = None,
    ) -> Iterator[Result]:
        """Yield what `function` makes of each outcome of `stream`, in order.

        It is called in the thread of its photo: what it does (saving, as a rule) runs beside the
        other photos. `bands` are from `reading`; left out, each file decides for itself.
        """

        def whole(path: Path | str) -> Result:
            return function((Path(path), self._outcome(Path(path), bands)))

        with ThreadPoolExecutor(self.calls + 1) as threads:
            yield from in_order(threads, whole, paths, ahead=2 * self.calls + 2)

    def video(self, source: str | Path | Video) -> Iterator[Segmentation]:
        """Yield the Segmentation of each frame of a video file, a camera or a stream, in order.

        Of a live source (a camera such as /dev/video0, an address that has no length) these are
        the frames that there is time for. Needs the video extra.

        Raises:
            InputError: there is no such video, or it is damaged; then after the frames before.
        """
        with source if isinstance(source, Video) else Video(source) as video:
            yield from self.map_frames(lambda frame: frame, video)

    def map_frames(
        self, function: Callable[[Segmentation], Result], frames: Iterable[Frame]
    ) -> Generator[Result, None, None]:
        """Yield what `function` makes of each frame's Segmentation, in order, as `map` does.

        Raises:
            InputError: as `frames` do, but after the frames before.
        """
        errors: list[InputError] = []

        def readable() -> Iterator[Frame]:
            try:
                yield from frames
            except InputError as error:
                errors.append(error)

        def whole(frame: Frame) -> Result:
            return function(self._segment(frame.image, time=frame.time))

        with ThreadPoolExecutor(self.calls + 1) as threads:
            yield from in_order(threads, whole, readable(), ahead=self.calls + 1)
        if errors:
            raise errors[0]

    def _outcome(self, path: Path, bands: Bands | None) -> "Segmentation | InputError":
        try:
            return self._file(path, bands)
        except InputError as error:
            return error

    def _file(self, path: Path, bands: Bands | None = None) -> Segmentation:
        image, has_data = read_pixels(path, bands or self.reading([path])[0])
        return self._segment(image, path, has_data=has_data)

    def _segment(
        self,
        image: NDArray[np.uint8],
        source: Path | None = None,
        time: Fraction | None = None,
        has_data: NDArray[np.bool_] | None = None,
    ) -> Segmentation:
        with self._free_calls:
            start = perf_counter()
            try:
                labels = self.predict(image)
            except InputError as error:
                raise InputError(f"{source or 'image'}: {error}") from None
            seconds = perf_counter() - start
        if has_data is not None:
            labels[~has_data] = IGNORE_INDEX
        return Segmentation(
            image=shown(image),
            labels=labels,
            taxonomy=self.metadata.taxonomy,
            seconds=seconds,
            model=self.description,
            source=source,
            time=time,
        )


def load(
    model: str | Path = "camvid",
    threads: int | None = None,
    runtime: str = "auto",
    calls: int = 1,
    tile: int | None = None,
    flip: bool = False,
    scales: Sequence[float] = (),
    crf: str | Crf | None = None,
) -> Segmenter:
    """Load a model: a shipped name, a bundle file, or a run folder (which needs the train extra).

    Args:
        model: for example "camvid", "mine.onnx" or "runs/mine".
        threads: how many the computation uses; by default as many as this process may run on.
        runtime: a name as `open_runtime` takes it: "auto", "onnxruntime", "openvino", "torch", ...
        calls: how many photos of a stream are in the network at a time, each with its part of
            the threads; where there are fewer threads, as many as those.
        tile: the side of the tiles that images are taken in, a multiple of 128 pixels; by default
            1024 for images over 4 million pixels; 0: never.
        flip: whether each image is seen mirrored, too, and the mean taken.
        scales: the sizes that each image is seen at, as parts of its own, and the mean taken.
        crf: published parameters of a dense CRF that refines the labels ("deeplab", "kazuto",
            "kraehenbuehl"), or your own.

    Raises:
        InputError: there is no such model, runtime or CRF, or they do not go together, or the tile
            or a scale cannot be.
        ImportError: the runtime's library is not installed.
    """
    refinement = crf_named(crf) if isinstance(crf, str) else crf
    threads = usable_cores() if threads is None else threads
    calls = min(calls, threads)
    opened = open_runtime(model, threads, runtime, calls)
    if flip or scales:
        opened = Augmented(opened, flip, scales)
    return Segmenter(opened if tile == 0 else Tiled(opened, tile), calls, refinement)


def _checked(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Refuse an array that is not uint8 (H, W, C) with at least one pixel."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels or image.size == 0:
        kind = "sRGB" if channels == 3 else "its bands"
        raise InputError(
            f"array: {image.dtype} {image.shape}, where uint8 (H, W, {channels}) was expected, "
            f"{kind} from 0 to 255; convert it first"
        )
    return image
