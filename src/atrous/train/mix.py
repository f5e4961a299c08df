"""Mixing of crops: parts of one crop of a batch, with their labels, are pasted into its neighbour.

CutMix (Yun et al. 2019) pastes a box; as in French et al. (2020) it has half of the crop's area,
any shape and any place in the crop. ClassMix (Olsson et al. 2021) pastes the pixels of half of the
classes that the crop shows; here each class has even odds instead, so that a GPU is not asked which
these are. Ignored pixels are pasted by CutMix alone. All draws of a crop follow from the seed and
its position in the stream.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.taxonomy import IGNORE_INDEX
from atrous.train.crops import mixed_seed
from atrous.train.recipe import Recipe

_IDS = 256


def draw_mixing(positions: range, recipe: Recipe) -> Tensor:
    """Draw which rows, columns and classes of its neighbour each crop of a batch takes.

    Args:
        positions: of the crops in the stream.
        recipe: the probabilities, the size of crops and the seed.

    Returns:
        (B, h + w + 256) bool, in memory.
    """
    return torch.from_numpy(np.stack([_drawn(recipe, position) for position in positions]))


def mixed(image: Tensor, target: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Mix the crops of a batch in pairs: first and second, third and fourth, and so on.

    The last crop of an odd batch stays as it is. All tensors are on one device, which is not
    waited for.

    Args:
        image: (B, h, w, C) uint8.
        target: (B, h, w) uint8.
        drawn: as `draw_mixing` returns it.

    Returns:
        image and target, mixed.
    """
    batch, height, width = target.shape
    rows, columns, classes = torch.split(drawn, [height, width, _IDS], 1)
    neighbour = (torch.arange(batch, device=target.device) ^ 1).clamp(max=batch - 1)
    other = target[neighbour]
    pasted = classes.gather(1, other.flatten(1).long()).view_as(other)
    pasted &= rows[:, :, None] & columns[:, None]
    image = torch.where(pasted[..., None], image[neighbour], image)
    return image, torch.where(pasted, other, target)


def _drawn(recipe: Recipe, position: int) -> NDArray[np.bool_]:
    """Draw as `draw_mixing` does, for one crop: (h + w + 256,)."""
    rng = np.random.default_rng(mixed_seed(recipe.seed, position, 2))
    height, width = recipe.crop_size
    rows, columns, classes = (np.zeros(length, np.bool_) for length in (height, width, _IDS))
    kind = rng.random()
    if kind < recipe.cutmix:
        share = 0.5 ** rng.random()  # of the height
        rows[_part(height, share, rng)] = True
        columns[_part(width, 0.5 / share, rng)] = True
        classes[:] = True
    elif kind < recipe.cutmix + recipe.classmix:
        rows[:] = columns[:] = True
        classes[:] = rng.random(_IDS) < 0.5
        classes[IGNORE_INDEX] = False
    return np.concatenate([rows, columns, classes])


def _part(length: int, share: float, rng: np.random.Generator) -> slice:
    """Draw where a share of a length lies."""
    taken = round(length * share)
    start = int(rng.integers(0, length - taken + 1))
    return slice(start, start + taken)
