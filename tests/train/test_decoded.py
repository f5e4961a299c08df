"""Sets that are decoded once and kept, and batches that Triton cuts."""

import multiprocessing
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import weights
from torch import nn
from triton_tools import DEVICE, run_with_triton

import atrous.train.decoded
from atrous.data.dataset import Dataset
from atrous.data.shapes import write_shapes
from atrous.data.shards.pack import pack
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.models.network import Output
from atrous.progress import untracked
from atrous.train.crops import Crops
from atrous.train.decoded import keep_decoded
from atrous.train.loader import CPU, Stream, batches, default_workers
from atrous.train.loop import StepInfo, train
from atrous.train.memory import available_memory
from atrous.train.recipe import Recipe

RECIPE = Recipe(crop_size=(12, 16), batch_size=2, num_steps=6, num_workers=0)
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def shapes(folder: Path) -> Split:
    """Five small images."""
    split = Dataset.open(write_shapes(folder, 5, 1, size=(20, 28))).split("train")
    assert isinstance(split, Split)
    return split


def same(first: Batches, second: Batches) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for pair in zip(first, second, strict=True)
        for a, b in zip(*pair, strict=True)
    )


def test_a_kept_set_gives_the_crops_of_a_streamed_one(tmp_path: Path) -> None:
    samples = shapes(tmp_path)
    lines: list[str] = []
    kept = list(batches(Crops(samples, RECIPE), 0, 0, 1, CPU, lines.append))
    assert lines == ["5 training images kept decoded, 0.1 MB in memory"]
    streamed = replace(RECIPE, keep_decoded=False)
    assert same(kept, list(batches(Crops(samples, streamed), 0, 0, 1, CPU, lines.append)))
    assert same(kept[1:], list(batches(Crops(samples, RECIPE), 1, 0, 1, CPU, lines.append)))
    assert len(lines) == 2  # nothing is said of sets that stream because the recipe says so


@pytest.mark.slow
def test_worker_processes_read_kept_sets_and_shards(tmp_path: Path) -> None:
    files = Dataset.open(write_shapes(tmp_path / "files", 7, 1, size=(20, 28)))
    pack(files, ["train"], tmp_path / "shards", 10_000)
    shards = Dataset.open(tmp_path / "shards").split("train")
    streamed = list(batches(Crops(shards, replace(RECIPE, keep_decoded=False)), 0))
    assert same(streamed, list(batches(Crops(shards, replace(RECIPE, num_workers=2)), 0)))


@pytest.mark.skipif(sys.platform != "linux", reason="others share memory without /dev/shm")
def test_workers_inherit_a_kept_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.14 does not fork by default; the set would be copied to /dev/shm, often small."""
    started = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("forkserver", force=True)

    def pickled(stream: Stream) -> None:
        raise AssertionError("a kept set was pickled")

    monkeypatch.setattr(Stream, "__getstate__", pickled)
    try:
        assert len(list(batches(Crops(shapes(tmp_path), replace(RECIPE, num_workers=1)), 0))) == 6
    finally:
        multiprocessing.set_start_method(started, force=True)


def test_a_set_that_is_read_once_is_not_kept(tmp_path: Path) -> None:
    lines: list[str] = []
    samples = shapes(tmp_path)
    recipe = replace(RECIPE, num_steps=4)  # 8 crops of 5 images
    list(batches(Crops(samples, recipe), 0, 0, 1, CPU, lines.append))
    assert not lines


@pytest.mark.parametrize("estimate", [True, False])
def test_a_set_that_is_too_large_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimate: bool
) -> None:
    """It is given up by the estimate, or while it is decoded."""
    lines: list[str] = []
    need, reason = 5 * 20 * 28 * 4, "more than 0.1 MB, and 5 of them promised 0.1 MB in all"
    if estimate:
        reason = "about 0.1 MB, and 0.1 MB of memory may be taken"
        monkeypatch.setattr(atrous.train.decoded, "available_memory", lambda: 4 * need - 4)
    else:
        monkeypatch.setattr(atrous.train.decoded, "_MARGIN", 0.9)
    samples = shapes(tmp_path)
    assert len(list(batches(Crops(samples, RECIPE), 0, 0, 1, CPU, lines.append))) == 6
    assert lines == [f"5 training images decoded anew for each crop: to keep them takes {reason}"]


def test_a_damaged_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    samples = shapes(tmp_path)
    path = samples.image_path(samples.keys[3])
    path.write_bytes(path.read_bytes()[:60])
    for recipe in (RECIPE, replace(RECIPE, keep_decoded=False)):
        with pytest.raises(InputError, match=path.name):
            list(batches(Crops(samples, recipe), 0))


def test_progress_counts_the_images(tmp_path: Path) -> None:
    seen: list[object] = []

    def track(step: str) -> object:
        seen.append(step)
        return untracked(step)

    kept = keep_decoded(shapes(tmp_path), CPU, 1, lambda line: None, track)  # type: ignore[arg-type]
    assert seen == ["images decoded"] and kept is not None
    for index, sample in enumerate(shapes(tmp_path / "again")):
        assert np.array_equal(kept[index].image, sample.image)
        assert np.array_equal(kept[index].label, sample.label)


@pytest.mark.parametrize("version", [1, 2])
def test_available_memory_is_what_the_container_leaves(tmp_path: Path, version: int) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    line, base = ("4:memory:/a/b", "memory") if version == 1 else ("0::/a/b", "")
    (tmp_path / "proc/self/cgroup").write_text(f"3:cpu:/a\n{line}\n")
    everywhere = available_memory(tmp_path)
    assert everywhere > 1 << 26
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    if version == 2:
        names = ("memory.max", "memory.current", "inactive_file")
    limits = {"a/b": "max", "a": str(50_000_000), "": str(1 << 62)}
    for folder, limit in limits.items():
        place = tmp_path / "sys/fs/cgroup" / base / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / names[0]).write_text(f"{limit}\n")
        (place / names[1]).write_text("20000000\n")
        (place / "memory.stat").write_text(f"anon 7\n{names[2]} 5000000\n")
    assert available_memory(tmp_path) == 35_000_000


def test_workers_are_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    table = ((1, 1, 1, 1), (2, 1, 1, 1), (16, 2, 15, 7), (64, 8, 16, 16))
    for cores, on_cpu, on_gpu, of_two in table:
        monkeypatch.setattr("atrous.train.loader.usable_cores", lambda n=cores: n)
        assert default_workers(CPU, 1) == on_cpu and default_workers(gpu, 1) == on_gpu
        assert default_workers(gpu, 2) == of_two


def triton_cuts_the_same_crops(folder: str) -> None:
    """Kept on the device, in memory, and streamed by this process and another."""
    samples, device = shapes(Path(folder)), torch.device(DEVICE)
    for rare_crops in (0.0, 0.7):
        recipe, rarity = replace(RECIPE, num_steps=5, rare_crops=rare_crops), (0.0, 1.0, 2.0, 0.0)
        kept = list(batches(Crops(samples, recipe, rarity), 0, 0, 1, device))
        assert kept[0][0].shape == (2, 12, 16, 3) and kept[0][0].device.type == DEVICE
        plain = replace(recipe, num_steps=2, keep_decoded=False)
        on_cpu = list(batches(Crops(samples, plain, rarity), 0))
        for (image, target), (other, label) in zip(kept, on_cpu, strict=False):
            assert (image.cpu().float() - other.cpu().float()).abs().mean() < 0.1
            assert torch.equal(target.cpu(), label.cpu())
        for workers in (0, 1):
            streamed = replace(recipe, keep_decoded=False, num_workers=workers)
            rest = list(batches(Crops(samples, streamed, rarity), 3, 0, 1, device))
            assert same(kept[3:], rest)


class Tiny(nn.Module):
    """A network that steps in no time."""

    stride = 4
    auxiliary_strides = ()

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 4, 4, stride=4)

    def forward(self, image: torch.Tensor) -> Output:
        return Output(self.head(image))


def resumed_training_is_exact(folder: str) -> None:
    data = write_shapes(Path(folder), 5, 1, size=(20, 28))
    recipe = replace(RECIPE, num_steps=5, checkpoint_every=2, warmup_steps=0, pretrained=False)

    def stop(info: StepInfo) -> None:
        if info.step == 2:
            raise KeyboardInterrupt

    whole, cut = Path(folder) / "whole", Path(folder) / "cut"
    lines: list[str] = []
    train(recipe, str(data), whole, network=Tiny(), notify=lines.append)
    assert any("kept decoded" in line for line in lines), lines
    with suppress(KeyboardInterrupt):
        train(recipe, str(data), cut, network=Tiny(), on_step=stop)
    streamed = replace(recipe, keep_decoded=False, cuda_graph=False)  # change no bit
    train(streamed, str(data), cut, network=Tiny(), resume=True)
    first, second = weights(whole), weights(cut)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_resume_may_read_the_images_otherwise(tmp_path: Path) -> None:
    resumed_training_is_exact(str(tmp_path))


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("check", ["triton_cuts_the_same_crops", "resumed_training_is_exact"])
def test_in_triton(tmp_path: Path, check: str) -> None:
    pytest.importorskip("triton", reason="Triton comes with torch for CUDA on Linux")
    code = f"from test_decoded import *; {check}({str(tmp_path)!r})"
    run_with_triton(code, Path(__file__).parent)
