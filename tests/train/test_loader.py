from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from atrous.data.dataset import Dataset
from atrous.data.sample import Sample
from atrous.data.shapes import write_shapes
from atrous.data.shards.pack import pack
from atrous.data.shards.read import Shards
from atrous.train.augment import aimed, augment, draw
from atrous.train.crops import Crops
from atrous.train.loader import batches
from atrous.train.recipe import Recipe

PLAIN = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def sample(height: int, width: int) -> Sample:
    """A picture whose pixels tell where they came from, and whose label is 1 everywhere."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    image = np.stack([y, x, np.full_like(y, 200)], axis=2)
    return Sample(image, np.ones((height, width), np.uint8), "x")


def crop(recipe: Recipe, of: Sample, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    image, target = augment(of, draw(of.label.shape, recipe, seed), recipe.crop_size)
    assert image.dtype == target.dtype == torch.uint8
    return image.numpy(), target.numpy()


def test_image_and_label_move_together() -> None:
    picture = sample(40, 60)
    picture = Sample(picture.image, picture.image[..., 1] // 10, "x")  # label = column / 10
    recipe = Recipe(crop_size=(32, 32), scale=(1.0, 1.0), **PLAIN)
    for seed in range(8):
        image, target = crop(recipe, picture, seed)
        assert (image[..., 1] // 10 == target).all()


def test_padding_is_ignored() -> None:
    recipe = Recipe(crop_size=(64, 64), scale=(0.5, 0.5), **PLAIN)
    image, target = crop(recipe, sample(40, 60))
    assert image.shape == (64, 64, 3) and target.shape == (64, 64)
    assert (target == 1).sum() == 20 * 30 and (target == 255).sum() == 64 * 64 - 20 * 30
    assert (image[target == 255] == 127).all()


def test_centre_crop_of_the_paper() -> None:
    recipe = Recipe(crop_size=(224, 224), center_crop=True, **PLAIN)
    image, target = crop(recipe, sample(250, 240))
    assert image[0, 0].tolist() == [13, 8, 200] and (target == 1).all()
    image, target = crop(recipe, sample(100, 240))
    assert (target == 1).sum() == 100 * 224 and (target[:62] == 255).all()


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "gamma"])
def test_jitter_changes_the_image_alone(name: str) -> None:
    still = Recipe(crop_size=(30, 30), scale=(1.0, 1.0), flip=0.0, **PLAIN)
    moved = Recipe(crop_size=(30, 30), scale=(1.0, 1.0), flip=0.0, **PLAIN | {name: 0.4})
    before, after = crop(still, sample(30, 30)), crop(moved, sample(30, 30))
    assert (before[0] != after[0]).any() and (before[1] == after[1]).all()


def test_a_seed_fixes_the_crop_and_leaves_the_global_state() -> None:
    recipe = Recipe(crop_size=(32, 32), gamma=0.5)
    state = torch.random.get_rng_state()
    first, again, other = (crop(recipe, sample(40, 60), seed)[0] for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_mask_is_never_interpolated() -> None:
    picture = sample(40, 60)
    picture.label[:, 30:] = 7
    recipe = Recipe(crop_size=(50, 50), scale=(0.5, 2.0))
    seen = {value for seed in range(10) for value in np.unique(crop(recipe, picture, seed)[1])}
    assert seen <= {1, 7, 255}


def test_processes_share_what_one_would_read(tmp_path: Path) -> None:
    samples = Dataset.open(write_shapes(tmp_path, 7, 1)).split("train")
    kinds = {"crop_size": (32, 32), "num_workers": 0}
    one = list(batches(Crops(samples, Recipe(batch_size=4, num_steps=4, **kinds)), 0))
    half = Recipe(batch_size=2, num_steps=4, **kinds)
    two = [list(batches(Crops(samples, half), 0, rank, 2)) for rank in (0, 1)]
    for whole, left, right in zip(one, *two, strict=True):
        for part in (0, 1):
            assert torch.equal(whole[part], torch.cat([left[part], right[part]]))
    rest = list(batches(Crops(samples, Recipe(batch_size=4, num_steps=4, **kinds)), 3))
    assert len(rest) == 1 and torch.equal(rest[0][0], one[3][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_a_given_time_are_those_of_given_steps_and_go_on(
    tmp_path: Path, workers: int
) -> None:
    samples = Dataset.open(write_shapes(tmp_path, 5, 1, size=(32, 32))).split("train")
    recipe = Recipe(batch_size=2, num_steps=4, num_workers=workers, crop_size=(16, 16))
    steps = list(batches(Crops(samples, recipe), 1))
    endless = batches(Crops(samples, replace(recipe, minutes=1)), 1)
    for (image, target), (first, second) in zip(steps, endless, strict=False):
        assert torch.equal(image, first) and torch.equal(target, second)
    assert len(list(islice(endless, 5))) == 5


def test_an_epoch_has_every_sample_once(tmp_path: Path) -> None:
    samples = Dataset.open(write_shapes(tmp_path, 6, 1, size=(32, 32))).split("train")
    recipe = Recipe(batch_size=6, num_steps=2, num_workers=0, crop_size=(32, 32), scale=(1.0, 1.0),
                    flip=0.0, **PLAIN)  # fmt: skip
    expected = sorted(sample.image.sum() for sample in samples)
    epochs = [image.flatten(1).sum(1).tolist() for image, _ in batches(Crops(samples, recipe), 0)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected and epochs[0] != epochs[1]


@pytest.mark.slow
def test_shards_give_every_sample_once_and_the_same_after_a_resume(tmp_path: Path) -> None:
    files = Dataset.open(write_shapes(tmp_path / "files", 12, 1, size=(32, 32)))
    pack(files, ["train"], tmp_path / "shards", 10_000)  # one or two samples in each
    samples = Dataset.open(tmp_path / "shards").split("train")
    assert isinstance(samples, Shards) and len(samples.paths) > 4
    kinds = {"crop_size": (32, 32), "scale": (1.0, 1.0), "flip": 0.0, **PLAIN}
    recipe = Recipe(batch_size=4, num_steps=6, num_workers=0, **kinds)
    whole = list(batches(Crops(samples, recipe), 0))
    for epoch in (whole[:3], whole[3:]):
        images = torch.cat([image for image, _ in epoch]).flatten(1).sum(1)
        assert sorted(images.tolist()) == sorted(s.image.sum() for s in files.split("train"))
    order = [image.flatten(1).sum(1).tolist() for image, _ in whole]
    assert order[:3] != order[3:]
    for workers in (0, 2):  # from the middle of an epoch, in this process and in others
        again = Recipe(batch_size=4, num_steps=6, num_workers=workers, **kinds)
        rest = list(batches(Crops(samples, again), 2))
        assert len(rest) == 4
        assert all(torch.equal(a[0], b[0]) for a, b in zip(rest, whole[2:], strict=True))


@pytest.mark.parametrize(("size", "crop_size"), [((40, 60), (16, 16)), ((12, 60), (24, 20))])
def test_an_aimed_crop_holds_a_pixel_of_the_rare_class(
    size: tuple[int, int], crop_size: tuple[int, int]
) -> None:
    picture = sample(*size)
    picture.label[7, 41:44] = 2
    recipe = Recipe(crop_size=crop_size, rare_crops=1, scale=(1.0, 2.0), **PLAIN)
    corners = set()
    for seed in range(30):
        drawn = draw(size, recipe, seed)
        crop = aimed(drawn, picture.label, recipe, (0.0, 0.0, 5.0), seed)
        assert crop == aimed(drawn, picture.label, recipe, (0.0, 0.0, 5.0), seed)
        assert replace(crop, corner=drawn.corner) == drawn
        _, target = augment(picture, crop, crop_size)
        assert (target == 2).any()
        shown = min(crop_size[0], crop.size[0]) * min(crop_size[1], crop.size[1])
        assert (target != 255).sum() == shown  # no more padding than any crop has
        corners.add(crop.corner)
    assert len(corners) > 10
    assert aimed(drawn, picture.label, recipe, (0.0, 0.0, 0.0), 0) == drawn
    assert aimed(drawn, np.full(size, 255, np.uint8), recipe, (1.0,), 0) == drawn


def test_classes_are_aimed_at_by_their_rarity_and_as_often_as_asked() -> None:
    picture = sample(64, 64)
    picture.label[:, 40:] = 2
    picture.label[:, 50:] = 3
    recipe = Recipe(crop_size=(1, 1), scale=(1.0, 1.0), rare_crops=0.5)
    drawn, seen = draw((64, 64), recipe, 0), np.zeros(4)
    for seed in range(1000):
        crop = aimed(drawn, picture.label, recipe, (9.0, 1.0, 3.0, 0.0), seed)
        seen[picture.label[crop.corner] if crop != drawn else 0] += 1
    np.testing.assert_allclose(seen / 1000, [0.5, 0.125, 0.375, 0], atol=0.04)


def test_a_stream_aims_its_crops(tmp_path: Path) -> None:
    samples = Dataset.open(write_shapes(tmp_path, 6, 1)).split("train")
    recipe = Recipe(batch_size=6, num_steps=2, num_workers=0, crop_size=(16, 16), scale=(1.0, 1.0),
                    rare_crops=1)  # fmt: skip
    for rarity, found in (((0.0, 1.0), True), ((0.0, 0.0), False)):
        crops = torch.cat([target for _, target in batches(Crops(samples, recipe, rarity), 0)])
        holds = sum(bool((sample.label == 1).any()) for sample in samples)  # in each of two epochs
        assert ((crops == 1).flatten(1).any(1).sum() == 2 * holds) == found


@pytest.mark.parametrize("channels", [1, 4])
def test_brightness_and_contrast_of_any_bands(channels: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(50, 150, (20, 20, channels), np.uint8)
    sample = Sample(image, np.zeros((20, 20), np.uint8), "a")
    recipe = Recipe(crop_size=(20, 20), center_crop=True, brightness=0, contrast=0, saturation=0.3)
    changed, _ = crop(recipe, sample, 1)
    assert np.array_equal(changed, image)  # saturation is of colours
    recipe = replace(recipe, brightness=0.4, gamma=0.2, hue=0.1)
    brighter = [crop(recipe, sample, seed)[0] for seed in range(4)]
    assert all(b.shape == image.shape and not np.array_equal(b, image) for b in brighter)
    factors = brighter[0].astype(float) / image
    assert factors.max() - factors.min() < 0.6
    recipe = replace(recipe, brightness=0, gamma=0, contrast=0.5)
    changed, _ = crop(recipe, sample, 3)
    assert changed.mean() == pytest.approx(image.mean(), abs=1)
    assert changed.std() != pytest.approx(image.std(), rel=0.02)
