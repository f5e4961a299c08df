"""Streams of images in batches, for devices that label many images in hardly more time than one.

Threads read the images ahead, in order; consecutive images of equal shape become a batch, which one
thread labels. An incomplete batch is padded to its full size: the same computation as for a full
one, so that the labels of an image do not depend on its neighbours. Only where less than a quarter
would be filled are the images labelled one at a time, since padding would cost more than it saves:
labels may differ there by rounding.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.infer.ordered_map import in_order
from atrous.infer.runtimes.base import Labelled

Item = TypeVar("Item")
Read = TypeVar("Read")

Label = Callable[[NDArray[np.uint8]], Labelled]
"""Images (B, H, W, C) to their labels, (B, H, W)."""

BatchSize = Callable[[tuple[int, int]], int]
"""Size (H, W) to the number of images in a full batch."""

_LEAST_SHARE = 1 / 4
"""Smallest part of a batch that is padded to a full one."""

_PIXELS_AHEAD = 1 << 26
"""Pixels of images that are read and not yet labelled: 200 MB of colours."""


def label_stream(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    pixels: Callable[[Read], NDArray[np.uint8] | InputError],
    label: Label,
    batch_size: BatchSize,
    threads: int,
) -> Generator[tuple[Read, Labelled | InputError, float], None, None]:
    """Read and label images, in order.

    Args:
        items: taken in the caller's thread.
        read: reads one item, in a thread.
        pixels: what was read to an image (H, W, C), or to the error in its place.
        label: labels a batch, in one thread.
        batch_size: as `Runtime.batch_size`.
        threads: that read.

    Yields:
        What was read; the labels (H, W) and perhaps probabilities, or the error; and the seconds of
        its share in the batch.
    """
    most, newest = batch_size((1, 1)), 1

    def read_one(item: Item) -> Read:
        nonlocal newest
        one = read(item)
        image = pixels(one)
        if not isinstance(image, InputError):
            newest = image.shape[0] * image.shape[1]
        return one

    def ahead() -> int:
        return max(2, min(2 * most, _PIXELS_AHEAD // newest))

    def label_all(batch: list[Read]) -> list[tuple[Read, Labelled | InputError, float]]:
        images: list[NDArray[np.uint8]] = []
        for image in map(pixels, batch):
            if isinstance(image, InputError):  # it comes alone
                return [(batch[0], image, 0.0)]
            images.append(image)
        start = perf_counter()
        results: Sequence[Labelled | InputError]
        try:
            results = label_images(images, label, batch_size)
        except InputError as error:  # about the shape, which all of them have
            results = [error] * len(batch)
        seconds = (perf_counter() - start) / len(batch)
        return [(one, result, seconds) for one, result in zip(batch, results, strict=True)]

    with (
        ThreadPoolExecutor(threads) as readers,
        ThreadPoolExecutor(1) as network,
        closing(in_order(readers, read_one, items, ahead=ahead)) as stream,
        closing(in_batches(stream, pixels, batch_size)) as batches,
        closing(in_order(network, label_all, batches, ahead=1)) as labelled,
    ):
        yield from chain.from_iterable(labelled)


def in_batches(
    stream: Iterable[Read],
    pixels: Callable[[Read], NDArray[np.uint8] | InputError],
    batch_size: BatchSize,
) -> Generator[list[Read], None, None]:
    """Group consecutive images of equal shape, at most a full batch each; errors come alone."""
    batch: list[Read] = []
    shape: tuple[int, ...] = ()
    for one in stream:
        image = pixels(one)
        new_shape = () if isinstance(image, InputError) else image.shape
        if batch and new_shape != shape:
            yield batch
            batch = []
        batch.append(one)
        shape = new_shape
        if not shape or len(batch) == batch_size((shape[0], shape[1])):
            yield batch
            batch = []
    if batch:
        yield batch


def label_images(
    images: Sequence[NDArray[np.uint8]], label: Label, batch_size: BatchSize
) -> list[Labelled]:
    """Label images (H, W, C) of one shape, at most a full batch: (H, W) each."""
    full = batch_size((images[0].shape[0], images[0].shape[1]))
    if full == 1 or len(images) < full * _LEAST_SHARE:
        batches = [label(image[None]) for image in images]
    else:
        padding = [images[-1]] * (full - len(images))
        batches = [label(np.stack([*images, *padding]))]
    return [each for batch in batches for each in _unstacked(batch)][: len(images)]


def _unstacked(batch: Labelled) -> Iterator[Labelled]:
    labels, confidence = batch
    for i in range(len(labels)):
        yield labels[i], None if confidence is None else confidence[i]
