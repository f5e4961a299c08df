"""The stream of training crops: crop number n depends on the seed and n alone.

Where Triton's kernels run, the processor decodes images (once, if the set can be kept) and draws
random numbers, and the GPU cuts the crops; elsewhere the processor cuts them.
"""

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from atrous.data.sample import Sample
from atrous.data.shards.read import Shards
from atrous.errors import InputError
from atrous.kernels import usable_cores
from atrous.kernels.triton import is_usable
from atrous.progress import Notify, Track, unheard, untracked
from atrous.train.augment import Crop, aimed, augment, draw
from atrous.train.decoded import Decoded, keep_decoded
from atrous.train.recipe import Recipe

CPU = torch.device("cpu")
_MOST_WORKERS = 16
_SHARE_OF_TIME = 10
"""A set is kept if to decode it takes no more than this part, a tenth, of the time given."""


def batches(
    samples: Sequence[Sample],
    recipe: Recipe,
    first_step: int,
    rank: int,
    world_size: int,
    device: torch.device = CPU,
    notify: Notify = unheard,
    track: Track = untracked,
    rarity: Sequence[float] = (),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the batches of one process from `first_step` to the end, `accumulation_steps` a step.

    Where the time of the training decides how many steps there are, they have no end.

    Args:
        samples: of the training.
        recipe: its augmentation, batches and seed.
        first_step: steps that were done before.
        rank: of this process.
        world_size: number of processes.
        device: where the training runs.
        notify: called with a line on a set that could be kept decoded.
        track: shows the progress of decoding such a set.
        rarity: (K,) of each class, for `recipe.rare_crops`.

    Returns:
        image (B, h, w, C) uint8 and target (B, h, w) uint8, on `device`.
    """
    positions, size = positions_of(recipe, first_step, rank, world_size), recipe.batch_size
    crops = (recipe.num_steps - first_step) * recipe.accumulation_steps * size  # without a time
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))  # set by torchrun
    # By the device alone: were it by free memory, a resume might go another way.
    in_triton = is_usable(device.type)
    kept = None
    if recipe.keep_decoded and (recipe.minutes or crops >= 2 * len(samples)):
        # rare classes are looked for by the processor, in the labels
        home = device if in_triton and not recipe.rare_crops else CPU
        seconds = 60 * recipe.minutes / _SHARE_OF_TIME if recipe.minutes else math.inf
        kept = keep_decoded(samples, home, neighbours, notify, track, seconds)
    source = samples if kept is None else kept
    order, workers = Order(samples, recipe.seed), recipe.num_workers
    if workers is None:
        workers = default_workers(device, neighbours)
    if in_triton:
        return _cut_by_triton(source, order, recipe, positions, device, workers, rarity)
    loaded = _loaded(Stream(source, order, recipe, cut, rarity), positions, workers)
    return ((moved(image, device), moved(target, device)) for image, target in loaded)


def positions_of(recipe: Recipe, first_step: int, rank: int, world_size: int) -> Iterator[range]:
    """Yield the positions of the batches of one process, as `batches` has them."""
    size = recipe.batch_size
    first, end = (steps * recipe.accumulation_steps for steps in (first_step, recipe.num_steps))
    for batch in count(first) if recipe.minutes else range(first, end):
        yield range((batch * world_size + rank) * size, (batch * world_size + rank + 1) * size)


class Order:
    """Which sample each position shows: epoch after epoch, each a new permutation."""

    def __init__(self, samples: Sequence[Sample], seed: int) -> None:
        self.samples, self.seed = samples, seed
        self.epoch, self.order = -1, np.empty(0, np.int64)  # of the latest epoch

    def __call__(self, position: int) -> int:
        """Return the index of a sample."""
        epoch, place = divmod(position, len(self.samples))
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            if isinstance(self.samples, Shards):  # a permutation close to their order on disk
                self.epoch, self.order = epoch, self.samples.order(rng)
            else:
                self.epoch, self.order = epoch, rng.permutation(len(self.samples))
        return int(self.order[place])

    def view(self, position: int, views: int) -> int:
        """Return which of its fixed views a sample shows: the next one in each epoch."""
        return position // len(self.samples) % views


class Stream(Dataset[Any]):
    """An endless list of batches, each given by the positions of its crops."""

    def __init__(
        self,
        source: Sequence[Sample] | Decoded,
        order: Order,
        recipe: Recipe,
        make: Callable[[Iterable[tuple[Sample, Crop]], tuple[int, int]], Any],
        rarity: Sequence[float] = (),
    ) -> None:
        """Read samples from `source`; `make` takes them, their crops and the size of crops."""
        self.source, self.order, self.recipe, self.make = source, order, recipe, make
        self.rarity = rarity

    def __getitem__(self, positions: range) -> Any:
        """Return what `make` returns, or the error of damaged files.

        Raised in a worker process, an error would print a page of text.
        """
        try:
            return self.make(map(self._drawn, positions), self.recipe.crop_size)
        except InputError as error:
            return error

    def _drawn(self, position: int) -> tuple[Sample, Crop]:
        sample = self.source[self.order(position)]
        size, label = sample.label.shape, sample.label
        return sample, draw_at(position, size, self.recipe, self.order, label, self.rarity)


def draw_at(
    position: int,
    size: Sequence[int],
    recipe: Recipe,
    order: Order,
    label: NDArray[np.uint8] | None = None,
    rarity: Sequence[float] = (),
) -> Crop:
    """Draw the crop of a position; `order` gives the view, if the recipe has fixed ones."""
    if not recipe.teacher_views:
        return draw_crop((position,), size, recipe, label, rarity)
    # Kept outputs of teachers are of a fixed view, in any colours.
    colors = draw(size, recipe, mixed_seed(recipe.seed, position))
    view = order(position), order.view(position, recipe.teacher_views)
    fixed = draw_crop(view, size, recipe, label, rarity)
    return replace(fixed, jitter=colors.jitter, gamma=colors.gamma)


def draw_crop(
    place: tuple[int, ...],
    size: Sequence[int],
    recipe: Recipe,
    label: NDArray[np.uint8] | None = None,
    rarity: Sequence[float] = (),
) -> Crop:
    """Draw the crop of a place in the stream, or of a view.

    Args:
        place: a position, or the index of a sample and the number of its view.
        size: height and width of the image.
        recipe: the augmentation and the seed.
        label: (H, W) of the image, for `rare_crops`.
        rarity: (K,) odds of each class, for `rare_crops`.
    """
    crop = draw(size, recipe, mixed_seed(recipe.seed, *place))
    if recipe.rare_crops:
        assert label is not None, "a set whose labels are on a GPU is not cut by rarity"
        crop = aimed(crop, label, recipe, rarity, mixed_seed(recipe.seed, *place, 1))
    return crop


def cut(pairs: Iterable[tuple[Sample, Crop]], size: tuple[int, int]) -> Any:
    """Cut a batch on the CPU."""
    return default_collate([augment(sample, crop, size) for sample, crop in pairs])


def mixed_seed(*parts: int) -> int:
    """Return one 63-bit seed from several numbers; similar numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device, without waiting for a GPU."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    # Pinned here: a thread of the loader must not call CUDA while a step is captured as a graph.
    return tensor.pin_memory().to(device, non_blocking=True)


def _cut_by_triton(
    source: Sequence[Sample] | Decoded,
    order: Order,
    recipe: Recipe,
    positions: Iterable[range],
    device: torch.device,
    workers: int,
    rarity: Sequence[float],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches that are cut on `device`; the next is prepared while it computes."""
    from atrous.train.packed import Packed, cut_packed, pack, pack_kept

    def on_device(kept: Decoded, batch: range) -> Packed:
        indices = [order(position) for position in batch]
        sizes = kept.sizes[indices].tolist()
        crops = [draw_at(*pair, recipe, order) for pair in zip(batch, sizes, strict=True)]
        return pack_kept(kept, zip(indices, crops, strict=True))

    if not isinstance(source, Decoded):
        loaded = _loaded(Stream(source, order, recipe, pack, rarity), positions, workers)
    elif recipe.rare_crops or source.pixels.device.type != device.type:
        # in memory: only copied, which needs no worker
        loaded = _loaded(Stream(source, order, recipe, pack, rarity), positions, 0)
    else:
        loaded = (on_device(source, batch) for batch in positions)
    for pixels, table, channels in loaded:
        packed = Packed(moved(pixels, device), moved(table, device), channels)
        yield cut_packed(packed, recipe)


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
