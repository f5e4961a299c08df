"""Images without masks: which take part, and what a student learns from them."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from small_training import SMALL, run_in_two_processes, same, weights, write_run
from torch import Tensor

from atrous.cli import main
from atrous.data.dataset import Dataset
from atrous.data.sample import Joined
from atrous.data.shapes import TAXONOMY, write_shapes
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.run import Run, load_run
from atrous.train import Recipe, StepInfo, train
from atrous.train.crops import Crops
from atrous.train.plan import plan
from atrous.train.teacher import Teachers, distillation_loss, inside
from atrous.train.training import Training
from atrous.train.unlabelled import find_unlabelled, joined

CPU = torch.device("cpu")
PHOTOS = '\n[splits.photos]\nimages = "photos/{key}.png"\n'


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Two labelled images, two of val, and a folder of six photos, which is a split, too."""
    folder = write_shapes(tmp_path / "shapes", 2, 2, size=(64, 96))
    write_shapes(tmp_path / "more", 6, 0, size=(64, 96), seed=1)
    (tmp_path / "more/train").rename(folder / "photos")
    with (folder / "dataset.toml").open("a") as file:
        file.write(PHOTOS)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run folder of a network of random weights."""
    return write_run(tmp_path_factory.mktemp("teacher"), SMALL, TAXONOMY, 0)


def found(shapes: Path, *sources: str, lines: list[str] | None = None) -> list[tuple[str, ...]]:
    data = Dataset.open(shapes)
    known = [data.split(name) for name in ("train", "val")]
    notify = [].append if lines is None else lines.append
    return [split.keys for split in find_unlabelled(data, sources, known, notify)]


def test_a_split_and_a_folder_give_the_same_images_each_once(shapes: Path) -> None:
    (shapes / "photos/deep").mkdir()
    (shapes / "photos/0005.png").rename(shapes / "photos/deep/5.JPG")
    (shapes / "photos/0004.labels.png").touch()  # of atrous segment
    lines: list[str] = []
    assert found(shapes, "photos", lines=lines) == [(*map("{:04}".format, range(5)), "0004.labels")]
    (shapes / "photos/notes.txt").write_text("no photo")
    names = (*(f"{n:04}.png" for n in range(5)), "deep/5.JPG")
    assert found(shapes, str(shapes / "photos"), lines=lines) == [names]
    assert lines[1] == f"{shapes / 'photos'}: 6 images without masks"
    (shapes / "photos/deep/again.jpeg").symlink_to("5.JPG")
    everything = found(shapes, "photos", str(shapes), lines=lines)
    assert everything[1] == ("photos/deep/5.JPG",)  # the masks of train and val are no photos
    assert lines[-1] == (
        f"{shapes}: 1 image without masks (14 more, of train or val or named twice, are left out)"
    )


def test_masks_of_single_classes_are_no_photos(shapes: Path) -> None:
    split = Dataset.open(shapes).split("train")
    assert isinstance(split, Split)
    names = {"ground": 0, "disc": 1}
    binary = replace(
        split, labels="{class}/{key}.png", encoding=replace(split.encoding, names=names)
    )
    for name in names:
        (shapes / name).mkdir()
        shutil.copy(shapes / "train/0000.png", shapes / name)
    (images,) = find_unlabelled(Dataset.open(shapes), [str(shapes)], [binary])
    assert not {"train/0000.png", "ground/0000.png", "disc/0000.png"} & {*images.keys}
    assert "val/0000.png" in images.keys


def test_photos_that_cannot_be_read_are_refused_at_once(shapes: Path) -> None:
    (shapes / "more").mkdir()
    (shapes / "more/0.png").touch()
    with pytest.raises(InputError, match=r"0\.png: the file is empty"):
        found(shapes, str(shapes / "more"))


def test_a_list_names_the_images_of_a_split(shapes: Path) -> None:
    toml = shapes / "dataset.toml"
    toml.write_text(toml.read_text() + 'list = "photos.txt"\n')
    (shapes / "photos.txt").write_text("photos/0003.png\n0001\n0009\n")
    assert found(shapes, "photos") == [("0003", "0001")]


def test_masks_of_a_split_are_not_read(shapes: Path) -> None:
    data = Dataset.open(shapes)
    (shapes / "train-labels/0000.png").write_bytes(b"no mask")
    (images,) = find_unlabelled(data, ["train"], [])
    assert (images[0].label == 255).all() and (images.label(1) == 255).all()
    assert (images[0].image == np.asarray(Image.open(shapes / "train/0000.png"))).all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("val", "val: all of its images are in train or val, or their masks, or named"),
        ("vall", "vall: no such folder, and no split of shapes, which has train, val, photos;"),
        ("{}/dataset.toml", "dataset.toml: no such folder, and no split of shapes"),
        ("{}/empty", "empty: no photos in this folder; give one"),
    ],
)
def test_a_source_without_images_is_refused(shapes: Path, source: str, message: str) -> None:
    (shapes / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        found(shapes, source.format(shapes))


def test_no_teacher_no_images_without_masks() -> None:
    with pytest.raises(InputError, match="unlabelled is x, but there is no teacher; give"):
        Recipe(unlabelled=("x",))


def test_a_split_without_masks_is_no_split_for_other_commands(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = "shapes: split 'photos' has no masks: labels is missing in splits.photos; add it, or"
    with pytest.raises(InputError, match=fault):
        Dataset.open(shapes).split("photos")
    assert main(["evaluate", "camvid", str(shapes), "--split", "photos"]) == 2
    assert fault in capsys.readouterr().err
    assert main(["data", "doctor", str(shapes)]) == 0
    assert "photos" not in capsys.readouterr().out
    assert main(["data", "pack", str(shapes), "--out", str(tmp_path / "packed")]) == 0
    packed = Dataset.open(tmp_path / "packed")
    assert list(packed.splits) == ["train", "val"]
    with pytest.raises(InputError, match="train: a split of shards, which hold masks; give a fold"):
        find_unlabelled(packed, ["train"], [])
    data = Dataset.open(shapes)
    for samples in (packed.split("train"), data.split("train")):
        with_photos = joined(samples, find_unlabelled(data, ["photos"], []))
        assert [(s.label == 255).all() for s in with_photos] == [False] * 2 + [True] * 6


def test_each_epoch_has_every_image_once_and_shards_keep_their_order(shapes: Path) -> None:
    data = Dataset.open(shapes)
    photos = find_unlabelled(data, ["photos"], [])
    crops = Crops(joined(data.split("train"), photos), SMALL)
    epochs = [[crops.index(8 * epoch + place) for place in range(8)] for epoch in range(20)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    first = Counter(epoch[0] < 2 for epoch in epochs)
    assert 0 < first[True] < 12  # of 20; 5 are expected
    numbers = np.repeat(np.arange(9, dtype=np.int32), 4)
    spans = np.zeros((36, 2, 2), np.int64)
    shards = Shards((Path(),) * 9, tuple(map(str, range(36))), numbers, spans, 4)
    order = Joined.of(shards, photos[0]).order(np.random.default_rng(0))
    assert sorted(order) == list(range(42))
    opened = numbers[order[order < 36]]
    assert all(len(set(opened[n : n + 4 * 4])) <= 5 for n in range(0, 32, 16))  # of 9


def training(recipe: Recipe, shapes: Path) -> Training:
    teachers = Teachers(recipe, TAXONOMY.classes, 3, CPU)
    return Training(recipe, 4, (0, 1, 2), Accelerator(cpu=True), teachers=teachers)


def batch(labelled: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(int(labelled))
    image = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=generator)
    target = torch.randint(0, 4, (2, 64, 64), dtype=torch.uint8, generator=generator)
    return image, target if labelled else torch.full_like(target, 255)


LOSSES = ({}, {"dice_weight": 1.0, "auxiliary_weight": 0.4, "ohem_fraction": 0.3})


@pytest.mark.slow
@pytest.mark.parametrize("change", LOSSES)
def test_a_batch_without_labels_teaches_by_the_teachers_alone(
    shapes: Path, teacher: str, change: dict[str, float]
) -> None:
    """Without a teacher's weight it moves nothing; with it, the gradient is the divergence's."""
    recipe = replace(
        SMALL, teacher=(teacher,), dropout=0.0, optimizer="sgd", momentum=0.0, weight_decay=0.0,
        schedule="constant", warmup_steps=0, teacher_weight=0.0, **change,
    )  # fmt: skip
    ends = []
    for stream in ([True, False], [True], [True, True]):
        state = training(recipe, shapes)
        results = [state.advance(iter([batch(labelled)]))[0] for labelled in stream]
        ends.append([p.detach().clone() for p in state.network.parameters()])
        assert [bool(r[1]) for r in results] == [True] * len(stream)
        assert [float(r[0]) == 0 for r in results] == [not labelled for labelled in stream]
    assert all(map(torch.equal, ends[0], ends[1]))
    assert not all(map(torch.equal, ends[1], ends[2]))

    state = training(replace(recipe, teacher_weight=2.0), shapes)
    image, target = batch(labelled=False)
    state._loss(image, target).backward()
    own = [p.grad.clone() for p in state.network.parameters()]
    state.network.zero_grad()
    logits = state.network(state.photo.normalize(image, torch.float32)).logits
    assert state.teachers is not None
    (2 * distillation_loss(logits, state.teachers(image, 4), 1.0, inside(image, 4))).backward()
    assert any(gradient.any() for gradient in own)
    for mine, parameter in zip(own, state.network.parameters(), strict=True):
        expected = torch.zeros_like(mine) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(mine, expected)  # of the auxiliary head: 0


CHANGES = (
    {"auxiliary_weight": 0.4, "dice_weight": 1.0, "rare_crops": 0.5, "class_weights": "auto"},
    {"teacher_views": 2, "accumulation_steps": 2, "keep_decoded": False, "num_workers": 1},
)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_stopped_and_resumed_equals_undisturbed(
    shapes: Path, teacher: str, tmp_path: Path, change: dict[str, object]
) -> None:
    recipe = replace(SMALL, teacher=(teacher,), unlabelled=(str(shapes / "photos"),), **change)
    lines: list[str] = []
    train(recipe, str(shapes), tmp_path / "whole", notify=lines.append)
    assert not any("warning" in line or "ignored whole" in line for line in lines), lines
    assert any(line.startswith("labels of 2 training masks: ") for line in lines)
    labels = Run.read(tmp_path / "whole").labels
    assert (labels["total"], labels["unlabelled"]) == (2, 0)

    def stop(info: StepInfo) -> None:
        if info.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, str(shapes), tmp_path / "cut", on_step=stop)
    shutil.move(shapes / "photos", tmp_path / "moved")
    elsewhere = replace(recipe, unlabelled=(str(tmp_path / "moved"),))
    train(elsewhere, str(shapes), tmp_path / "cut", resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    (tmp_path / "moved/0003.png").rename(tmp_path / "moved/0009.png")
    for other in (elsewhere, replace(recipe, unlabelled=())):
        with pytest.raises(InputError, match="was started with other images without masks, or in"):
            train(other, str(shapes), tmp_path / "cut", resume=True)
    train(replace(recipe, unlabelled=()), str(shapes), tmp_path / "alone")
    assert not same(weights(tmp_path / "whole"), weights(tmp_path / "alone"))


@pytest.mark.slow
def test_few_masks_and_many_photos_bring_a_student_close_to_its_teacher(
    teacher: str, tmp_path: Path
) -> None:
    shapes = write_shapes(tmp_path / "shapes", 1, 2, size=(64, 96))
    photos = write_shapes(tmp_path / "photos", 24, 0, size=(64, 96), seed=1) / "train"
    recipe = replace(
        SMALL, teacher=(teacher,), unlabelled=(str(photos),), num_steps=60, base_lr=3e-3,
        teacher_weight=20.0, validate_every=60, checkpoint_every=60, log_every=10,
    )  # fmt: skip
    others = replace(recipe, unlabelled=())
    unseen = np.stack([s.image for s in Dataset.open(shapes).split("val")])
    divergences = {}
    for name, one in (("with", recipe), ("without", others)):
        train(one, str(shapes), tmp_path / name)
        network = load_run(tmp_path / name).network
        with torch.no_grad():
            logits = network(torch.from_numpy(unseen))
            teachers = Teachers(recipe, TAXONOMY.classes, 3, CPU)
            taught = teachers(torch.from_numpy(unseen), network.stride)
            shown = inside(torch.from_numpy(unseen), network.stride)
            divergences[name] = float(distillation_loss(logits, taught, 1.0, shown))
    assert divergences["with"] < 0.5 * divergences["without"]
    log = [json.loads(line) for line in (tmp_path / "with/log.jsonl").open()]
    assert not any("unlabelled_steps" in line for line in log)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kept", [False, True])
def test_a_damaged_photo_is_one_line(
    shapes: Path, teacher: str, tmp_path: Path, workers: int, kept: bool
) -> None:
    recipe = replace(
        SMALL, teacher=(teacher,), unlabelled=("photos",), num_steps=10, num_workers=workers,
        keep_decoded=kept,
    )  # fmt: skip
    whole = (shapes / "photos/0002.png").read_bytes()
    (shapes / "photos/0002.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"0002\.png: ") as error:
        train(recipe, str(shapes), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_a_plan_counts_images_without_masks(shapes: Path) -> None:
    given = {"teacher": ("any",), "unlabelled": ("photos",)}
    for fields, images in ((given, 8), ({}, 2)):
        choices = dict(plan(Dataset.open(shapes), fields).choices)
        assert any(f"each part of {images} images" in reason for reason in choices.values())


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_whole_batch(
    shapes: Path, teacher: str, tmp_path: Path
) -> None:
    """Most batches of a process hold no label at all."""
    options = {
        "backbone": "resnet18", "aspp_channels": 16, "decoder_channels": 16, "dropout": 0.0,
        "crop_size": (64, 64), "num_steps": 3, "num_workers": 0, "optimizer": "sgd",
        "base_lr": 0.01, "warmup_steps": 0, "teacher": (teacher,), "unlabelled": ("photos",),
    }  # fmt: skip
    words = [
        word
        for name, value in options.items()
        for word in (
            f"--{name.replace('_', '-')}",
            *(map(str, value) if isinstance(value, tuple) else [str(value)]),
        )
    ]
    done = run_in_two_processes(
        "-m", "atrous", "train", "plain", "--data", str(shapes), "--batch-size", "1", "--out",
        str(tmp_path / "two"), "--no-pretrained", *words,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("photos: 6 images without masks") == 1
    recipe = Recipe(batch_size=2, pretrained=False, **options)
    train(recipe, str(shapes), tmp_path / "one")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(two[name], one[name], rtol=1e-3, atol=1e-4) for name in one)
