"""A set that is decoded once and kept, in memory or on the GPU."""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.data.sample import Sample
from atrous.infer.ordered_map import in_order
from atrous.kernels import usable_cores
from atrous.progress import Notify, Progress, Track
from atrous.text import amount
from atrous.train.memory import available_memory

_SHARE = 4
"""A kept set takes no more than this part, a quarter, of the free memory."""
_ESTIMATED_FROM = 16
"""Samples whose sizes tell how large a set is."""
_MARGIN = 1.5
"""How much larger than estimated a set may become."""


@dataclass(frozen=True)
class Decoded:
    """Images and labels of a set; sample i is its image (H, W, C), then its label (H, W)."""

    pixels: Tensor
    """(bytes,) uint8, in memory or on a device."""
    starts: NDArray[np.int64]
    """(N,) where each sample begins."""
    sizes: NDArray[np.int64]
    """(N, 2) height and width of each sample."""
    channels: int
    """C of all images."""

    def __getitem__(self, index: int) -> Sample:
        """Return a view of a sample of a set in memory."""
        (height, width), start = self.sizes[index].tolist(), int(self.starts[index])
        area, pixels = height * width, self.pixels.numpy()[start:]
        image = pixels[: area * self.channels].reshape(height, width, self.channels)
        label = pixels[area * self.channels :][:area].reshape(height, width)
        return Sample(image, label, f"sample {index}")


def keep_decoded(
    samples: Sequence[Sample],
    device: torch.device,
    processes: int,
    notify: Notify,
    track: Track,
    seconds: float = math.inf,
) -> Decoded | None:
    """Decode a set in threads and keep it, if it takes no more than a quarter of what is free.

    Args:
        samples: of the set.
        device: a GPU that keeps the set if it can; the CPU for memory.
        processes: of this machine that keep a copy each.
        notify: called with one line that says what was done.
        track: shows the progress.
        seconds: that the decoding may take, by the time that a few samples take.

    Returns:
        The set, or None if it is too large or takes too long.
    """
    chosen = np.random.default_rng(0).permutation(len(samples))[:_ESTIMATED_FROM].tolist()
    started = time.perf_counter()
    sizes = [_bytes(samples[index]) for index in chosen]
    one = (time.perf_counter() - started) / len(sizes)
    expected = round(sum(sizes) / len(sizes) * len(samples))
    most = available_memory() // (_SHARE * processes)
    limit = min(most, round(expected * _MARGIN))
    named = amount(len(samples), "training image")
    if (whole := one * len(samples) / usable_cores()) > seconds:
        why = f"to keep them takes about {whole:.0f} s first, and {seconds:.0f} s may be taken"
        notify(f"{named} decoded anew for each crop: {why}")
        return None
    kept, needed = None, f"about {_gigabytes(expected)}"
    if expected <= most:
        with track("images decoded") as progress:
            kept = _decode(samples, limit, progress)
        needed = f"more than {_gigabytes(limit)}"
    if kept is None:
        why = f"{_gigabytes(most)} of memory may be taken"
        if limit < most:
            why = f"{len(chosen)} of them promised {_gigabytes(expected)} in all"
        notify(f"{named} decoded anew for each crop: to keep them takes {needed}, and {why}")
        return None
    place, size = "in memory", len(kept.pixels)
    if device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] // _SHARE:
        kept, place = replace(kept, pixels=kept.pixels.to(device)), "on the GPU"
    notify(f"{named} kept decoded, {_gigabytes(size)} {place}")
    return kept


def _decode(samples: Sequence[Sample], most: int, progress: Progress) -> Decoded | None:
    """Decode all samples; None if they take more than `most` bytes."""
    pixels = torch.empty(most, dtype=torch.uint8)  # pages that stay unused take no memory
    starts, sizes, end = [], [], 0
    with ThreadPoolExecutor(usable_cores()) as readers:
        indices, ahead = range(len(samples)), 2 * usable_cores()
        for sample in in_order(readers, samples.__getitem__, indices, ahead=ahead):
            starts.append(end)
            sizes.append(sample.label.shape)
            for part in (sample.image, sample.label):
                if end + part.size > most:
                    return None
                pixels[end : end + part.size] = torch.from_numpy(part.ravel())
                end += part.size
            progress(len(starts), len(samples))
    table = np.array(starts, np.int64), np.array(sizes, np.int64)
    return Decoded(pixels[:end], *table, sample.image.shape[2])


def _bytes(sample: Sample) -> int:
    return sample.image.size + sample.label.size


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.1f} MB"
