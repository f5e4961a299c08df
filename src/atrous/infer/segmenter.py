"""Segmenter: a photo, an array or a stream of files to Segmentations.

In a stream, `calls + 1` workers each decode, segment and save one photo; order is preserved. Two
photos in the network with one thread each are faster than one photo with two threads, and while one
worker waits for the disk another uses the processor. The memory holds at most the photos in work,
and as many finished ones that wait for an earlier photo.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.errors import InputError, about
from atrous.images.bands import Bands
from atrous.images.photos import photo_array, shown
from atrous.images.pixels import fourth_is_alpha, read_pixels
from atrous.infer.crf import Crf, crf_labels, crf_named
from atrous.infer.ordered_map import in_order
from atrous.infer.result import Segmentation
from atrous.infer.runtimes.base import Runtime
from atrous.infer.runtimes.open import open_runtime
from atrous.infer.tiling import TiledRuntime
from atrous.infer.tta import AugmentedRuntime
from atrous.infer.upsample import Labels, logits_to_labels, logits_to_labels_confidence
from atrous.infer.video.frames import Frame, Video
from atrous.kernels import usable_cores
from atrous.taxonomy import IGNORE_INDEX
from atrous.text import amount
from atrous.weights.hub import resolve

__all__ = ["Outcome", "Photo", "Segmentation", "Segmenter", "load"]

Photo = str | Path | Image.Image | NDArray[np.uint8]
Outcome = tuple[Path, Segmentation | InputError]

T = TypeVar("T")


class Segmenter:
    """Photos to Segmentations, with one runtime."""

    def __init__(self, runtime: Runtime, calls: int = 1, crf: Crf | None = None):
        """Take a runtime that was opened for `calls` concurrent calls; `crf` refines the labels."""
        self.runtime = runtime
        self.calls = calls
        self.crf = crf
        self._threads = max(1, runtime.threads // calls)  # of one call
        self._free_calls = threading.Semaphore(calls)
        self.metadata = runtime.metadata
        details = f"{runtime.precision}, {runtime.name}, {amount(runtime.threads, 'thread')}"
        refined = "" if crf is None else f", {crf.name} CRF"
        self.description = f"{runtime.model_name}{refined} ({details})"

    def __call__(self, photo: Photo) -> Segmentation:
        """Segment a file, a Pillow image, or an array uint8 (H, W, C), in sRGB or in its bands."""
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
        """Return how to read a set of files, by default as the training data; and a line about it.

        Args:
            paths: the files; together they decide whether a fourth band of TIFFs is alpha.
            bands: numbers of the bands to take; for a model of colours, one band is grey.
            value_range: the values of black and white.
        """
        own = self.metadata.reading
        numbers = tuple(bands) * (3 if len(bands) == 1 and own.channels == 3 else 1) or own.numbers
        if numbers and len(numbers) != own.channels:
            wanted = "red, green and blue" if own.channels == 3 else f"the model's {own.channels}"
            example = " ".join(map(str, range(own.channels, 0, -1)))
            raise InputError(
                f"{len(numbers)} bands; say which are {wanted}, such as --bands {example}"
            )
        is_alpha, line = fourth_is_alpha(paths)
        of = None if bands else own.of
        return Bands(numbers, value_range or own.value_range, is_alpha, of), line

    def predict(self, image: NDArray[np.uint8]) -> Labels:
        """Return the labels (H, W) of one image (H, W, C)."""
        if self.crf is not None:
            return self.predict_with_confidence(image)[0]
        size = image.shape[0], image.shape[1]
        return logits_to_labels(self._logits(image), self.metadata.stride, size, self._threads)

    def predict_with_confidence(
        self, image: NDArray[np.uint8]
    ) -> tuple[Labels, NDArray[np.float32]]:
        """Return the labels (H, W) of one image (H, W, C), and their probabilities (H, W)."""
        logits, stride = self._logits(image), self.metadata.stride
        if self.crf is not None:
            return crf_labels(logits, stride, image, self.crf, self._threads)
        size = image.shape[0], image.shape[1]
        return logits_to_labels_confidence(logits, stride, size, self._threads)

    def _logits(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:  # (K, h, w)
        channels = self.metadata.channels
        if image.shape[2] != channels:
            raise InputError(
                f"{image.shape[2]} bands, where {self.runtime.model_name} takes {channels}; give "
                f"images of these, or bands in dataset.toml if their files have {channels} or more"
            )
        logits: NDArray[np.float32] = self.runtime(image[None])[0]
        return logits

    def stream(self, paths: Iterable[Path | str]) -> Iterator[Outcome]:
        """Yield each path, in order, with its Segmentation or its error."""
        return self.map(lambda outcome: outcome, paths)

    def map(
        self,
        function: Callable[[Outcome], T],
        paths: Iterable[Path | str],
        bands: Bands | None = None,
    ) -> Iterator[T]:
        """Yield the results of `function` for each outcome of `stream`, in order.

        `function` runs in the photo's worker, concurrently with other photos; usually it saves.
        `bands` is a result of `reading`, by default of each file.
        """

        def work(path: Path | str) -> T:
            result: Segmentation | InputError
            try:
                result = self._file(Path(path), bands)
            except InputError as error:
                result = error
            return function((Path(path), result))

        with ThreadPoolExecutor(self.calls + 1) as threads:
            yield from in_order(threads, work, paths, ahead=2 * self.calls + 2)

    def video(self, source: str | Path | Video) -> Iterator[Segmentation]:
        """Yield the Segmentation of each frame of a video file, a camera or a stream, in order.

        A live source (a camera such as /dev/video0, an address that has no length) drops frames
        while the network is busy. Damage raises an error after the frames before it. Needs the
        video extra.
        """
        with source if isinstance(source, Video) else Video(source) as video:
            yield from self.map_frames(lambda frame: frame, video)

    def map_frames(
        self, function: Callable[[Segmentation], T], frames: Iterable[Frame]
    ) -> Generator[T, None, None]:
        """Yield the results of `function` for each frame's Segmentation, in order, as `map` does.

        An error of `frames` is raised after the results of the frames before it.
        """
        errors: list[InputError] = []

        def readable() -> Iterator[Frame]:
            try:
                yield from frames
            except InputError as error:
                errors.append(error)

        def work(frame: Frame) -> T:
            return function(self._segment(frame.image, time=frame.time))

        with ThreadPoolExecutor(self.calls + 1) as threads:
            yield from in_order(threads, work, readable(), ahead=self.calls + 1)
        if errors:
            raise errors[0]

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
        with self._free_calls, about(source or "image"):
            start = perf_counter()
            labels = self.predict(image)
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
        threads: threads of the computation; by default as many as this process may run on.
        runtime: a name as `open_runtime` takes it: "auto", "onnxruntime", "openvino", "torch", ...
        calls: photos of a stream in the network at a time, each with its part of the threads; at
            most `threads`.
        tile: side of the tiles that images are cut into, a multiple of 128 pixels; by default 1024
            for images over 4 million pixels; 0: no tiles.
        flip: average over each image and its mirror image.
        scales: average over these factors of each image's size.
        crf: published parameters of a dense CRF that refines the labels ("deeplab", "kazuto",
            "kraehenbuehl"), or your own.
    """
    refinement = crf_named(crf) if isinstance(crf, str) else crf
    threads = usable_cores() if threads is None else threads
    calls = min(calls, threads)
    opened = open_runtime(resolve(model), threads, runtime, calls)
    if flip or scales:
        opened = AugmentedRuntime(opened, flip, scales)
    return Segmenter(opened if tile == 0 else TiledRuntime(opened, tile), calls, refinement)


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
