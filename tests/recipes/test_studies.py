import json

import pytest
import torch
from networks import build

from atrous.errors import InputError
from atrous.recipes import RECIPES, STUDIES, find
from atrous.train.recipe import Recipe


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


def test_networks_against_fcn_share_recipe_and_budget() -> None:
    own = {"model", "output_stride", "atrous_rates", "decoder_channels"}
    assert _varied(STUDIES["against_fcn"]()) == own


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
