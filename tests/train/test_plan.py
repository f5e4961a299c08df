"""Plans for data sets and machines of several kinds."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_data_check import mask_of, write_set

from atrous.cli import main
from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.models.catalogue import MODELS
from atrous.run import Normalization, Run
from atrous.train.machine import Machine
from atrous.train.memory import total_memory
from atrous.train.plan import Plan, bytes_per_pixel, plan, plan_from
from atrous.train.provenance import describe
from atrous.train.recipe import Recipe
from atrous.train.survey import Survey, count_runs, survey

STREET = Survey(
    images=367,
    validation_images=101,
    masks=128,
    size=(360, 480),
    shares=(0.5, 0.3, 0.15, 0.05),
    object_width=26.0,
)
"""Like CamVid."""
LAPTOP = Machine(device="cpu", memory=8 << 30, bf16=False)
SERVER = Machine(device="cuda", memory=80 << 30, bf16=True, workers=15)


@pytest.fixture(autouse=True)
def counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the activations of each network once."""
    monkeypatch.setattr("atrous.train.plan.bytes_per_pixel", COUNTED)


COUNTED = cache(bytes_per_pixel)


def planned(facts: Survey, machine: Machine = LAPTOP, **given: Any) -> Recipe:
    return result(facts, machine, **given).recipe


def result(facts: Survey, machine: Machine = LAPTOP, **given: Any) -> Plan:
    return plan_from(facts, len(facts.shares), machine, {"backbone": "resnet18"} | given)


def reasons(planning: Plan) -> str:
    return "\n".join(f"{choice.options}: {choice.reason}" for choice in planning.choices)


def test_whole_photos_of_streets_are_the_crop() -> None:
    recipe = planned(STREET)
    assert recipe.crop_size == (352, 480) and recipe.batch_size == 8
    assert recipe.output_stride == 16 and recipe.atrous_rates == (5, 10, 15)
    assert recipe.scale == (0.5, 2.0) and recipe.image_pooling and not recipe.rare_crops
    assert recipe.separable and (recipe.aspp_channels, recipe.decoder_channels) == (128, 128)
    assert recipe.precision == "fp32" and recipe.num_steps == 2000 and recipe.ema_decay == 0.998
    assert recipe.warmup_steps == 125 and recipe.validate_every == 400


def test_a_gpu_gets_wider_networks_larger_batches_and_longer_trainings() -> None:
    recipe = planned(STREET, SERVER)
    assert recipe.precision == "bf16" and recipe.batch_size == 16 and recipe.aspp_channels == 256
    assert recipe.num_steps == 3280  # 140 epochs, and the pixels that a crop leaves out
    assert planned(STREET, replace(SERVER, processes=2)).num_steps == 1640


def test_small_images_keep_their_features_and_rates_that_fit() -> None:
    recipe = planned(replace(STREET, size=(96, 128)))
    assert recipe.crop_size == (96, 128) and recipe.output_stride == 8
    assert recipe.atrous_rates == (3, 6, 9)
    tiny = planned(replace(STREET, size=(28, 28), images=40))
    assert tiny.crop_size == (64, 64) and tiny.atrous_rates == (1, 2, 3) and tiny.num_steps == 700


def test_large_images_with_small_objects() -> None:
    large = replace(STREET, images=20, size=(2000, 3000), object_width=5.0)
    planning = result(large)
    recipe = planning.recipe
    assert recipe.crop_size == (352, 512) and recipe.scale == (1.0, 2.0)
    assert not recipe.image_pooling
    assert recipe.num_steps == 2000 and recipe.validate_every == 2000  # each takes long
    assert "images of over 4 million pixels are labelled in tiles" in reasons(planning)
    assert "half of the classes are less than 5 pixels wide" in reasons(planning)
    assert planned(large, SERVER).crop_size == (576, 864)
    wide = result(replace(large, object_width=900.0))
    assert "objects are 900 pixels wide, more than a crop" in reasons(wide)


def test_the_crop_of_a_narrow_image_is_no_larger_than_allowed() -> None:
    """The short side of 64 is not made up for by a long side beyond the image's."""
    assert planned(replace(STREET, size=(1, 5000))).crop_size == (64, 3072)
    assert planned(replace(STREET, size=(20000, 100))).crop_size == (3072, 64)


def test_memory_limits_the_crop_then_the_batch() -> None:
    needed = bytes_per_pixel(planned(STREET, SERVER), 4)
    for crops, crop, batch in ((16, (352, 480), 16), (5, (352, 480), 5), (2, (256, 352), 3)):
        memory = round(2 * needed * 352 * 480 * (crops + 0.5))
        recipe = planned(STREET, replace(SERVER, memory=memory))
        assert recipe.crop_size == crop and recipe.batch_size in (batch, batch + 1)
        by_hand = planned(STREET, replace(SERVER, memory=memory), batch_size=1)
        assert by_hand.crop_size == (352, 480)
    starved = planned(STREET, replace(SERVER, memory=1))
    assert starved.crop_size == (64, 64) and starved.batch_size == 1


def test_parts_of_images_are_laid_around_rare_classes() -> None:
    shares = (0.6, 0.2, 0.1999, 0.0001, 0.0)
    large = replace(STREET, size=(1200, 1600), shares=shares)
    planning = result(large)
    assert planning.recipe.rare_crops == 0.33
    assert "the rarest class has 0.01 % of the pixels" in reasons(planning)
    for other in (
        replace(large, size=(360, 480)),  # a crop is the image
        replace(large, shares=(0.6, 0.2, 0.19, 0.01, 0.0)),
        replace(large, shares=(0.0, 0.0), object_width=None),
    ):
        assert planned(other).rare_crops == 0
    assert planned(large, center_crop=True).rare_crops == 0


def test_a_given_time_leaves_the_steps_open() -> None:
    planning = result(STREET, minutes=30.0)
    assert planning.recipe.num_steps == Recipe().num_steps
    assert "--num-steps" not in reasons(planning)
    assert "the number of steps follows from the time" in reasons(planning)
    assert planning.recipe.validate_every == 400


def test_what_is_given_wins_and_the_rest_follows() -> None:
    recipe = planned(
        STREET, crop_size=(192, 256), num_steps=10, batch_size=3, class_weights=(1, 2, 3, 4)
    )
    assert recipe.crop_size == (192, 256) and recipe.atrous_rates == (3, 6, 9)
    assert recipe.num_steps == 10 and recipe.warmup_steps == 1
    assert recipe.batch_size == 3 and recipe.class_weights == (1, 2, 3, 4)
    given = planned(STREET).to_dict() | {"base_lr": 0.1, "dice_weight": 0.0, "output_stride": 32}
    assert planned(replace(STREET, size=(32, 32)), SERVER, **given) == Recipe.from_dict(given)


@pytest.mark.parametrize("model", MODELS)
def test_a_plan_for_each_network(model: str) -> None:
    backbone = "resnet18" if MODELS[model].has_backbone else "none"
    recipe = planned(STREET, replace(LAPTOP, memory=64 << 30), model=model, backbone=backbone)
    assert recipe.model == model and recipe.crop_size == (352, 480)
    assert (recipe.atrous_rates != ()) == model.startswith("deeplabv3") - (
        model == "deeplabv3_cascade"
    )


def test_activations_are_counted() -> None:
    plain = bytes_per_pixel(Recipe(backbone="resnet18"), 4)
    assert bytes_per_pixel(Recipe(backbone="resnet18", precision="bf16"), 4) == plain / 2
    assert bytes_per_pixel(Recipe(backbone="resnet50"), 4) > 1.5 * plain
    assert 500 < plain < 4000


def test_lines_fit_80_columns() -> None:
    facts = replace(STREET, size=(1200, 1600), shares=(0.6, 0.2, 0.1999999, 0.0000001))
    lines = [
        line
        for machine in (LAPTOP, SERVER)
        for choice in result(facts, machine).choices
        for line in choice.lines().splitlines()
    ]
    assert max(map(len, lines)) <= 80
    assert "--rare-crops 0.33              the rarest class has 1e-05 % of the pixels; few" in lines
    assert "--aspp-channels 128            narrow, since steps are slow" in lines


def grid(height: int, width: int, *boxes: tuple[int, int, int, int, int]) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    for value, top, left, tall, wide in boxes:
        mask[top : top + tall, left : left + wide] = value
    return mask


def test_a_survey_measures_sizes_shares_and_widths(tmp_path: Path) -> None:
    boxes = (1, 0, 0, 10, 10), (2, 20, 20, 4, 4), (2, 30, 20, 4, 4), (255, 39, 0, 1, 60)
    first = grid(40, 60, *boxes)
    data = write_set(tmp_path, [first, grid(40, 60), grid(20, 30)])
    facts = survey(data)
    labelled = 2 * 40 * 60 + 20 * 30 - 60
    assert facts == Survey(
        images=3,
        validation_images=0,
        masks=3,
        size=(40, 60),
        shares=((labelled - 132) / labelled, 100 / labelled, 32 / labelled),
        object_width=7.0,  # of 10 and 4
    )
    assert survey(write_set(tmp_path / "one", [mask_of(0, 0, 0, 0)])).object_width is None
    assert survey(write_set(tmp_path / "none", [mask_of(*[255] * 4)])).shares == (0, 0, 0)


def test_runs_are_those_of_a_plain_loop() -> None:
    label = np.random.default_rng(0).integers(0, 3, (7, 9)).astype(np.uint8)
    expected = [0] * 256
    for lines in (label.tolist(), label.T.tolist()):
        for line in lines:
            for before, value in zip([None, *line], line, strict=False):
                expected[value] += before != value
    assert count_runs(label).tolist() == expected


def test_no_more_masks_are_read_than_medians_need(tmp_path: Path) -> None:
    data = write_set(tmp_path, [mask_of(0, 1, 2, 2)] * 140)
    done: list[tuple[int, int]] = []
    facts = survey(data, lambda *step: done.append(step))
    assert facts.masks == 128 and facts.images == 140 and done[-1] == (128, 128)


def test_this_machine_and_a_container(tmp_path: Path) -> None:
    machine = Machine.here()
    assert machine.memory > 1 << 28 and machine.processes == 1 and machine.workers >= 1
    group = tmp_path / "sys/fs/cgroup/box"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/box\n")
    (group / "memory.max").write_text("max\n")
    assert total_memory(tmp_path) == total_memory(Path("/nowhere"))
    (group / "memory.max").write_text("1048576\n")
    assert total_memory(tmp_path) == 1 << 20


def test_a_bad_option_fails_before_masks_are_read(tmp_path: Path) -> None:
    data = write_set(tmp_path, [mask_of(0, 1, 2, 2)])
    (tmp_path / "m/0.png").write_text("not a mask")
    with pytest.raises(InputError, match=r"dropout is 2; expected"):
        plan(data, {"dropout": 2})
    with pytest.raises(InputError, match="no run folder"):
        plan(data, {"init": str(tmp_path)})
    with pytest.raises(InputError, match="not an image"):
        plan(data, machine=LAPTOP)


def test_a_start_from_a_run_keeps_its_network(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", [mask_of(0, 1, 2, 2)])
    old = Recipe(backbone="resnet18", aspp_channels=48, atrous_rates=(2, 4), output_stride=32)
    model = old.model_options(7)
    imagenet = Normalization(mean=(0.5,) * 3, std=(0.5,) * 3)
    Run(model=model, normalization=imagenet, taxonomy=data.taxonomy).write(tmp_path)
    recipe, choices = plan(data, {"init": str(tmp_path)}, LAPTOP)
    assert ("", f"the network is that of {tmp_path}") in choices
    changed = {"num_classes": 7}
    assert recipe.model_options(7) | changed == model
    assert not recipe.separable and recipe.init == str(tmp_path)
    assert plan(data, {"init": str(tmp_path), "aspp_channels": 8}, LAPTOP).recipe.aspp_channels == 8


def test_run_json_keeps_the_plan(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", [mask_of(0, 1, 2, 2)])
    recipe, choices = plan(data, machine=LAPTOP)
    describe(recipe, data, "data", None, (), plan=choices).write(tmp_path)
    kept = Run.read(tmp_path)
    assert kept.plan == [tuple(choice) for choice in choices]
    assert Recipe.from_dict(kept.recipe) == recipe
    assert describe(recipe, data, "data", None, ()).plan == []


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dataset]:
    monkeypatch.chdir(tmp_path)
    main(["data", "shapes", "shapes", "--train", "3", "--val", "1"])
    yield Dataset.open("shapes")


@pytest.mark.slow
def test_a_folder_alone_is_planned_printed_and_resumed(
    shapes: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--backbone", "mobilenetv3_small_050", "--no-pretrained", "--num-steps", "2"]
    call = ["train", "--data", "shapes", "--num-workers", "0", "--batch-size", "2", *small]
    assert main(call) == 0
    shown = capsys.readouterr().err.splitlines()
    assert (
        "--crop-size 96 128             128x96 pixels is the median of 3 masks; sides are" in shown
    )
    assert not any(line.startswith(("--num-steps", "--batch-size")) for line in shown)
    run = Run.read("runs/planned")
    assert run.recipe["output_stride"] == 8 and run.recipe["atrous_rates"] == [3, 6, 9]
    assert run.recipe["num_steps"] == 2 and any("--crop-size" in line[0] for line in run.plan)
    assert main([*call[:3], "--resume"]) == 0  # as it was recorded, without a new plan
    assert "--crop-size" not in capsys.readouterr().err
    assert main(["train", "plain", *call[1:], "--crop-size", "32", "32"]) == 0  # as it is
    plain = Run.read("runs/plain")
    assert plain.plan == [] and plain.recipe["base_lr"] == Recipe().base_lr
