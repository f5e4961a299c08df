"""CutMix and ClassMix: what is pasted, how often, and that it follows from the position alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from triton_tools import DEVICE, run_with_triton

from atrous.data.dataset import Dataset
from atrous.data.shapes import write_shapes
from atrous.data.shards.pack import pack
from atrous.train.crops import Crops
from atrous.train.loader import Stream, batches, cut, positions_of
from atrous.train.mix import draw_mixing, mixed
from atrous.train.recipe import Recipe

RECIPE = Recipe(
    crop_size=(24, 32), batch_size=4, num_steps=4, num_workers=0, cutmix=0.4, classmix=0.5
)
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def same(first: Batches, second: Batches) -> bool:
    return len(first) == len(second) > 0 and all(
        torch.equal(a, b)
        for pair in zip(first, second, strict=True)
        for a, b in zip(*pair, strict=True)
    )


def drawn(rows: str, columns: str, classes: set[int]) -> torch.Tensor:
    kept = [number in classes for number in range(256)]
    return torch.tensor([sign == "x" for sign in rows + columns] + kept)


def test_neighbours_exchange_what_was_drawn() -> None:
    target = torch.tensor([
        [[0, 1, 1], [2, 2, 255]],
        [[3, 4, 255], [3, 3, 4]],
        [[7, 7, 7], [7, 7, 7]],
    ], dtype=torch.uint8)  # fmt: skip
    image = torch.stack([target, target + 100], dim=3)  # the colours tell the labels
    box = drawn("xx", ".xx", set(range(256)))
    classes = drawn("xx", "xxx", {1, 2, 9})
    expected = torch.tensor([
        [[0, 4, 255], [2, 3, 4]],  # a box of the second, ignored pixels included
        [[3, 1, 1], [2, 2, 4]],  # classes 1 and 2 of the first, before it was mixed
        [[7, 7, 7], [7, 7, 7]],  # without a neighbour
    ], dtype=torch.uint8)  # fmt: skip
    found = mixed(image, target, torch.stack([box, classes, box]))
    assert torch.equal(found[1], expected)
    assert torch.equal(found[0], torch.stack([expected, expected + 100], dim=3))
    nothing = torch.zeros(3, 2 + 3 + 256, dtype=torch.bool)
    assert all(map(torch.equal, mixed(image, target, nothing), (image, target)))


def test_boxes_have_half_of_the_area_and_classes_even_odds() -> None:
    recipe = replace(RECIPE, crop_size=(60, 80), cutmix=0.3, classmix=0.5)
    table = draw_mixing(range(2000), recipe).numpy()
    rows, columns, classes = np.split(table, [60, 140], axis=1)
    boxed, by_class = classes[:, 255], ~classes[:, 255] & rows.any(1)
    assert boxed.mean() == pytest.approx(0.3, abs=0.03)
    assert by_class.mean() == pytest.approx(0.5, abs=0.03)
    assert not table[~boxed & ~by_class].any()
    assert rows[by_class].all() and columns[by_class].all() and classes[boxed].all()
    np.testing.assert_allclose(classes[by_class][:, :255].mean(0), 0.5, atol=0.1)
    tall, wide = rows[boxed].sum(1), columns[boxed].sum(1)
    np.testing.assert_allclose(tall * wide, 2400, atol=60)
    assert tall.min() <= 31 and tall.max() >= 59 and wide.min() <= 41 and wide.max() >= 79
    for lines in (rows, columns):  # one box each, anywhere
        assert (np.abs(np.diff(lines[boxed].astype(int), prepend=0, append=0)).sum(1) == 2).all()
        assert lines[boxed][:, [0, -1]].any(0).all()


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"rotation": 40.0}, {"rare_crops": 0.5}])
def test_mixing_follows_from_the_position(tmp_path: Path, change: dict[str, Any]) -> None:
    """Whoever reads: one process or two, with workers, from shards, kept or not, resumed."""
    files = Dataset.open(write_shapes(tmp_path / "files", 7, 1, size=(40, 56)))
    samples, recipe = files.split("train"), replace(RECIPE, **change)

    def stream(recipe: Recipe, first_step: int = 0, rank: int = 0, processes: int = 1) -> Batches:
        crops = Crops(samples, recipe, (1.0, 2.0, 3.0, 4.0))
        return list(batches(crops, first_step, rank, processes))

    whole = stream(recipe)
    unmixed = stream(replace(recipe, cutmix=0, classmix=0))
    for (image, target), plain in zip(whole, unmixed, strict=True):
        parts = [part.unflatten(0, (2, 2)).flip(1).flatten(0, 1) for part in plain]
        pasted = (image != plain[0]).any(3)  # each pixel comes from one of both, with its label
        assert torch.equal(target[pasted], parts[1][pasted])
        assert torch.equal(image[pasted], parts[0][pasted])
        assert torch.equal(target[target != plain[1]], parts[1][target != plain[1]])
    assert not same(whole, unmixed)
    assert same(stream(recipe, 2), whole[2:])
    halves = [stream(replace(recipe, batch_size=2), 0, rank, 2) for rank in (0, 1)]
    joined = [tuple(map(torch.cat, zip(*pair, strict=True))) for pair in zip(*halves, strict=True)]
    assert same(joined, whole)  # type: ignore[arg-type]
    for how in ({"num_workers": 2}, {"keep_decoded": False, "num_workers": 1}):
        assert same(stream(replace(recipe, **how), 1), whole[1:])


@pytest.mark.slow
def test_shards_are_mixed_the_same_after_a_resume(tmp_path: Path) -> None:
    files = Dataset.open(write_shapes(tmp_path / "files", 7, 1, size=(40, 56)))
    pack(files, ["train"], tmp_path / "shards", 10_000)
    samples = Dataset.open(tmp_path / "shards").split("train")
    whole = list(batches(Crops(samples, RECIPE), 0))
    for workers in (0, 2):
        again = replace(RECIPE, num_workers=workers)
        assert same(list(batches(Crops(samples, again), 1)), whole[1:])


def triton_mixes_the_same(folder: str) -> None:
    """Crops that Triton cuts are mixed as those of the CPU; turned ones are cut by the CPU."""
    samples = Dataset.open(write_shapes(Path(folder), 3, 1, size=(40, 56))).split("train")
    device = torch.device(DEVICE)
    for rotation in (0.0, 25.0):
        recipe = replace(RECIPE, rotation=rotation, num_steps=2)
        kept = list(batches(Crops(samples, recipe), 0, 0, 1, device))
        streamed = replace(recipe, keep_decoded=False)
        assert same(list(batches(Crops(samples, streamed), 1, 0, 1, device)), kept[1:])
        for (image, target), (other, label) in zip(kept, cpu_batches(recipe, samples), strict=True):
            assert torch.equal(target.cpu(), label)
            difference = (image.cpu().float() - other.float()).abs().mean()
            assert difference == 0 if rotation else difference < 0.1


def cpu_batches(recipe: Recipe, samples: Any) -> Batches:
    """As the CPU cuts and mixes them, whether or not there is Triton."""
    found = []
    for positions in positions_of(recipe, 0, 0, 1):
        image, target = Stream(samples, Crops(samples, recipe), cut)[positions]
        found.append(mixed(image, target, draw_mixing(positions, recipe)))
    return found


@pytest.mark.gpu
@pytest.mark.slow
def test_in_triton(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")
    code = f"from test_mix import *; triton_mixes_the_same({str(tmp_path)!r})"
    run_with_triton(code, Path(__file__).parent)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_not_waited_for() -> None:
    image = torch.zeros(4, 24, 32, 3, dtype=torch.uint8, device="cuda")
    table = draw_mixing(range(4), RECIPE).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        mixed(image, image[..., 0], table)
    finally:
        torch.cuda.set_sync_debug_mode("default")
