"""Segmenter: a photo, an array or a stream of files to Segmentations.

In a stream three things run at a time: later photos are decoded, one is in the network, and earlier
ones are with the caller (who saves them, perhaps through `in_order`, too). Order is kept, and no
more than a few photos are in memory.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.draw import overlay, shares
from atrous.files import InputError, replacing
from atrous.images import photo_array, read_image, write_label
from atrous.infer.runtimes import Runtime, open_runtime
from atrous.infer.upsample import photo_confidence, photo_labels
from atrous.taxonomy import Taxonomy

Photo = str | Path | Image.Image | NDArray[np.uint8]
Outcome = tuple[Path, "Segmentation | InputError"]

Item = TypeVar("Item")
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

    def coverage(self) -> dict[str, float]:
        """Return the fraction of the pixels of each class that is present, largest first."""
        return {name: share for name, share, _ in shares(self.labels, self.taxonomy)}

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Return the photo under its labels' colours, with a legend; `opacity` from 0 to 1."""
        return overlay(self.image, self.labels, self.taxonomy, opacity)

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
        """Write STEM.labels.png (value = train id), STEM.overlay.png and STEM.json.

        Args:
            folder: made if it is not there.
            stem: by default that of the photo's file.

        Returns:
            The files written, in the order above.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        stem = stem or (self.source.stem if self.source else "image")
        paths = [Path(folder) / f"{stem}.{end}" for end in ("labels.png", "overlay.png", "json")]
        write_label(paths[0], self.labels, self.taxonomy)
        with replacing(paths[1]) as temporary:
            self.overlay().save(temporary, compress_level=1)  # a third of the time, a tenth larger
        with replacing(paths[2]) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        return paths


class Segmenter:
    """Photos to Segmentations, with one runtime."""

    def __init__(self, runtime: Runtime):
        self.runtime = runtime
        self.metadata = runtime.metadata
        threads = f"{runtime.threads} thread{'s' * (runtime.threads != 1)}"
        details = f"{self.metadata.precision}, {runtime.name}, {threads}"
        self.description = f"{runtime.model_name} ({details})"

    def __call__(self, photo: Photo) -> Segmentation:
        """Segment a file, a Pillow image, or an array uint8 (H, W, 3) in sRGB.

        Raises:
            InputError: the file cannot be read, or the array is not such a photo.
        """
        if isinstance(photo, str | Path):
            return self._segment(read_image(photo), Path(photo))
        if isinstance(photo, Image.Image):
            return self._segment(photo_array(photo), None)
        return self._segment(_checked(photo), None)

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """Return the labels (H, W) of one image (H, W, 3)."""
        logits = self.runtime(image[None])[0]  # (K, h, w)
        return photo_labels(logits, self.metadata.stride, image.shape[:2])

    def predict_with_confidence(
        self, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], NDArray[np.float32]]:
        """Return the labels (H, W) of one image (H, W, 3), and their probabilities (H, W)."""
        logits = self.runtime(image[None])[0]  # (K, h, w)
        stride, size = self.metadata.stride, (image.shape[0], image.shape[1])
        return photo_labels(logits, stride, size), photo_confidence(logits, stride, size)

    def stream(self, paths: Iterable[Path | str]) -> Iterator[Outcome]:
        """Yield each path, in order, with its Segmentation, or with the error if it has one."""
        with ThreadPoolExecutor(2) as decoders, ThreadPoolExecutor(1) as network:
            decoded = in_order(decoders, _read, map(Path, paths), ahead=3)
            yield from in_order(network, self._outcome, decoded, ahead=2)

    def _outcome(self, decoded: tuple[Path, NDArray[np.uint8] | InputError]) -> Outcome:
        path, image = decoded
        return path, image if isinstance(image, InputError) else self._segment(image, path)

    def _segment(self, image: NDArray[np.uint8], source: Path | None) -> Segmentation:
        start = time.perf_counter()
        labels = self.predict(image)
        return Segmentation(
            image=image,
            labels=labels,
            taxonomy=self.metadata.taxonomy,
            seconds=time.perf_counter() - start,
            model=self.description,
            source=source,
        )


def load(model: str | Path = "camvid", threads: int | None = None) -> Segmenter:
    """Load a model: a shipped name, a bundle file, or a run folder (which needs the train extra).

    Args:
        model: for example "camvid", "mine.onnx" or "runs/mine".
        threads: how many the computation uses; by default as many as this process may run on.

    Raises:
        InputError: there is no such model.
    """
    return Segmenter(open_runtime(model, threads))


def in_order(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Iterator[Result]:
    """Map `function` over `items` in `executor`: results in order, at most `ahead` at a time."""
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # the caller stopped early
        for future in pending:
            future.cancel()


def _read(path: Path) -> tuple[Path, NDArray[np.uint8] | InputError]:
    try:
        return path, read_image(path)
    except InputError as error:
        return path, error


def _checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Refuse an array that is not uint8 (H, W, 3) with at least one pixel."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            f"array: {image.dtype} {image.shape}, where uint8 (H, W, 3) was expected, "
            "sRGB from 0 to 255; convert it first"
        )
    return image
