import numpy as np
import pytest
import torch
from torchvision_augmentation import torchvision_crop

from atrous.data.sample import Sample
from atrous.train.augment import augment, draw
from atrous.train.recipe import Recipe


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hue": 0.2, "gamma": 0.5, "scale": (0.3, 3.0)},
        {"center_crop": True, "contrast": 0.0},
        {"scale": (1.0, 1.0), "flip": 1.0, "brightness": 1.5},
    ],
)
def test_crops_are_those_of_torchvision(channels: int, options: dict[str, object]) -> None:
    recipe = Recipe(crop_size=(48, 64), **options)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    for seed, size in enumerate([(40, 60), (64, 64), (33, 120), (5, 7), (101, 31)] * 3):
        image = rng.integers(0, 256, (*size, channels), np.uint8)
        sample = Sample(image, rng.integers(0, 5, size, np.uint8), "a")
        expected = torchvision_crop(sample, recipe, seed)
        found = augment(sample, draw(size, recipe, seed), recipe.crop_size)
        assert all(map(torch.equal, found, expected))
