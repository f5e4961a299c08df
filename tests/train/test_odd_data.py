"""Data and values that teach nothing, and a resume on other data: said, or refused in one line."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_training import weights
from test_data_check import write_set

from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.models.network import Output
from atrous.train.loop import StepInfo, train
from atrous.train.recipe import Recipe

RECIPE = Recipe(
    pretrained=False,
    crop_size=(8, 8),
    center_crop=True,
    batch_size=1,
    num_steps=4,
    warmup_steps=0,
    num_workers=0,
    log_every=1,
    validate_every=2,
    checkpoint_every=2,
)


class Tiny(torch.nn.Module):
    """A network that steps in no time."""

    stride = 1
    auxiliary_strides = ()

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.head = torch.nn.Conv2d(3, classes, 1)

    def forward(self, image: torch.Tensor) -> Output:
        return Output(self.head(image))


def squares(*values: int) -> list[np.ndarray]:
    """Masks (8, 8), each of a value at the left and 0 at the right; 255 is all over."""
    masks = [np.full((8, 8), value) for value in values]
    for mask in masks:
        mask[:, 4:][mask[:, 4:] != 255] = 0
    return masks


def with_val(dataset: Dataset, *values: int) -> str:
    """Add a split val of other masks; return the folder."""
    write_set(dataset.folder / "v", squares(*values))
    toml = dataset.folder / "dataset.toml"
    val = '[splits.val]\nimages = "v/i/{key}.png"\nlabels = "v/m/{key}.png"\n'
    toml.write_text(toml.read_text() + val)
    return str(dataset.folder)


def test_a_step_without_labels_is_left_out_of_the_loss_and_said(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", squares(1, 255, 2, 255))
    lines: list[str] = []
    recipe = replace(RECIPE, log_every=2, num_steps=8, base_lr=1e-9)
    train(recipe, str(data.folder), tmp_path / "run", network=Tiny(), notify=lines.append)
    assert lines[0].startswith("labels of 4 training masks: bg 50.0 %, ")
    assert lines[1].startswith("warning: 2 of 4 training masks are ignored whole")
    assert "taught nothing: no pixel of the crops has a label" in lines[3] and len(lines) == 4
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").open()]
    assert sum(line.get("unlabelled_steps", 0) for line in log) == 4  # half of all
    losses = [line["loss"] for line in log if line["loss"] is not None]
    assert all(0.3 < loss < 5 for loss in losses)
    for line in log:
        assert (line["loss"] is None) == (line.get("unlabelled_steps") == 2)
    labels = json.loads((tmp_path / "run/run.json").read_text())["labels"]
    assert labels == {
        "masks": 4, "total": 4, "unlabelled": 2, "pixels": [64, 32, 32], "ignored": 128,
        "labelled": [128, 64, 64],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        ((0, 0), ("crack",), "one class, crack, so there is nothing to tell it from"),
        ((0, 255), ("bg", "crack"), "bg 100.0 %, and ignored 50.0 %: one class alone"),
        ((255, 255), ("bg", "crack"), "every pixel of its 2 training masks is ignored"),
    ],
)
def test_nothing_to_learn_is_refused_before_the_first_step(
    tmp_path: Path, values: tuple[int, ...], classes: tuple[str, ...], message: str
) -> None:
    data = write_set(tmp_path / "data", squares(*values), classes)
    with pytest.raises(InputError) as error:
        train(RECIPE, str(data.folder), tmp_path / "run", network=Tiny(len(classes)))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_val_split_without_labels_is_said_and_not_scored(tmp_path: Path) -> None:
    data = with_val(write_set(tmp_path / "data", squares(1, 2)), 255, 255)
    lines: list[str] = []
    seen: list[StepInfo] = []
    scores = train(
        RECIPE,
        data,
        tmp_path / "run",
        on_step=seen.append,
        network=Tiny(),
        notify=lines.append,
    )
    assert lines[0] == "warning: no mask of split val holds a class, so nothing is validated"
    assert scores == {"step": 4, "split": None, "images": 0}
    assert [info.scores for info in seen] == [None] * 4
    kept = load_file(tmp_path / "run/best.safetensors")
    assert torch.equal(kept["head.bias"], weights(tmp_path / "run")["head.bias"])


@pytest.mark.parametrize("rate", [1e9, 1e30])
@pytest.mark.parametrize("log_every", [1, 100])
def test_a_training_that_diverges_stops_and_keeps_no_weights_of_it(
    tmp_path: Path, rate: float, log_every: int
) -> None:
    data = with_val(write_set(tmp_path / "data", squares(1, 2)), 1)
    recipe = replace(RECIPE, optimizer="sgd", base_lr=rate, num_steps=6, log_every=log_every)
    recipe = replace(recipe, weight_decay=rate, validate_every=5, checkpoint_every=5)
    with pytest.raises(InputError, match=r"(the loss at step|after step) .* lower --base-lr"):
        train(recipe, data, tmp_path / "run", network=Tiny())
    assert not (tmp_path / "run/last.pt").exists()
    assert not (tmp_path / "run/best.safetensors").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("class_weights", (1.0, -1.0, 1.0)),
        ("class_weights", (0.0, 0.0, 0.0)),
        ("class_weights", (1.0, math.nan, 1.0)),
        ("class_weights", (1.0, math.inf, 1.0)),
        ("class_weights", (1.0, 2.0)),
        ("class_weights", (1e308, 1e308, 1e308)),  # infinite as float32
        ("class_weights", (1e-60, 1e-60, 1e-60)),  # 0 as float32
        ("base_lr", math.nan),
        ("base_lr", math.inf),
        ("weight_decay", -0.1),
        ("clip_norm", -1.0),
        ("dice_weight", -1.0),
        ("auxiliary_weight", math.nan),
        ("warmup_steps", -1),
        ("momentum", 1.0),
        ("hue", 0.6),
        ("brightness", -0.5),
        ("gamma", -1.0),
        ("seed", -1),
        ("seed", 1 << 64),
        ("num_workers", -1),
        ("scale", (math.nan, 1.0)),
        ("atrous_rates", (6, 0)),
        ("pyramid_scales", (1.0, -0.5)),
    ],
)
def test_values_that_no_recipe_can_mean_are_refused(
    tmp_path: Path, field: str, value: object
) -> None:
    data = write_set(tmp_path / "data", squares(1, 2))
    with pytest.raises(InputError, match=field.replace("_", "[_ ]")):
        recipe = replace(RECIPE, **{field: value})
        train(recipe, str(data.folder), tmp_path / "run", network=Tiny())
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_on_its_own_data_alone(tmp_path: Path) -> None:
    """Killed after two of four steps; where it goes on, it ends with the undisturbed weights."""
    first = write_set(tmp_path / "first", squares(1, 2, 1), head='name = "first"')
    other = write_set(tmp_path / "other", squares(2, 1, 2), head='name = "other"')
    two = write_set(tmp_path / "two", squares(1, 1, 1), ("bg", "crack"), head='name = "first"')
    fewer = write_set(tmp_path / "fewer", squares(1, 2), head='name = "first"')

    def start(dataset: Dataset, run: str, resume: bool, stop: bool) -> None:
        def on_step(info: StepInfo) -> None:
            if stop and info.step == 2:
                raise KeyboardInterrupt

        torch.manual_seed(0)
        network = Tiny(dataset.taxonomy.num_classes)
        folder = str(dataset.folder)
        train(
            RECIPE,
            folder,
            tmp_path / run,
            resume=resume,
            on_step=on_step,
            network=network,
            notify=lines.append,
        )

    lines: list[str] = []
    start(first, "whole", resume=False, stop=False)
    with pytest.raises(KeyboardInterrupt):
        start(first, "cut", resume=False, stop=True)
    before = (tmp_path / "cut/run.json").read_text()
    for dataset, message in (
        (other, "was started on the data set first, not other"),
        (two, "was started on 3 classes with rust, not 2 with none in that place; "),
        (fewer, "was started on 3 training samples, not 2"),
    ):
        with pytest.raises(InputError, match=message):
            start(dataset, "cut", resume=True, stop=False)
    assert (tmp_path / "cut/run.json").read_text() == before
    (tmp_path / "first").rename(tmp_path / "moved")
    lines.clear()
    start(Dataset.open(tmp_path / "moved"), "cut", resume=True, stop=False)
    assert len(lines) == 1 and "taken for the data" in lines[0]  # and not counted again
    whole, cut = (load_file(tmp_path / f"{run}/best.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
