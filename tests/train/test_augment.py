from dataclasses import replace
from math import cos, radians, sin

import numpy as np
import pytest
import torch
from torchvision_augmentation import torchvision_crop

from atrous.data.sample import Sample
from atrous.train.augment import PADDING, augment, draw
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


def coordinates(height: int, width: int) -> Sample:
    """A picture whose pixels tell where they came from; the label is the row / 10."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return Sample(np.stack([y, x, np.full_like(y, 200)], axis=2), y // 10, "a")


STILL = Recipe(
    crop_size=(31, 45), scale=(1.0, 1.0), flip=0.0, brightness=0, contrast=0, saturation=0
)


@pytest.mark.parametrize("angle", [0.5, 30.0, -30.0, 90.0, 135.0, 180.0, -90.0])
@pytest.mark.parametrize("corner", [(60, 70), (-5, -7), (150, 170)])
def test_rotation_is_about_the_centre_counter_clockwise(
    angle: float, corner: tuple[int, int]
) -> None:
    """Each pixel shows what the formula says, also from beyond the crop; the rest is ignored."""
    size, (height, width) = (170, 190), STILL.crop_size
    crop = replace(draw(size, STILL, 0), angle=angle, corner=corner)
    image, target = (part.numpy() for part in augment(coordinates(*size), crop, (height, width)))
    center = (height - 1) / 2, (width - 1) / 2
    y, x = np.mgrid[:height, :width].astype(float)
    y, x = y - center[0], x - center[1]
    turn = radians(angle)  # counter-clockwise: what was right of the centre is above it at 90
    source_y = corner[0] + center[0] + y * cos(turn) + x * sin(turn)
    source_x = corner[1] + center[1] - y * sin(turn) + x * cos(turn)
    margins = [
        np.minimum(at, length - 1 - at)
        for at, length in zip((source_y, source_x), size, strict=True)
    ]
    inside, outside = (margins := np.minimum(*margins)) > 0.01, margins < -1.01
    assert inside.any() and (outside.any() or corner == (60, 70))
    np.testing.assert_allclose(image[inside][:, 0], source_y[inside], atol=0.52)
    np.testing.assert_allclose(image[inside][:, 1], source_x[inside], atol=0.52)
    sure = inside & (np.abs((source_y + 0.5) % 10 - 5) < 4.98)  # not between two labels
    assert sure.sum() > 0.9 * inside.sum()
    np.testing.assert_array_equal(target[sure], np.rint(source_y[sure]) // 10)
    assert (image[outside] == PADDING).all() and (target[outside] == 255).all()
    assert (target[margins > -0.48] != 255).all() and (target[margins < -0.52] == 255).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_quarter_turn_moves_pixels_unchanged(channels: int) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, (9, 9), np.uint8)
    sample = Sample(rng.integers(0, 256, (9, 9, channels), np.uint8), label, "a")
    recipe = replace(STILL, crop_size=(9, 9))
    for turns in range(4):
        crop = replace(draw((9, 9), recipe, 0), angle=90.0 * turns)
        image, target = augment(sample, crop, (9, 9))
        assert np.array_equal(image.numpy(), np.rot90(sample.image, turns))
        assert np.array_equal(target.numpy(), np.rot90(sample.label, turns))
    crop = replace(crop, angle=90.0, flip=True)  # flipped, then turned
    assert np.array_equal(augment(sample, crop, (9, 9))[1].numpy(), np.rot90(label[:, ::-1]))


def test_angles_are_uniform_and_change_neither_place_nor_other_recipes() -> None:
    recipe = replace(STILL, scale=(0.5, 2.0), flip=0.5, rotation=20.0)
    crops = [draw((60, 80), recipe, seed) for seed in range(400)]
    angles = np.array([crop.angle for crop in crops])
    assert np.abs(angles).max() <= 20
    np.testing.assert_allclose(np.quantile(angles, [0, 0.25, 0.5, 0.75, 1]),
                               [-20, -10, 0, 10, 20], atol=2.5)  # fmt: skip
    for seed, crop in enumerate(crops):
        assert replace(crop, angle=0.0) == draw((60, 80), replace(recipe, rotation=0.0), seed)
        jittered = draw((60, 80), replace(recipe, hue=0.1, contrast=0.5), seed)
        assert jittered.angle == crop.angle  # so that kept outputs of teachers fit any jitter
    assert draw((60, 80), replace(recipe, center_crop=True), 1).angle != 0
