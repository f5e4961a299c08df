"""Which crops a training sees: those of a position follow from the seed and the position alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from atrous.data.sample import Samples
from atrous.train.augment import Crop, aimed, draw
from atrous.train.recipe import Recipe


class Crops:
    """Which image each position of the stream shows, and which crop of it.

    Each epoch shows every image once, in a new order.
    """

    def __init__(self, samples: Samples, recipe: Recipe, rarity: Sequence[float] = ()) -> None:
        """Draw from `samples` as a recipe says; `rarity` (K,), of classes, is for `rare_crops`."""
        self.samples, self.recipe, self.rarity = samples, recipe, rarity
        self._epoch, self._order = -1, np.empty(0, np.int64)  # of the latest epoch

    def index(self, position: int) -> int:
        """Return the index of the sample that a position shows."""
        epoch, place = divmod(position, len(self.samples))
        if epoch != self._epoch:
            rng = np.random.default_rng([self.recipe.seed, epoch])
            self._epoch, self._order = epoch, self.samples.order(rng)
        return int(self._order[place])

    def view(self, position: int) -> int:
        """Return which of its fixed views a position shows: the next one in each epoch."""
        return position // len(self.samples) % self.recipe.teacher_views

    def at(
        self, position: int, size: Sequence[int], label: NDArray[np.uint8] | None = None
    ) -> Crop:
        """Draw the crop of a position.

        Args:
            position: in the stream.
            size: height and width of the image.
            label: (H, W) of the image, for `rare_crops`.
        """
        if not self.recipe.teacher_views:
            return self._drawn(size, label, position)
        # Kept outputs of teachers are of a fixed view, in any colours.
        colors = draw(size, self.recipe, mixed_seed(self.recipe.seed, position))
        fixed = self.of_view(self.index(position), self.view(position), size, label)
        return replace(fixed, jitter=colors.jitter, gamma=colors.gamma)

    def of_view(
        self, index: int, view: int, size: Sequence[int], label: NDArray[np.uint8] | None = None
    ) -> Crop:
        """Draw a fixed view of a sample, as `at` draws the crop of a position."""
        return self._drawn(size, label, index, view)

    def _drawn(self, size: Sequence[int], label: NDArray[np.uint8] | None, *place: int) -> Crop:
        crop = draw(size, self.recipe, mixed_seed(self.recipe.seed, *place))
        if self.recipe.rare_crops:
            assert label is not None, "a set whose labels are on a GPU is not cut by rarity"
            seed = mixed_seed(self.recipe.seed, *place, 1)
            crop = aimed(crop, label, self.recipe, self.rarity, seed)
        return crop


def mixed_seed(*parts: int) -> int:
    """Return one 63-bit seed from several numbers; similar numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
