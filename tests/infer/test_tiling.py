"""Tiles against whole images: with a network whose receptive field is known, and with fake ones."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from color_bundle import COLORS, TAXONOMY
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from atrous.errors import InputError
from atrous.infer.bundle import BundleMetadata
from atrous.infer.runtimes.base import Runtime
from atrous.infer.tiling import WHOLE_PIXELS, TiledRuntime, label_rows
from atrous.infer.upsample import logits_to_labels
from atrous.models.layers import crop, pad_image, upsample

STRIDE = 4
METADATA = BundleMetadata(
    taxonomy=TAXONOMY, stride=STRIDE, precision="fp32", model="", licence="CC0", version="0"
)
REACH = 8
"""Pixels that `Convolutions` sees to each side of the four that a cell covers, at most."""


@dataclass
class Fake(Runtime):
    """What runtimes share."""

    name: str = "fake"
    model_name: str = "fake"
    threads: int = 1
    precision: str = "fp32"
    metadata: BundleMetadata = METADATA
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.sizes.append(images.shape[1:3])
        return self.logits(images)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Shades of grey to logits that fall with the class."""
        cells = images[:, ::STRIDE, ::STRIDE, 0].astype(np.float32)  # (B, h, w)
        return np.stack([cells / (k + 1) for k in range(len(COLORS))], axis=1)


class Convolutions(Fake):
    """A network of three convolutions, which pads and crops as all of ours do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, len(COLORS), 3, padding=1),
        )

    def logits(self, images: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5
        with torch.inference_mode():
            logits = self.network(pad_image(image, STRIDE, training=False))
            return crop(logits, image, STRIDE).numpy()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def rows_of(image: np.ndarray):
    return lambda start, stop: (image[start:stop], np.ones((stop - start, image.shape[1]), bool))


def far_from_borders(length: int, tile: int, reach: int) -> np.ndarray:
    """Whether each pixel along a side is over `reach` away from every border between tiles."""
    last = max(0, length + -length % 32 - tile)
    starts = [*range(0, last, tile - tile // 4), last]
    borders = [*starts[1:], *(start + tile for start in starts[:-1])]
    far = np.ones(length, bool)
    for border in borders:
        far &= np.abs(np.arange(length) + 0.5 - border) > reach
    return far


sizes = st.tuples(st.integers(1, 420), st.integers(1, 420))


@settings(max_examples=25, deadline=None)
@given(size=sizes, tile=st.sampled_from([128, 256]))
def test_away_from_borders_tiles_are_the_whole(size: tuple[int, int], tile: int) -> None:
    image, network = noise(*size), Convolutions()
    whole = torch.from_numpy(network(image[None]))
    labels = np.concatenate([rows for rows, _ in label_rows(network, rows_of(image), size, tile)])
    full = upsample(whole, STRIDE, size)[0]  # (K, H, W)
    best, second = full.topk(2, dim=0).values
    far = [far_from_borders(side, tile, REACH + STRIDE) for side in size]  # and its neighbours
    settled = far[0][:, None] & far[1] & (best - second > 1e-5).numpy()
    assert labels.shape == size
    assert (labels == full.argmax(0).numpy())[settled].all()


def test_that_network_tells_tiles_from_the_whole_at_their_borders() -> None:
    image, network = noise(96, 300), Convolutions()
    whole, tiles = network(image[None])[0], TiledRuntime(network, 128)(image[None])[0]
    differs = np.abs(whole - tiles).max((0, 1)) > 1e-5  # (w,)
    near = ~far_from_borders(300, 128, REACH)
    assert differs.any()
    assert not differs[~near.reshape(-1, STRIDE).any(1)].any()


@settings(max_examples=25, deadline=None)
@given(size=sizes)
def test_strips_have_the_labels_of_all_rows_at_once(size: tuple[int, int]) -> None:
    image, network = noise(*size), Convolutions()
    logits = TiledRuntime(network, 128)(image[None])[0]
    labels = np.concatenate([rows for rows, _ in label_rows(network, rows_of(image), size, 128)])
    assert np.array_equal(labels, logits_to_labels(logits, STRIDE, size))


@pytest.mark.parametrize("size", [(1, 1), (128, 128), (129, 128), (300, 1000), (1000, 33)])
def test_weights_sum_to_one(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    logits = TiledRuntime(Fake(), 128)(image[None])[0]
    assert logits.shape == (len(COLORS), -(-size[0] // STRIDE), -(-size[1] // STRIDE))
    assert np.allclose(logits[0], 200, rtol=1e-6)


def test_between_two_tiles_the_change_is_smooth() -> None:
    class Counting(Fake):
        def logits(self, images: np.ndarray) -> np.ndarray:
            return np.full((1, 4, 32, images.shape[2] // STRIDE), len(self.sizes), np.float32)

    row = TiledRuntime(Counting(), 128)(np.zeros((1, 128, 224, 3), np.uint8))[0, 0, 0]  # (56,)
    steps = np.diff(row)
    assert row[:24].tolist() == [1] * 24
    assert row[-24:].tolist() == [2] * 24
    assert (steps[23:31] > 0).all()
    assert steps.max() < 0.2


def test_several_calls_at_a_time_change_nothing() -> None:
    image, network = noise(300, 500), Convolutions()
    one, three = (
        np.concatenate(
            [rows for rows, _ in label_rows(network, rows_of(image), (300, 500), 128, calls)]
        )
        for calls in (1, 3)
    )
    assert np.array_equal(one, three)


def test_each_row_is_asked_for_in_its_turn_and_tiles_without_data_are_left_out() -> None:
    image, runtime = noise(500, 400), Fake()
    asked: list[tuple[int, int]] = []
    told: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append((start, stop))
        return image[start:stop], np.arange(400) + np.zeros((stop - start, 1)) < 250

    for _ in label_rows(runtime, read, (500, 400), 128, progress=lambda *done: told.append(done)):
        pass
    assert asked == [(0, 128), (96, 224), (192, 320), (288, 416), (384, 500)]
    assert runtime.sizes == [(128, 128)] * 12 + [(116, 128)] * 3  # three of the four in a row
    assert told == [(done, 20) for done in range(1, 21)]


def test_only_large_images_go_in_tiles_by_themselves() -> None:
    runtime = Fake()
    for height in (2048, 2049):
        TiledRuntime(runtime)(np.zeros((1, height, 2048, 3), np.uint8))
    assert WHOLE_PIXELS == 2048 * 2048
    assert runtime.sizes == [(2048, 2048)] + [(1024, 1024)] * 6 + [(993, 1024)] * 3


@pytest.mark.parametrize("tile", [-128, 0, 64, 100, 1000])
def test_tiles_that_cannot_be(tile: int) -> None:
    with pytest.raises(InputError, match=f"--tile {tile}: give a multiple of 128"):
        TiledRuntime(Fake(), tile)
