"""Distillation: teachers' probabilities, their loss, and outputs that are kept."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from msgspec import structs
from PIL import Image
from small_training import SMALL, run_in_two_processes, same, weights, write_run
from triton_tools import run_with_triton

from atrous.data.dataset import Dataset
from atrous.data.sample import Sample
from atrous.data.shapes import write_shapes
from atrous.errors import InputError
from atrous.images.bands import Bands
from atrous.infer.runtimes.torch import TorchRuntime
from atrous.infer.tta import AugmentedRuntime
from atrous.kernels.upsample import interpolate
from atrous.models.layers import resize
from atrous.progress import untracked
from atrous.run import Run, RunData
from atrous.train import Recipe, StepInfo, loop, train
from atrous.train.augment import Crop, augment
from atrous.train.crops import Crops
from atrous.train.loader import batches
from atrous.train.teacher import Teachers, _sampled, distillation_loss, inside
from atrous.train.teacher_views import TeacherViews, packed, unpacked

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 5, 2, size=(64, 96))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> list[str]:
    """Run folders of two networks of random weights, one of stride 4 and one of stride 16."""
    folder, taxonomy = tmp_path_factory.mktemp("teachers"), Dataset.open(str(shapes)).taxonomy
    return [
        write_run(folder / model, replace(SMALL, model=model, decoder_channels=256), taxonomy, seed)
        for seed, model in enumerate(("deeplabv3plus", "deeplabv3"))
    ]


def of(recipe: Recipe, shapes: Path) -> Teachers:
    return Teachers(recipe, Dataset.open(str(shapes)).taxonomy.classes, 3, CPU)


def photos(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)


@pytest.mark.parametrize(("flip", "scales"), [(False, ()), (True, ()), (True, (1.0, 1.5))])
def test_teachers_agree_with_the_augmented_runtime(
    shapes: Path, teachers: list[str], flip: bool, scales: tuple[float, ...]
) -> None:
    recipe = replace(SMALL, teacher=teachers[:1], teacher_flip=flip, teacher_scales=scales)
    images = photos(50, 75)
    runtime = AugmentedRuntime(TorchRuntime(teachers[0]), flip, scales)
    ours = of(recipe, shapes)(torch.from_numpy(images), 4)
    expected = torch.from_numpy(np.exp(runtime(images)))
    assert ours.shape == (2, 4, 13, 19)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0.005)  # it resizes to whole levels


def test_the_mean_is_of_probabilities_on_the_grid_of_the_student(
    shapes: Path, teachers: list[str]
) -> None:
    images = torch.from_numpy(photos(50, 75))
    fine, coarse = (of(replace(SMALL, teacher=(t,)), shapes) for t in teachers)
    enlarged = resize(coarse(images, 16), 4)[..., :13, :19]
    both = of(replace(SMALL, teacher=teachers), shapes)(images, 4)
    torch.testing.assert_close(both, (fine(images, 4) + enlarged) / 2)
    torch.testing.assert_close(both.sum(1), torch.ones(2, 13, 19))
    warm = of(replace(SMALL, teacher=teachers, teacher_temperature=50.0), shapes)(images, 4)
    torch.testing.assert_close(warm, torch.full_like(warm, 0.25), rtol=0, atol=0.1)


def test_in_bfloat16_teachers_are_nearly_the_same(shapes: Path, teachers: list[str]) -> None:
    recipe, images = replace(SMALL, teacher=teachers), torch.from_numpy(photos(64, 64))
    exact, near = (of(r, shapes)(images, 8) for r in (recipe, replace(recipe, precision="bf16")))
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, exact, rtol=0, atol=0.05)


@pytest.mark.parametrize(("steps", "cells"), [((2, 2), (4, 6)), ((0.375, 1.5), (20, 8))])
def test_samples_are_those_of_the_runtimes(
    steps: tuple[float, float], cells: tuple[int, int]
) -> None:
    values = torch.rand(2, 3, 8, 11)
    expected = [interpolate(part, steps, cells) for part in values.numpy()]
    axes = [(step, (step - 1) / 2) for step in steps]
    torch.testing.assert_close(_sampled(values, axes, cells), torch.from_numpy(np.stack(expected)))


def test_the_loss_is_the_mean_divergence() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    teacher, everywhere = torch.randn(2, 3, 4, 5), torch.ones(2, 4, 5, dtype=torch.bool)
    for temperature in (1.0, 4.0):
        p, q = (values.div(temperature).softmax(1) for values in (teacher, logits))
        expected = temperature**2 * (p * (p / q).log()).sum(1).mean()
        loss = distillation_loss(logits, p, temperature, everywhere)
        torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, temperature * (q - p) / 40)
    certain = torch.zeros(2, 3, 4, 5).index_fill(1, torch.tensor([1]), 1.0)
    assert distillation_loss(logits, certain, 1.0, everywhere).isfinite()
    torch.testing.assert_close(
        distillation_loss(logits, logits.detach().softmax(1), 1.0, everywhere), torch.tensor(0.0)
    )

    part = torch.rand(2, 4, 5) < 0.5
    p, q = teacher.softmax(1), logits.softmax(1)
    divergence = (p * (p / q).log()).sum(1)
    torch.testing.assert_close(distillation_loss(logits, p, 1.0, part), divergence[part].mean())
    assert distillation_loss(logits, p, 1.0, ~everywhere) == 0


@pytest.mark.parametrize("corner", [(-9, 20), (5, -31), (-6, -30), (3, 0)])
def test_padding_teaches_nothing_in_any_colors(corner: tuple[int, int]) -> None:
    sample = Sample(photos(40, 60)[0], np.zeros((40, 60), np.uint8), "photo")
    crop = Crop((40, 60), corner, True, 0.0, (("brightness", 1.3), ("contrast", 0.7)), 1.2)
    image, target = augment(sample, crop, (37, 50))
    found = inside(image[None], 4)[0]
    cells = (target != 255)[2::4, 2::4]  # the last cells are narrower than their middle
    assert found.shape == (10, 13) and (found[: len(cells), : cells.shape[1]] == cells).all()
    assert not inside(torch.full((1, 8, 8, 3), 90, dtype=torch.uint8), 4).any()


def test_bytes_keep_probabilities() -> None:
    p = (8 * torch.randn(2, 20, 30, 30)).softmax(1)
    kept = unpacked(torch.from_numpy(packed(p.numpy())))
    torch.testing.assert_close(kept, p, rtol=0, atol=0.006)
    assert (kept[p > 1e-5] > 0).all()


def test_each_epoch_shows_the_next_view_in_new_colors(shapes: Path) -> None:
    samples = Dataset.open(str(shapes)).split("train")
    recipe = replace(SMALL, teacher=("a",), teacher_views=2, gamma=0.2)
    drawn = Crops(samples, recipe)
    epochs = range(4 * 5)
    crops = {(drawn.index(at), at // 5): drawn.at(at, (64, 96)) for at in epochs}
    still = {key: replace(crop, jitter=(), gamma=None) for key, crop in crops.items()}
    for index in range(5):
        assert still[index, 0] == still[index, 2] != still[index, 1] == still[index, 3]
        assert crops[index, 0] != crops[index, 2]


def test_kept_outputs_are_those_of_the_crops(
    shapes: Path, teachers: list[str], tmp_path: Path
) -> None:
    plain = replace(SMALL, brightness=0, contrast=0, saturation=0, num_steps=8, rotation=20)
    recipe = replace(plain, teacher=teachers, teacher_views=3, accumulation_steps=2)
    samples, network = Dataset.open(str(shapes)).split("train"), of(recipe, shapes)
    crops = Crops(samples, recipe)
    views = TeacherViews(tmp_path, crops, network.digests, "keys", 4)
    views.compute(network, Accelerator(cpu=True), untracked)
    still = Crops(samples, replace(recipe, rotation=0))
    assert TeacherViews(tmp_path, still, network.digests, "keys", 4).folder != views.folder
    files = sorted(views.folder.iterdir())
    assert [file.name for file in files] == [f"{index}.npz" for index in range(5)]
    taught = views.batches(range(2 * n, 2 * n + 2) for n in range(16))
    for (image, _), kept in zip(batches(crops, 0), taught, strict=True):
        torch.testing.assert_close(unpacked(kept), network(image, 4), rtol=0, atol=0.006)


CHANGES = (
    {"teacher_flip": True, "teacher_scales": (1.0, 1.25), "precision": "bf16", "classmix": 0.6},
    {"teacher_views": 2, "teacher_temperature": 2.0, "accumulation_steps": 2, "rotation": 20.0},
)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_stopped_and_resumed_equals_undisturbed(
    shapes: Path, teachers: list[str], tmp_path: Path, change: dict[str, object]
) -> None:
    recipe = replace(SMALL, teacher=teachers, **change)
    train(recipe, str(shapes), tmp_path / "whole")

    def stop(info: StepInfo) -> None:
        if info.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, str(shapes), tmp_path / "cut", on_step=stop)
    for file in list(tmp_path.glob("cut/teacher_views/*/*.npz"))[:2]:
        file.unlink()  # as if it had been killed before
    train(recipe, str(shapes), tmp_path / "cut", resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    train(replace(recipe, teacher=(), teacher_views=0), str(shapes), tmp_path / "alone")
    assert not same(weights(tmp_path / "whole"), weights(tmp_path / "alone"))


def test_kept_outputs_are_computed_by_deterministic_algorithms(
    shapes: Path, teachers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, seen = [False], []

    @contextmanager
    def algorithms(*, deterministic: bool) -> Iterator[None]:
        inside[0] = deterministic
        yield
        inside[0] = False

    def compute(self: TeacherViews, *rest: object, compute=TeacherViews.compute) -> None:  # type: ignore[no-untyped-def]
        seen.append(inside[0])
        compute(self, *rest)

    monkeypatch.setattr(loop, "algorithms", algorithms)
    monkeypatch.setattr(TeacherViews, "compute", compute)
    recipe = replace(SMALL, teacher=teachers, teacher_views=1, num_steps=1)
    train(recipe, str(shapes), tmp_path / "run")
    assert seen == [True]


@pytest.mark.slow
def test_a_student_comes_close_to_its_teachers_where_nothing_is_labelled(
    teachers: list[str], tmp_path: Path
) -> None:
    shapes = write_shapes(tmp_path / "shapes", 9, 2, size=(64, 96))
    for mask in sorted(shapes.glob("train-labels/*.png"))[1:]:
        Image.new("L", (96, 64), 255).save(mask)
    recipe = replace(
        SMALL, teacher=teachers, num_steps=60, base_lr=3e-3, teacher_weight=100.0,
        validate_every=60, checkpoint_every=60, log_every=10,
    )  # fmt: skip
    losses: list[float] = []
    out = tmp_path / "run"
    train(recipe, str(shapes), out, on_step=lambda s: s.loss and losses.append(s.loss))
    assert losses[-1] < 0.5 * losses[0]
    log = [json.loads(line) for line in (out / "log.jsonl").open()]
    assert not any("unlabelled_steps" in line for line in log)


@pytest.mark.slow
def test_a_resume_needs_the_same_teachers_wherever_they_are(
    shapes: Path, teachers: list[str], tmp_path: Path
) -> None:
    recipe = replace(SMALL, teacher=teachers[:1], num_steps=2)
    train(recipe, str(shapes), tmp_path / "run")
    moved = (tmp_path / "teacher").resolve()
    moved.symlink_to(teachers[0])
    train(replace(recipe, teacher=(str(moved),)), str(shapes), tmp_path / "run", resume=True)
    other = replace(recipe, teacher=teachers[1:])
    with pytest.raises(InputError, match="was started with teachers of other weights"):
        train(other, str(shapes), tmp_path / "run", resume=True)


def test_teachers_of_bands_in_another_order_are_named(
    shapes: Path, teachers: list[str], tmp_path: Path
) -> None:
    teacher = copytree(teachers[0], tmp_path / "teacher")
    structs.replace(Run.read(teacher), data=RunData(data="shapes")).write(teacher)
    recipe = replace(SMALL, teacher=(str(teacher),))
    classes, said = Dataset.open(str(shapes)).taxonomy.classes, list[str]()
    Teachers(recipe, classes, 3, CPU, Bands(), said.append)
    assert said == []
    Teachers(recipe, classes, 3, CPU, Bands((3, 2, 1)), said.append)
    assert said == [
        f"{teacher}: was trained on images of bands none and range none; those with bands 3 2 1 "
        "and range none are taken for the same"
    ]


def test_teachers_of_other_classes_or_bands_are_refused(
    shapes: Path, teachers: list[str], tmp_path: Path
) -> None:
    taxonomy, run = Dataset.open(str(shapes)).taxonomy, Run.read(teachers[0])
    with pytest.raises(InputError, match="a teacher of images with 3 bands, not 4; give runs"):
        Teachers(replace(SMALL, teacher=teachers), taxonomy.classes, 4, CPU)
    with pytest.raises(InputError, match="a teacher of other classes than the data's; give runs"):
        Teachers(replace(SMALL, teacher=teachers), taxonomy.classes[::-1], 3, CPU)
    run.write(tmp_path)
    for folder, fault in (
        (tmp_path / "none", "--teacher .*none: no run folder, which a teacher must be"),
        (tmp_path, "no such file; train"),
    ):
        with pytest.raises(InputError, match=fault):
            train(replace(SMALL, teacher=(str(folder),)), str(shapes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="teacher_views is 3, but there is no teacher; give"):
        Recipe(teacher_views=3)
    with pytest.raises(InputError, match="teacher_scales is"):
        Recipe(teacher_scales=(0.01,))


def test_a_damaged_file_of_kept_outputs_is_named(shapes: Path, tmp_path: Path) -> None:
    recipe = replace(SMALL, teacher=("a",), teacher_views=1)
    crops = Crops(Dataset.open(str(shapes)).split("train"), recipe)
    views = TeacherViews(tmp_path, crops, [], "", 4)
    views._write(crops.index(0), np.full((1, 2, 3, 3), 0.5, np.float32))
    name = f"{crops.index(0)}.npz"
    good = (views.folder / name).read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    array = (tmp_path / "array.npy").read_bytes()
    flipped = bytes(byte ^ 0xFF for byte in good[60:70])
    for content in (b"", good[:50], good[:60] + flipped + good[70:], b"\x80\x04N.", array):
        (views.folder / name).write_bytes(content)
        with pytest.raises(InputError, match=r"\d\.npz: damaged or gone .*; delete it and resume"):
            list(views.batches([range(1)]))


@pytest.mark.gpu
@pytest.mark.slow
def test_a_gpu_cuts_the_same_views(shapes: Path) -> None:
    code = f"""
import torch
from atrous.data.dataset import Dataset
from atrous.train.crops import Crops
from atrous.train.loader import batches
from atrous.train import Recipe
from triton_tools import DEVICE
recipe = Recipe(teacher=("a",), teacher_views=2, crop_size=(16, 24), num_steps=4, batch_size=2,
                brightness=0, contrast=0, saturation=0)
samples = Dataset.open({str(shapes)!r}).split("train")
for image, target in batches(Crops(samples, recipe), 0, 0, 1, torch.device(DEVICE)):
    print(image.sum((1, 2, 3)).tolist(), target.long().sum((1, 2)).tolist())
"""
    printed = [line.split("] [") for line in run_with_triton(code).splitlines()]
    samples = Dataset.open(str(shapes)).split("train")
    recipe = replace(SMALL, teacher=("a",), teacher_views=2, crop_size=(16, 24), num_steps=4)
    plain = replace(recipe, brightness=0, contrast=0, saturation=0)
    drawn = Crops(samples, plain)
    for step, (images, targets) in enumerate(printed):
        positions = range(2 * step, 2 * step + 2)
        crops = [
            augment(samples[drawn.index(at)], drawn.at(at, (64, 96)), (16, 24)) for at in positions
        ]
        assert json.loads("[" + targets) == [int(target.long().sum()) for _, target in crops]
        sums = [int(image.long().sum()) for image, _ in crops]
        assert json.loads(images + "]") == pytest.approx(sums, rel=0.01)


PROGRAM = """
import time
from atrous.cli import main
from atrous.train import loop

def claim(out, *rest, claim=loop.claim):
    time.sleep(3)  # seconds in which the other process could write
    assert not out.exists()
    claim(out, *rest)

loop.claim = claim
main()
"""
"""`atrous`, whose main process takes long to write run.json and to remove temporary files."""


@pytest.mark.slow
def test_two_processes_share_the_images(shapes: Path, teachers: list[str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    arguments = [
        "train", "--data", str(shapes), "--backbone", SMALL.backbone,
        "--no-pretrained", "--crop-size", "64", "64", "--batch-size", "1", "--num-steps", "2",
        "--num-workers", "0", "--aspp-channels", "16", "--decoder-channels", "16",
        "--teacher", *teachers, "--teacher-views", "2", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    done = run_in_two_processes(str(program), *arguments)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("run/teacher_views/*/*.npz"))) == 5
    again = run_in_two_processes("-m", "atrous", *arguments)
    assert "run: holds a run already; add --resume" in again.stderr  # of the first that ends
    assert "[rank" not in again.stderr
