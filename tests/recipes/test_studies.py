import json
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from networks import build

from atrous.errors import InputError
from atrous.models.catalogue import WEIGHT_PACKAGES
from atrous.recipes import RECIPES, STUDIES, find
from atrous.train.recipe import Recipe
from atrous.train.training import Training


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_each_study_can_be_built_and_survives_json(name: str) -> None:
    for recipe in STUDIES[name]().values():
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
        with torch.device("meta"):
            build(**recipe.model_options(11))


@pytest.mark.parametrize(
    ("study", "varied"),
    [("batch", {"batch_size", "num_steps", "validate_every"}), ("backbone", {"backbone"}),
     ("blocks", {"repeated_blocks"}), ("optimizer", {"optimizer", "base_lr"}),
     ("jitter", {"brightness", "contrast", "saturation"})],
)  # fmt: skip
@pytest.mark.parametrize("machine", ["paper", "camvid"])
def test_a_study_varies_one_thing(machine: str, study: str, varied: set[str]) -> None:
    assert _varied(STUDIES[f"{machine}_{study}"]()) == varied


OWN = {"model", "output_stride", "atrous_rates", "decoder_channels"}


@pytest.mark.parametrize(
    ("study", "varied"),
    [("against_fcn_short", OWN), ("against_fcn", OWN | {"pyramid_scales"}),
     ("against_fcn_with_frrn",
      OWN | {"pyramid_scales", "backbone", "pretrained", "auxiliary_weight"})],
)  # fmt: skip
def test_networks_against_fcn_share_recipe_and_budget(study: str, varied: set[str]) -> None:
    assert _varied(STUDIES[study]()) == varied


def test_the_networks_against_fcn_see_whole_crops_for_60_epochs() -> None:
    study = STUDIES["against_fcn"]()
    assert len(study) == 10
    for recipe in study.values():
        assert recipe.crop_size == (352, 480) and recipe.precision == "bf16"
        assert 59.9 < recipe.num_steps * recipe.batch_size / 367 <= 60
        assert recipe.validate_every == recipe.num_steps  # so that the last weights are scored
        assert recipe.backbone in WEIGHT_PACKAGES
    assert sum(recipe.num_steps * recipe.batch_size for recipe in study.values()) == 220_160
    assert STUDIES["against_fcn_with_frrn"]().items() > study.items()  # one folder for both


DILATIONS = {
    **dict.fromkeys(("fcn32s", "fcn16s", "fcn8s", "unet", "frrn_a"), (1, set())),
    **dict.fromkeys(("image_pyramid", "pspnet"), (16, {2})),
    "deeplabv2": (16, {2, 3, 6, 9, 12}),
    "deeplabv3_cascade": (16, {2, 4, 8, 16}),
    "deeplabv3": (16, {2, 6, 12, 18}),
    "deeplabv3plus": (4, {2, 6, 12, 18}),
}
"""Stride of the logits, and the dilations over 1: none in FCN, U-Net and FRRN."""


@pytest.mark.slow
@pytest.mark.parametrize("name", DILATIONS)
def test_each_network_against_fcn_is_what_it_says_and_takes_a_step(name: str) -> None:
    """With random weights, on two small crops."""
    recipe = replace(
        find(f"against_fcn_with_frrn/{name}"),
        pretrained=False,
        crop_size=(64, 96),
        batch_size=2,
        weight_decay=0.0,
    )
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    training = Training(recipe, 11, (0, 1, 2), accelerator)
    stride, dilations = DILATIONS[name]
    assert training.stride == stride
    convolutions = [m for m in training.network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {conv.dilation[0] for conv in convolutions} - {1} == dilations
    before = [weight.detach().clone() for weight in training.network.parameters()]
    random = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=random)
    target = torch.randint(0, 11, (2, 64, 96), dtype=torch.uint8, generator=random)
    training.advance(iter([(image, target)]))  # FCN's classifiers start at 0, and move alone
    loss, _ = training.advance(iter([(image, target)]))
    assert 1 < float(loss[0]) < 20
    after = list(training.network.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert sum(moved) > 0.9 * len(moved)
    assert all(bool(weight.isfinite().all()) for weight in after)


def test_every_batch_size_sees_the_same_images() -> None:
    images = {r.batch_size * r.num_steps for r in STUDIES["paper_batch"]().values()}
    assert images == {480_000}


def test_find() -> None:
    assert find("paper") == RECIPES["paper"]() == find("paper_optimizer/adam")
    assert find("against_fcn/fcn8s").model == "fcn8s"


@pytest.mark.parametrize(
    ("name", "message"),
    [("against_fcm", "Did you mean against_fcn?"), ("nothing/like", "There are: camvid,"),
     ("against_fcn", "`atrous compare against_fcn`, or one of against_fcn/fcn32s,"),
     ("paper_jitter/off", "paper_jitter is a study;")],
)  # fmt: skip
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find(name)


def _varied(study: dict[str, Recipe]) -> set[str]:
    """The fields that are not the same in all recipes."""
    first, *others = (recipe.to_dict() for recipe in study.values())
    return {field for other in others for field in other if other[field] != first[field]}
