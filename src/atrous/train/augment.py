"""Augmentation: the random numbers of a crop, and the crop that they make on the CPU.

Each crop has its own seed, so crop number n is the same in any process, and in a resumed training.
On a GPU `atrous.kernels.triton.augment` cuts whole batches from the same numbers, unless crops are
turned.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from atrous.data.sample import Sample
from atrous.taxonomy import IGNORE_INDEX
from atrous.train.recipe import Recipe

PADDING = 127
"""Grey of the pixels outside of the image; their label is ignored."""

_ADJUST = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


@dataclass(frozen=True)
class Crop:
    """How a training crop is made from an image."""

    size: tuple[int, int]
    """(height, width) to which the image is resized: bilinear with antialias, labels nearest."""
    corner: tuple[int, int]
    """(top, left) of the crop in the resized image; negative where it begins with padding."""
    flip: bool
    """Flip the crop horizontally."""
    angle: float
    """Degrees by which the flipped crop is turned about its centre, counter-clockwise."""
    jitter: tuple[tuple[str, float], ...]
    """Operations on the colours in their order, each with its factor."""
    gamma: float | None
    """Power to which intensities are raised at last."""


def draw(size: Sequence[int], recipe: Recipe, seed: int) -> Crop:
    """Draw the random numbers of a crop.

    They are those of torchvision's RandomCrop, RandomHorizontalFlip, RandomRotation and ColorJitter
    after `torch.manual_seed(seed)`, but from a generator of their own, so that threads may draw.

    Args:
        size: (height, width) of the image.
        recipe: its crop size and the ranges of the augmentation.
        seed: of all draws.
    """
    generator = torch.Generator().manual_seed(seed)
    (height, width), (rows, columns), flip, angle = size, recipe.crop_size, False, 0.0
    corner = _middle(height, rows), _middle(width, columns)
    if not recipe.center_crop:
        # Log-uniform: half the size is as likely as twice the size.
        low, high = torch.tensor(recipe.scale, dtype=torch.float64).log().tolist()
        drawn = torch.empty((), dtype=torch.float64).uniform_(low, high, generator=generator)
        factor = drawn.exp().item()
        height, width = max(1, round(height * factor)), max(1, round(width * factor))
        corner = _corner(height, rows, generator), _corner(width, columns, generator)
        flip = bool(torch.rand(1, generator=generator) < recipe.flip)
    if recipe.rotation:
        limits = -recipe.rotation, recipe.rotation
        angle = torch.empty(()).uniform_(*limits, generator=generator).item()
    order = torch.randperm(4, generator=generator).tolist()
    factors = {
        name: _factor(center, spread, generator)
        for name, center, spread in (
            ("brightness", 1, recipe.brightness),
            ("contrast", 1, recipe.contrast),
            ("saturation", 1, recipe.saturation),
            ("hue", 0, recipe.hue),
        )
        if spread
    }
    names = [name for name in map(list(_ADJUST).__getitem__, order) if name in factors]
    jitter = tuple((name, factors[name]) for name in names)
    gamma = None
    if recipe.gamma:
        limit = torch.tensor(1 + recipe.gamma).log().item()
        gamma = torch.empty(()).uniform_(-limit, limit, generator=generator).exp().item()
    return Crop((height, width), corner, flip, angle, jitter, gamma)


def aimed(
    crop: Crop, label: NDArray[np.uint8], recipe: Recipe, rarity: Sequence[float], seed: int
) -> Crop:
    """Move a crop, with the probability `recipe.rare_crops`, to hold a pixel of a rare class.

    The class is drawn from those of the image by their rarity, then one of its pixels, then the
    corner from those that have this pixel in the crop. nnU-Net does so with even odds (Isensee et
    al. 2021). A rotation may turn a pixel near the crop's border out of it.

    Args:
        crop: as `draw` returns it.
        label: (H, W) of the image.
        recipe: the probability and the crop's size.
        rarity: (K,) relative odds of each class.
        seed: of all draws.
    """
    rng = np.random.default_rng(seed)
    if rng.random() >= recipe.rare_crops:
        return crop
    held = np.bincount(label.ravel(), minlength=len(rarity))[: len(rarity)] > 0
    odds = held * np.asarray(rarity)
    if not odds.any():
        return crop
    places = np.flatnonzero(label == rng.choice(len(odds), p=odds / odds.sum()))
    pixel = divmod(int(rng.choice(places)), label.shape[1])
    top, left = (
        _corner_around(int((at + 0.5) * resized / length), resized, wanted, rng)
        for at, length, resized, wanted in zip(
            pixel, label.shape, crop.size, recipe.crop_size, strict=True
        )
    )
    return replace(crop, corner=(top, left))


def augment(sample: Sample, crop: Crop, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return a training crop of (height, width) `size`, made on the CPU.

    Returns:
        image (h, w, C) uint8 and target (h, w) uint8 with 255 = ignored.
    """
    image = torch.tensor(sample.image).permute(2, 0, 1)  # (C, H, W)
    mask = torch.tensor(sample.label)[None]  # (1, H, W)
    image = F.resize(image, list(crop.size), antialias=True)
    mask = F.resize(mask, list(crop.size), InterpolationMode.NEAREST)
    image = _cut(image, crop, size, PADDING, InterpolationMode.BILINEAR)
    mask = _cut(mask, crop, size, IGNORE_INDEX, InterpolationMode.NEAREST)
    if len(image) == 3:
        for name, factor in crop.jitter:
            image = _ADJUST[name](image, factor)
    else:
        image = _jitter_bands(image, dict(crop.jitter))
    if crop.gamma is not None:
        image = F.adjust_gamma(image, crop.gamma)
    return image.permute(1, 2, 0).contiguous(), mask[0]


def _middle(length: int, wanted: int) -> int:
    """Return where the middle part of `wanted` pixels begins in `length` pixels."""
    missing = wanted - length
    return -(missing // 2) if missing > 0 else round(-missing / 2)


def _corner(length: int, wanted: int, generator: torch.Generator) -> int:
    """Draw where `wanted` of `length` pixels begin; a short image lies anywhere in the crop."""
    missing = max(wanted - length, 0)
    places = length + 2 * missing - wanted + 1
    return int(torch.randint(0, places, (), generator=generator)) - missing if places > 1 else 0


def _corner_around(at: int, length: int, wanted: int, rng: np.random.Generator) -> int:
    """Draw where `wanted` of `length` pixels begin, from the places of `_corner` that hold `at`."""
    low, high = sorted((0, length - wanted))
    return int(rng.integers(max(low, at - wanted + 1), min(high, at) + 1))


def _factor(center: int, spread: float, generator: torch.Generator) -> float:
    low = max(center - spread, 0.0) if center else -spread
    return torch.empty(()).uniform_(low, center + spread, generator=generator).item()


def _cut(
    values: Tensor, crop: Crop, size: tuple[int, int], fill: int, interpolation: InterpolationMode
) -> Tensor:
    """Cut a crop (C, h, w) from a resized image (C, H, W); what lies outside is `fill`."""
    margin = _turned_margin(size, crop.angle)
    top, left = (start - more for start, more in zip(crop.corner, margin, strict=True))
    tall, wide = (length + 2 * more for length, more in zip(size, margin, strict=True))
    above, below = max(-top, 0), max(top + tall - crop.size[0], 0)
    before, after = max(-left, 0), max(left + wide - crop.size[1], 0)
    if above or below or before or after:
        values = F.pad(values, [before, above, after, below], fill=fill)
    values = F.crop(values, top + above, left + before, tall, wide)
    values = F.horizontal_flip(values) if crop.flip else values
    if crop.angle:
        values = F.rotate(values, crop.angle, interpolation, fill=fill)
        values = F.crop(values, *margin, *size)
    return values


def _turned_margin(size: tuple[int, int], angle: float) -> tuple[int, int]:
    """Return by how many pixels a crop that is turned reaches beyond its height and width."""
    if not angle:
        return 0, 0
    height, width = size
    cosine, sine = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    tall, wide = height * cosine + width * sine, height * sine + width * cosine
    # one more, for bilinear interpolation
    return max(math.ceil((tall - height) / 2) + 1, 1), max(math.ceil((wide - width) / 2) + 1, 1)


def _jitter_bands(image: Tensor, factors: dict[str, float]) -> Tensor:
    """Change contrast, then brightness, of an image (C, h, w) of other bands than RGB."""
    values = image.float()
    if (contrast := factors.get("contrast")) is not None:
        mean = values.mean()
        values = mean + (values - mean) * contrast
    if (brightness := factors.get("brightness")) is not None:
        values = values * brightness
    return values.round().clamp(0, 255).to(image.dtype)
