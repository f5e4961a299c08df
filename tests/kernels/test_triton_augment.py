"""Crops cut in Triton, in its interpreter where there is no GPU, against those of the CPU."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from triton_tools import DEVICE, compile_for_gpu, run_with_triton

from atrous.data.sample import Sample
from atrous.train.augment import augment, draw
from atrous.train.recipe import Recipe

pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

STILL = Recipe(crop_size=(14, 19), brightness=0, contrast=0, saturation=0, scale=(1, 1), flip=0)
KINDS: list[dict[str, Any]] = [
    {},
    {"flip": 1.0},
    {"scale": (0.35, 0.35)},
    {"scale": (1.2, 3.0)},
    {"center_crop": True},
    {"brightness": 0.5},
    {"contrast": 0.5},
    {"saturation": 0.5},
    {"hue": 0.5},
    {"gamma": 1.0},
    {"scale": (0.5, 2.0), "flip": 0.5, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3,
     "hue": 0.1, "gamma": 0.5},
    {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0},
]  # fmt: skip


def photo(height: int, width: int, channels: int) -> Sample:
    """Smooth colours with noise, as photos have them, and black, white and grey pixels."""
    rng = np.random.default_rng(height)
    coarse = torch.from_numpy(rng.random((1, channels, height // 4 + 2, width // 4 + 2)))
    colors = 255 * interpolate(coarse, (height, width), mode="bilinear")[0].permute(1, 2, 0).numpy()
    image = (colors + rng.normal(0, 6, colors.shape)).clip(0, 255).astype(np.uint8)
    image[0, :3] = np.array([0, 255, 90])[:, None]
    return Sample(image, rng.integers(0, 5, (height, width), np.uint8), "a")


def compare(channels: int, kinds: list[dict[str, Any]]) -> None:
    """Cut crops of some kinds from images of several sizes in one batch."""
    from atrous.train.decoded import Decoded
    from atrous.train.packed import Packed, cut_packed, pack, pack_kept

    sizes = [(22, 31), (9, 40), (37, 12), (14, 19)]
    samples = [photo(*size, channels) for size in sizes]
    pairs, expected = [], []
    for seed, kind in enumerate(kinds):
        recipe, sample = replace(STILL, **kind), samples[seed % len(samples)]
        crop = draw(sample.label.shape, recipe, seed)
        pairs.append((seed % len(samples), crop))
        expected.append(augment(sample, crop, recipe.crop_size))

    recipe = replace(STILL, gamma=1.0)  # some crops are jittered

    def cut(packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        moved = Packed(packed.pixels.to(DEVICE), packed.table.to(DEVICE), packed.channels)
        image, target = cut_packed(moved, recipe)
        return image.cpu(), target.cpu()

    image, target = cut(pack(((samples[i], crop) for i, crop in pairs), recipe.crop_size))
    for i, kind in enumerate(kinds):
        difference = (image[i].int() - expected[i][0].int()).abs().float()
        allowed = 0.02 if kind else 0.0  # grey levels, in the mean
        assert difference.mean() <= allowed and difference.max() <= 3, (kind, difference.mean())
        assert torch.equal(target[i], expected[i][1]), kind

    parts = [part.ravel() for sample in samples for part in (sample.image, sample.label)]
    pixels = torch.from_numpy(np.concatenate(parts))
    starts = np.cumsum([0, *(part.size for part in parts)])[:-1:2]
    kept = pack_kept(Decoded(pixels, starts, np.array(sizes), channels), pairs[-2:])
    assert torch.equal(cut(kept)[0], image[-2:]) and torch.equal(cut(kept)[1], target[-2:])


def compare_all() -> None:
    compare(3, KINDS)
    for bands in (1, 4):
        compare(bands, [{"brightness": 0.5, "contrast": 0.5, "gamma": 1.0}, {"flip": 1.0}])


def test_equals_the_cpu() -> None:
    run_with_triton("from test_triton_augment import *; compare_all()", Path(__file__).parent)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("channels", [3, 4])
def test_compiles_for_a_gpu(capability: int, channels: int) -> None:
    from atrous.kernels.triton import augment

    pointers = {"pixels": "*u8", "image": "*u8", "target": "*u8"}
    pointers |= {"table": "*i64", "sums": "*i64", "floats": "*fp32"}
    constants = {"channels": channels, "block": augment._BLOCK, "parts": augment._MOST_PARTS}
    for kernel, warps in ((augment._cut, augment._CUT_WARPS), (augment._add_up, 4),
                          (augment._jitter, 4)):  # fmt: skip
        names = kernel.arg_names
        kinds = {name: kind for name, kind in pointers.items() if name in names}
        fixed = {name: value for name, value in constants.items() if name in names}
        found = compile_for_gpu(kernel, kinds, fixed, num_warps=warps, capability=capability)
        assert found.spilled == 0 and found.registers <= 80, (kernel, found)
