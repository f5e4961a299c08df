"""The stream of training crops: crop number n depends on the seed and n alone.

Where Triton's kernels run, the processor decodes images (once, if the set can be kept) and draws
random numbers, and the GPU cuts the crops; elsewhere, and where crops are turned, the processor
cuts them. Crops are mixed last, on the device.
"""

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from atrous.data.sample import Sample
from atrous.errors import InputError
from atrous.kernels import usable_cores
from atrous.kernels.triton import is_usable
from atrous.progress import Notify, Track, unheard, untracked
from atrous.train.augment import Crop, augment
from atrous.train.crops import Crops
from atrous.train.decoded import Decoded, keep_decoded
from atrous.train.mix import draw_mixing, mixed
from atrous.train.recipe import Recipe

CPU = torch.device("cpu")
_MOST_WORKERS = 16
_SHARE_OF_TIME = 10
"""A set is kept if to decode it takes no more than this part, a tenth, of the time given."""


def batches(
    crops: Crops,
    first_step: int,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device = CPU,
    notify: Notify = unheard,
    track: Track = untracked,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the batches of one process from `first_step` to the end, `accumulation_steps` a step.

    Where the time of the training decides how many steps there are, they have no end.

    Args:
        crops: of the samples of the training, and its recipe.
        first_step: steps that were done before.
        rank: of this process.
        world_size: number of processes.
        device: where the training runs.
        notify: called with a line on a set that could be kept decoded.
        track: shows the progress of decoding such a set.

    Returns:
        image (B, h, w, C) uint8 and target (B, h, w) uint8, on `device`.
    """
    samples, recipe = crops.samples, crops.recipe
    positions = positions_of(recipe, first_step, rank, world_size)
    steps = recipe.num_steps - first_step  # without a time
    wanted = steps * recipe.accumulation_steps * recipe.batch_size
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))  # set by torchrun
    # By device and recipe alone: were it by free memory, a resume might go another way.
    in_triton = is_usable(device.type) and not recipe.rotation
    kept = None
    if recipe.keep_decoded and (recipe.minutes or wanted >= 2 * len(samples)):
        # rare classes are looked for by the processor, in the labels
        home = device if in_triton and not recipe.rare_crops else CPU
        seconds = 60 * recipe.minutes / _SHARE_OF_TIME if recipe.minutes else math.inf
        kept = keep_decoded(samples, home, neighbours, notify, track, seconds)
    source = samples if kept is None else kept
    workers = recipe.num_workers
    if workers is None:
        workers = default_workers(device, neighbours)
    if in_triton:
        ready = _cut_by_triton(source, crops, positions, device, workers)
    else:
        loaded = _loaded(Stream(source, crops, cut), positions, workers)
        ready = ((moved(image, device), moved(target, device)) for image, target in loaded)
    if recipe.cutmix or recipe.classmix:
        again = positions_of(recipe, first_step, rank, world_size)
        drawn = (moved(draw_mixing(batch, recipe), device) for batch in again)
        return (mixed(*batch, at) for batch, at in zip(ready, drawn, strict=True))
    return ready


def positions_of(recipe: Recipe, first_step: int, rank: int, world_size: int) -> Iterator[range]:
    """Yield the positions of the batches of one process, as `batches` has them."""
    size = recipe.batch_size
    first, end = (steps * recipe.accumulation_steps for steps in (first_step, recipe.num_steps))
    for batch in count(first) if recipe.minutes else range(first, end):
        yield range((batch * world_size + rank) * size, (batch * world_size + rank + 1) * size)


class Stream(Dataset[Any]):
    """An endless list of batches, each given by the positions of its crops."""

    def __init__(
        self,
        source: Sequence[Sample] | Decoded,
        crops: Crops,
        make: Callable[[Iterable[tuple[Sample, Crop]], tuple[int, int]], Any],
    ) -> None:
        """Read samples from `source`; `make` takes them, their crops and the size of crops."""
        self.source, self.crops, self.make = source, crops, make

    def __getitem__(self, positions: range) -> Any:
        """Return what `make` returns, or the error of damaged files.

        Raised in a worker process, an error would print a page of text.
        """
        try:
            return self.make(map(self._drawn, positions), self.crops.recipe.crop_size)
        except InputError as error:
            return error

    def _drawn(self, position: int) -> tuple[Sample, Crop]:
        sample = self.source[self.crops.index(position)]
        return sample, self.crops.at(position, sample.label.shape, sample.label)


def cut(pairs: Iterable[tuple[Sample, Crop]], size: tuple[int, int]) -> Any:
    """Cut a batch on the CPU."""
    return default_collate([augment(sample, crop, size) for sample, crop in pairs])


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device, without waiting for a GPU."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    # Pinned here: a thread of the loader must not call CUDA while a step is captured as a graph.
    return tensor.pin_memory().to(device, non_blocking=True)


def _cut_by_triton(
    source: Sequence[Sample] | Decoded,
    crops: Crops,
    positions: Iterable[range],
    device: torch.device,
    workers: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches that are cut on `device`; the next is prepared while it computes."""
    from atrous.train.packed import Packed, cut_packed, pack, pack_kept

    def on_device(kept: Decoded, batch: range) -> Packed:
        indices = [crops.index(position) for position in batch]
        sizes = kept.sizes[indices].tolist()
        drawn = [crops.at(*pair) for pair in zip(batch, sizes, strict=True)]
        return pack_kept(kept, zip(indices, drawn, strict=True))

    if not isinstance(source, Decoded):
        loaded = _loaded(Stream(source, crops, pack), positions, workers)
    elif crops.recipe.rare_crops or source.pixels.device.type != device.type:
        # in memory: only copied, which needs no worker
        loaded = _loaded(Stream(source, crops, pack), positions, 0)
    else:
        loaded = (on_device(source, batch) for batch in positions)
    for pixels, table, channels in loaded:
        packed = Packed(moved(pixels, device), moved(table, device), channels)
        yield cut_packed(packed, crops.recipe)


def default_workers(device: torch.device, neighbours: int) -> int:
    """Return the number of processes that read images; they leave the CPU to a training on it.

    Args:
        device: where the training runs.
        neighbours: processes that train on this machine.
    """
    if device.type == "cpu":
        return max(1, usable_cores() // 8)
    return min(max(usable_cores() // neighbours - 1, 1), _MOST_WORKERS)


def _loaded(stream: Stream, positions: Iterable[range], workers: int) -> Iterator[Any]:
    """Yield the batches of a stream, read in processes; raise its first error."""
    # Forked workers inherit a kept set. Those of a fork server, the default from Python 3.14 on,
    # would get it by way of /dev/shm, which has 64 MB in many containers.
    forks = workers and isinstance(stream.source, Decoded) and sys.platform == "linux"
    loader = DataLoader(
        stream,
        batch_size=None,  # the stream makes whole batches
        sampler=positions,
        generator=torch.Generator(),  # the global one would change the step's dropout
        num_workers=workers,
        multiprocessing_context="fork" if forks else None,
        prefetch_factor=None if not workers else 4 if workers == 1 else 2,
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch
