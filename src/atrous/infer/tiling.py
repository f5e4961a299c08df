"""Images of any size: overlapping tiles through the network, their logits blended, row by row.

Tiles begin at multiples of 32 pixels, where a network's own grid begins, so that away from their
borders they have the logits of the whole image. There a tile counts in full; towards a border that
is not the image's its weight falls smoothly to zero, and the weights of all tiles sum to one.
Logits are blended at their own resolution, and only the rows of one tile are kept: memory grows
with the width of an image and not with its height.

A network with image pooling sees the whole image, so its labels of tiles differ from those of the
whole.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.infer.ordered_map import in_order
from atrous.infer.runtimes.base import Labelled, Runtime
from atrous.infer.upsample import Labels, logits_to_labels, logits_to_labels_confidence
from atrous.progress import Progress, silent

TILE = 1024
"""Default side of a tile, in pixels."""

WHOLE_PIXELS = 1 << 22
"""Larger images are cut into tiles by default."""

_GRID = 32
"""A multiple of every output stride, to which a network pads its image."""

_STRIP = 16
"""Rows of logits that become labels at a time."""

ReadRows = Callable[[int, int], tuple[NDArray[np.uint8], NDArray[np.bool_]]]
"""The rows from the first up to the second, (n, W, C), and where they have data, (n, W).

Neither number ever decreases from call to call."""


class TiledRuntime(Runtime):
    """A runtime that takes large images in tiles, so that the network's memory is bounded."""

    def __init__(self, runtime: Runtime, tile: int | None = None):
        """Wrap `runtime`; `tile` pixels a side, or by default `TILE` over `WHOLE_PIXELS`."""
        self.name, self.model_name, self.threads = runtime.name, runtime.model_name, runtime.threads
        self.precision, self.metadata = runtime.precision, runtime.metadata
        self.runtime = runtime
        self.tile = TILE if tile is None else tile
        self._whole_pixels = WHOLE_PIXELS if tile is None else 0
        if self.tile < 128 or self.tile % 128:
            raise InputError(
                f"--tile {tile}: give a multiple of 128, such as {TILE}, or 0: no tiles"
            )

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images (B, H, W, C) to logits (B, K, ceil(H / stride), ceil(W / stride))."""
        if self._is_whole(images.shape[1:3]):
            return self.runtime(images)
        return np.stack([self._blend(image) for image in images])

    def label(
        self,
        images: NDArray[np.uint8],
        threads: int | None = None,
        *,
        with_confidence: bool = False,
    ) -> Labelled:
        """Return the labels of images (B, H, W, C), of whole ones by the inner runtime."""
        if self._is_whole(images.shape[1:3]):
            return self.runtime.label(images, threads, with_confidence=with_confidence)
        return super().label(images, threads, with_confidence=with_confidence)

    def batch_size(self, size: tuple[int, int]) -> int:
        """Return how many images of `size` (H, W) to label at a time."""
        return self.runtime.batch_size(size) if self._is_whole(size) else 1

    def _is_whole(self, size: Sequence[int]) -> bool:
        return size[0] * size[1] <= self._whole_pixels

    def _blend(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = image.shape[0], image.shape[1]

        def read(start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
            return image[start:stop], np.broadcast_to(np.True_, (stop - start, size[1]))

        bands = blend(self.runtime, read, size, self.tile)
        return np.concatenate([band.copy() for band in bands], axis=1)


def label_rows(
    runtime: Runtime,
    read: ReadRows,
    size: tuple[int, int],
    tile: int = TILE,
    calls: int = 1,
    progress: Progress = silent,
    *,
    with_confidence: bool = False,
) -> Iterator[tuple[Labels, NDArray[np.float32] | None]]:
    """Yield the labels (n, W) of an image, some rows at a time, from the top; as `blend`.

    Their probabilities (n, W) come with them, if asked for.

    The labels of a row of logits depend on the row below it, so the row is held until that one is
    there: strips have the labels of the whole.
    """
    stride, aligned = runtime.metadata.stride, runtime.metadata.aligned
    held: NDArray[np.float32] | None = None  # (K, 2, w): the row that waits, and the one above
    labels: Labels = np.empty((0, size[1]), np.uint8)
    sure: NDArray[np.float32] | None = None
    for band in blend(runtime, read, size, tile, calls, progress):
        for start in range(0, band.shape[1], _STRIP):
            strip = band[:, start : start + _STRIP]  # (K, n, w)
            above = 0
            if held is not None:
                above, strip = held.shape[1] - 1, np.concatenate([held, strip], axis=1)
            whole = strip.shape[1] * stride, size[1]
            threads = runtime.threads
            if with_confidence:
                labels, sure = logits_to_labels_confidence(
                    strip, stride, whole, threads, aligned=aligned
                )
            else:
                labels = logits_to_labels(strip, stride, whole, threads, aligned=aligned)
            done = slice(above * stride, -stride)
            yield labels[done], None if sure is None else sure[done]
            held = strip[:, -2:].copy()
    rest = slice(-stride, (size[0] - 1) % stride + 1 - stride or None)
    yield labels[rest], None if sure is None else sure[rest]


def blend(
    runtime: Runtime,
    read: ReadRows,
    size: tuple[int, int],
    tile: int = TILE,
    calls: int = 1,
    progress: Progress = silent,
) -> Iterator[NDArray[np.float32]]:
    """Yield the logits (K, n, ceil(W / stride)) of an image, some rows at a time, from the top.

    Each is overwritten when the next one is asked for.

    Args:
        runtime: images to logits.
        read: the image.
        size: its (H, W).
        tile: the side of a tile, a multiple of 128 pixels; a quarter of it or more is overlap.
        calls: tiles in the runtime at a time.
        progress: called with the number of tiles that are done.
    """
    stride, num_classes = runtime.metadata.stride, runtime.metadata.taxonomy.num_classes
    tops, lefts = _starts(size[0], tile), _starts(size[1], tile)
    down, across = _weights(size[0], tops, tile, stride), _weights(size[1], lefts, tile, stride)
    height = min(tile // stride, down.shape[1])
    band = np.zeros((num_classes, height, across.shape[1]), np.float32)  # from a tile's top on

    def crops() -> Iterator[NDArray[np.uint8] | None]:
        for top in tops:
            image, has_data = read(top, min(top + tile, size[0]))  # (n, W, C), (n, W)
            for columns in (slice(left, left + tile) for left in lefts):
                wanted = has_data[:, columns].any()
                yield np.ascontiguousarray(image[None, :, columns]) if wanted else None

    def call(crop: NDArray[np.uint8] | None) -> NDArray[np.float32] | None:
        return None if crop is None else runtime(crop)[0]

    with ThreadPoolExecutor(calls) as executor:
        tiles = in_order(executor, call, crops(), ahead=calls)
        for row, top in enumerate(tops):
            weights = down[row, top // stride : (top + tile) // stride, None]  # (n, 1)
            for column, logits in enumerate(islice(tiles, len(lefts))):
                if logits is not None:
                    cells = slice(first := lefts[column] // stride, first + logits.shape[2])
                    band[:, : len(weights), cells] += logits * (weights * across[column, cells])
                progress(row * len(lefts) + column + 1, len(tops) * len(lefts))
            following = tops[row + 1] // stride if row + 1 < len(tops) else down.shape[1]
            done = following - top // stride
            yield band[:, :done]
            for plane in band:  # numpy copies what it moves: one plane at a time
                plane[: height - done], plane[height - done :] = plane[done:], 0


def _starts(length: int, tile: int) -> list[int]:
    """Return where tiles begin: each overlaps the next by a quarter; the last ends at the end."""
    last = max(0, length + -length % _GRID - tile)
    return [*range(0, last, tile - tile // 4), last]


def _weights(length: int, starts: Sequence[int], tile: int, stride: int) -> NDArray[np.float32]:
    """Return the weight of each tile at each cell along one side, (tiles, w); columns sum to 1.

    From a border that is not the image's it rises over the overlap as the smoothstep polynomial.
    """
    centres = (np.arange(-(-length // stride)) + 0.5) * stride  # (w,) in pixels
    weights = np.zeros((len(starts), len(centres)))
    for weight, start in zip(weights, starts, strict=True):
        before = np.inf if start == 0 else centres - start
        after = np.inf if start == starts[-1] else start + tile - centres
        inner = np.clip(np.minimum(before, after) / (tile // 4), 0, 1)
        weight[:] = inner**2 * (3 - 2 * inner)
    return np.asarray(weights / weights.sum(0), np.float32)
