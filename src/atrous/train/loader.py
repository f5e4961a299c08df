"""The stream of training crops: crop number n depends on the seed and n alone."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from atrous.data.sample import Sample
from atrous.data.shards.read import Shards
from atrous.errors import InputError
from atrous.train.augment import augment, augmentation
from atrous.train.recipe import Recipe

Item = tuple[Tensor, Tensor] | InputError


class Stream(Dataset[Item]):
    """An endless list of crops: epoch after epoch, each a new permutation of the samples."""

    def __init__(self, samples: Sequence[Sample], recipe: Recipe) -> None:
        self.samples = samples
        self.seed = recipe.seed
        self.transforms = augmentation(recipe)
        self.epoch, self.order = -1, np.empty(0, np.int64)  # of the latest epoch

    def __getitem__(self, position: int) -> Item:
        """Return image (h, w, C) uint8 and target (h, w) uint8, or the error of damaged files.

        Raised in a worker process, an error would print a page of text.
        """
        epoch, place = divmod(position, len(self.samples))
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            if isinstance(self.samples, Shards):  # a permutation close to their order on disk
                self.epoch, self.order = epoch, self.samples.order(rng)
            else:
                self.epoch, self.order = epoch, rng.permutation(len(self.samples))
        try:
            sample = self.samples[int(self.order[place])]
        except InputError as error:
            return error
        return augment(sample, self.transforms, mixed_seed(self.seed, position))


def mixed_seed(*parts: int) -> int:
    """Return one 63-bit seed from several numbers; similar numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def batches(
    samples: Sequence[Sample], recipe: Recipe, first_step: int, rank: int, world_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one process from `first_step` to the end, `accumulation_steps` a step.

    Yields:
        image (B, h, w, C) uint8 and target (B, h, w) uint8.
    """
    size, total = recipe.batch_size, recipe.num_steps * recipe.accumulation_steps
    positions = [
        [(batch * world_size + rank) * size + i for i in range(size)]
        for batch in range(first_step * recipe.accumulation_steps, total)
    ]
    loader = DataLoader(
        Stream(samples, recipe),
        batch_sampler=positions,
        collate_fn=_collate,
        generator=torch.Generator(),  # the global one would change the step's dropout
        num_workers=recipe.num_workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if recipe.num_workers else None,
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _collate(items: list[Item]) -> Any:
    """Return a batch, or the first error."""
    errors = (item for item in items if isinstance(item, InputError))
    return next(errors, None) or default_collate(items)
