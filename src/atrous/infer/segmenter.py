"""Segmenter: a photo, an array or a stream of files to Segmentations.

In a stream on the CPU, `calls + 1` workers each decode, segment and save one photo; order is
preserved. Two photos in the network with one thread each are faster than one photo with two
threads, and while one worker waits for the disk another uses the processor. The memory holds at
most the photos in work, and as many finished ones that wait for an earlier photo.

On a GPU the stream is labelled in batches (`batches`), between threads that decode and threads that
save.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.errors import InputError, about
from atrous.images.bands import Bands
from atrous.images.photos import checked_array, photo_array, shown
from atrous.images.pixels import fourth_is_alpha, read_pixels
from atrous.infer.batches import label_stream
from atrous.infer.certainty import certainty_of
from atrous.infer.crf import Crf, crf_labels, crf_named
from atrous.infer.ordered_map import in_order
from atrous.infer.result import Segmentation
from atrous.infer.runtimes.base import Labelled, Runtime, label_logits, stacked
from atrous.infer.runtimes.open import open_runtime
from atrous.infer.tiling import TiledRuntime
from atrous.infer.tta import AugmentedRuntime
from atrous.infer.upsample import Labels
from atrous.infer.video.frames import Frame, Video
from atrous.kernels import usable_cores
from atrous.taxonomy import IGNORE_INDEX
from atrous.text import amount
from atrous.weights.hub import resolve

__all__ = ["Outcome", "Photo", "Segmentation", "Segmenter", "load"]

Photo = str | Path | Image.Image | NDArray[np.uint8]
Outcome = tuple[Path, Segmentation | InputError]

Item = TypeVar("Item")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Image:
    """A photo or a frame to be labelled."""

    pixels: NDArray[np.uint8] | InputError  # (H, W, C)
    source: Path | None = None
    time: Fraction | None = None
    has_data: NDArray[np.bool_] | None = None  # (H, W)


Finish = Callable[[_Image, Segmentation | InputError], T]


class Segmenter:
    """Photos to Segmentations, with one runtime."""

    def __init__(
        self,
        runtime: Runtime,
        calls: int = 1,
        crf: Crf | None = None,
        with_confidence: bool = False,
        with_certainty: bool = False,
    ):
        """Take a runtime that was opened for `calls` concurrent calls; the rest is as in `load`."""
        self.runtime = runtime
        self.with_confidence, self.with_certainty = with_confidence, with_certainty
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
            return self._segment(self._read(Path(photo)))
        if isinstance(photo, Image.Image):
            return self._segment(_Image(photo_array(photo)))
        return self._segment(_Image(checked_array(photo, self.metadata.channels)))

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
        chosen = self.metadata.reading.with_choice(tuple(bands), value_range)
        is_alpha, line = fourth_is_alpha(paths)
        return replace(chosen, alpha=is_alpha), line

    def predict(self, image: NDArray[np.uint8]) -> Labels:
        """Return the labels (H, W) of one image (H, W, C)."""
        labels: Labels = self.label(image[None])[0][0]
        return labels

    def predict_with_confidence(
        self, image: NDArray[np.uint8]
    ) -> tuple[Labels, NDArray[np.float32]]:
        """Return the labels (H, W) of one image (H, W, C), and their probabilities (H, W)."""
        labels, confidence = self.label(image[None], with_confidence=True)
        assert confidence is not None
        return labels[0], confidence[0]

    def label(self, images: NDArray[np.uint8], *, with_confidence: bool = False) -> Labelled:
        """Return the labels of images (B, H, W, C), and their probabilities if asked for."""
        self.metadata.check_channels(images.shape[3], self.runtime.model_name)
        if self.crf is None:
            return self.runtime.label(images, self._threads, with_confidence=with_confidence)
        return self._from_logits(self.runtime(images), images, with_confidence)

    def _from_logits(
        self, logits: NDArray[np.float32], images: NDArray[np.uint8], with_confidence: bool
    ) -> Labelled:
        """Return what `label` does, from the logits (B, K, h, w)."""
        stride, aligned = self.metadata.stride, self.metadata.aligned
        if self.crf is None:
            rest = stride, images, self._threads
            return label_logits(logits, *rest, aligned=aligned, with_confidence=with_confidence)
        pairs = [
            crf_labels(each, stride, image, self.crf, self._threads, aligned=aligned)
            for each, image in zip(logits, images, strict=True)
        ]
        return stacked([labels for labels, _ in pairs]), stacked([sure for _, sure in pairs])

    def batch_size(self, size: tuple[int, int]) -> int:
        """Return how many images of `size` (H, W) to label at a time."""
        return 1 if self.crf else self.runtime.batch_size(size)

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

        def read(path: Path | str) -> _Image:
            try:
                return self._read(Path(path), bands)
            except InputError as error:
                return _Image(error, Path(path))

        def finish(image: _Image, result: Segmentation | InputError) -> T:
            assert image.source is not None
            return function((image.source, result))

        if self.batch_size((1, 1)) == 1:
            return self._one_by_one(paths, read, finish, ahead=2 * self.calls + 2)
        return self._in_batches(paths, read, finish)

    def video(self, source: str | Path | Video) -> Iterator[Segmentation]:
        """Yield the Segmentation of each frame of a video file, a camera or a stream, in order.

        A live source (a camera such as /dev/video0, an address that has no length) drops frames
        while the network is busy. Damage raises an error after the frames before it. Needs the
        video extra.
        """
        with source if isinstance(source, Video) else Video(source) as video:
            yield from self.map_frames(lambda frame: frame, video, live=video.live)

    def map_frames(
        self, function: Callable[[Segmentation], T], frames: Iterable[Frame], *, live: bool = False
    ) -> Generator[T, None, None]:
        """Yield the results of `function` for each frame's Segmentation, in order, as `map` does.

        Frames of a source that is `live` never wait for others to fill a batch. An error of
        `frames` is raised after the results of the frames before it.
        """
        errors: list[InputError] = []

        def readable() -> Iterator[Frame]:
            try:
                yield from frames
            except InputError as error:
                errors.append(error)

        def read(frame: Frame) -> _Image:
            return _Image(frame.image, time=frame.time)

        def finish(_: _Image, result: Segmentation | InputError) -> T:
            if isinstance(result, InputError):
                raise result
            return function(result)

        if live or self.batch_size((1, 1)) == 1:
            yield from self._one_by_one(readable(), read, finish, ahead=self.calls + 1)
        else:
            yield from self._in_batches(readable(), read, finish)
        if errors:
            raise errors[0]

    def _one_by_one(
        self,
        items: Iterable[Item],
        read: Callable[[Item], _Image],
        finish: Finish[T],
        *,
        ahead: int,
    ) -> Generator[T, None, None]:
        """Yield what `finish` makes of each item, which one thread reads, labels and finishes."""

        def work(item: Item) -> T:
            image = read(item)
            result: Segmentation | InputError
            try:
                result = self._segment(image)
            except InputError as error:
                result = error
            return finish(image, result)

        with ThreadPoolExecutor(self.calls + 1) as threads:
            yield from in_order(threads, work, items, ahead=ahead)

    def _in_batches(
        self, items: Iterable[Item], read: Callable[[Item], _Image], finish: Finish[T]
    ) -> Generator[T, None, None]:
        """As `_one_by_one`, labelled in batches."""
        threads = self.runtime.threads

        def complete(labelled: tuple[_Image, Labelled | InputError, float]) -> T:
            image, result, seconds = labelled
            if not isinstance(result, InputError):
                return finish(image, self._segmentation(image, result, seconds))
            if result is not image.pixels:  # an error of the network does not name the photo
                result = InputError(f"{image.source or 'image'}: {result}")
            return finish(image, result)

        label = partial(self.label, with_confidence=self.with_confidence)
        stream = label_stream(
            items, read, lambda image: image.pixels, label, self.batch_size, threads
        )
        with closing(stream), ThreadPoolExecutor(threads) as savers:
            yield from in_order(savers, complete, stream, ahead=self.batch_size((1, 1)))

    def _read(self, path: Path, bands: Bands | None = None) -> _Image:
        pixels, has_data = read_pixels(path, bands or self.reading([path])[0])
        return _Image(pixels, path, has_data=has_data)

    def _segment(self, image: _Image) -> Segmentation:
        if isinstance(image.pixels, InputError):
            raise image.pixels
        with self._free_calls, about(image.source or "image"):
            start, certainty, images = perf_counter(), None, image.pixels[None]
            if self.with_certainty:
                self.metadata.check_channels(images.shape[3], self.runtime.model_name)
                logits = self.runtime(images)
                certainty = certainty_of(logits[0])
                labels, sure = self._from_logits(logits, images, self.with_confidence)
            else:
                labels, sure = self.label(images, with_confidence=self.with_confidence)
            seconds = perf_counter() - start
        one = labels[0], None if sure is None else sure[0]
        return self._segmentation(image, one, seconds, certainty)

    def _segmentation(
        self, image: _Image, labelled: Labelled, seconds: float, certainty: float | None = None
    ) -> Segmentation:
        assert not isinstance(image.pixels, InputError)
        labels, confidence = labelled
        if image.has_data is not None:
            labels[~image.has_data] = IGNORE_INDEX
            if confidence is not None:
                confidence[~image.has_data] = 0
        return Segmentation(
            image=shown(image.pixels),
            labels=labels,
            confidence=confidence if self.with_confidence else None,
            certainty=certainty,
            taxonomy=self.metadata.taxonomy,
            seconds=seconds,
            model=self.description,
            source=image.source,
            time=image.time,
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
    with_confidence: bool = False,
    with_certainty: bool = False,
) -> Segmenter:
    """Load a model: a shipped name, a bundle file, or a run folder (which needs the train extra).

    A published name or an address of the hub is one that was fetched: see `atrous.export.fetch`.

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
        with_confidence: results hold the probability of each pixel's label.
        with_certainty: results hold their `certainty`, but for images that are labelled in batches.
    """
    refinement = crf_named(crf) if isinstance(crf, str) else crf
    threads = usable_cores() if threads is None else threads
    calls = min(calls, threads)
    opened = open_runtime(resolve(model), threads, runtime, calls)
    if flip or scales:
        opened = AugmentedRuntime(opened, flip, scales)
    opened = opened if tile == 0 else TiledRuntime(opened, tile)
    return Segmenter(opened, calls, refinement, with_confidence, with_certainty)
