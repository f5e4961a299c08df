"""The stream of training crops: position n of it depends on the seed and n, and on nothing else."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from atrous.data.dataset import Sample
from atrous.train.augment import augment, augmentation
from atrous.train.recipe import Recipe


class Stream(Dataset[tuple[Tensor, Tensor]]):
    """An endless list of crops: epoch after epoch, each a new permutation of the samples."""

    def __init__(self, samples: Sequence[Sample], recipe: Recipe) -> None:
        self.samples = samples
        self.seed = recipe.seed
        self.transforms = augmentation(recipe)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        """Image (h, w, 3) uint8 and target (h, w) uint8."""
        epoch, place = divmod(position, len(self.samples))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.samples))
        sample = self.samples[int(order[place])]
        return augment(sample, self.transforms, mixed_seed(self.seed, position))


def mixed_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, unlike that of any near numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def batches(
    samples: Sequence[Sample], recipe: Recipe, first_step: int, rank: int, world_size: int
) -> DataLoader[tuple[Tensor, Tensor]]:
    """The batches of one process from `first_step` to the end, `accumulation` of them a step.

    Each is image (B, h, w, 3) uint8 and target (B, h, w) uint8.
    """
    size, total = recipe.batch_size, recipe.num_steps * recipe.accumulation
    positions = [
        [(batch * world_size + rank) * size + i for i in range(size)]
        for batch in range(first_step * recipe.accumulation, total)
    ]
    return DataLoader(
        Stream(samples, recipe),
        batch_sampler=positions,
        num_workers=recipe.num_workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if recipe.num_workers else None,
    )
