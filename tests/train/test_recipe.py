import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from docstring_parser import parse_from_object
from torch import nn

from atrous.errors import InputError
from atrous.recipes import RECIPES
from atrous.train.optim import build_optimizer, learning_rate
from atrous.train.recipe import Recipe


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_survives_json(name: str) -> None:
    recipe = RECIPES[name]()
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_every_field_is_documented() -> None:
    described = {p.arg_name for p in parse_from_object(Recipe).params if p.description}
    assert described == set(Recipe().to_dict())


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 0), ("dropout", 1.5), ("ohem_fraction", 0.0), ("scale", (2.0, 1.0)),
     ("crop_size", (0, 5)), ("base_lr", -1.0), ("rotation", 181.0), ("rotation", -5.0),
     ("cutmix", 1.5), ("classmix", -0.1)],
)  # fmt: skip
def test_values_out_of_range(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        replace(Recipe(), **{field: value})


@pytest.mark.parametrize(
    ("change", "says"),
    [({"cutmix": 0.7, "classmix": 0.5}, "cutmix is 0.7 and classmix 0.5; together at most 1"),
     ({"cutmix": 0.5, "batch_size": 1}, "give a batch_size over 1"),
     ({"classmix": 0.5, "teacher_views": 2, "teacher": ("a",)}, "teacher_views keeps what .* unm")],
)  # fmt: skip
def test_mixing_that_cannot_be(change: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(Recipe(), **change)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"crop_size": (0, 8)}, "crop_size is 0 8; "),
     ({"class_weights": [1.0, -1.0]}, "class_weights is 1.0 -1.0; "),
     ({"class_weights": (1.0, 1e10)}, "class_weights is 1.0 10000000000.0; "),
     ({"scale": (2.0, 1.0)}, "scale is 2.0 1.0; "),
     ({"unlabelled": ("photos/", "more/")}, "unlabelled is photos/ more/, but ")],
)  # fmt: skip
def test_refused_values_are_written_as_one_types_them(change: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(Recipe(), **change)


def test_unknown_field() -> None:
    with pytest.raises(InputError, match="'crop_sise'"):
        Recipe.from_dict({"crop_sise": 3})


def test_poly_falls_from_the_peak_to_nothing() -> None:
    recipe = Recipe(base_lr=1.0, warmup_steps=10, num_steps=110, poly_power=0.9)
    rates = [learning_rate(step, recipe) for step in range(110)]
    assert rates[:3] == [0.1, 0.2, pytest.approx(0.3)] and rates[10] == 1
    assert rates[60] == pytest.approx(0.5**0.9)
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 0.02


def test_cosine_and_constant() -> None:
    recipe = Recipe(base_lr=1.0, warmup_steps=0, num_steps=100, schedule="cosine")
    assert learning_rate(0, recipe) == 1 and learning_rate(50, recipe) == pytest.approx(0.5)
    assert learning_rate(99, replace(recipe, schedule="constant")) == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW),
     ("rmsprop", torch.optim.RMSprop)],
)  # fmt: skip
def test_optimizer_groups(name: str, kind: type) -> None:
    network = nn.ModuleDict(
        {
            "backbone": nn.Conv2d(1, 1, 3),
            "head": nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)),
        }
    )
    recipe = Recipe(optimizer=name, backbone_lr_factor=0.5, weight_decay=0.1)
    optimizer = build_optimizer(network, recipe)
    assert type(optimizer) is kind
    groups = {(g["lr_factor"], g["weight_decay"]): len(g["params"]) for g in optimizer.param_groups}
    assert groups == {(0.5, 0.1): 1, (0.5, 0.0): 1, (1.0, 0.1): 1, (1.0, 0.0): 3}


def test_old_names_of_fields_are_read() -> None:
    old = {"hard_pixels": 0.5, "accumulation": 2}
    assert Recipe.from_dict(old) == Recipe(ohem_fraction=0.5, accumulation_steps=2)


def test_lists_of_json_become_tuples_and_kinds_are_checked() -> None:
    assert Recipe.from_dict({"atrous_rates": [3, 6]}).atrous_rates == (3, 6)
    with pytest.raises(InputError, match="num_steps is a; expected int, got str"):
        Recipe.from_dict({"num_steps": "a"})
    with pytest.raises(InputError, match="optimizer is lion; invalid enum value 'lion'"):
        Recipe.from_dict({"optimizer": "lion"})


def test_numbers_of_numpy_are_numbers() -> None:
    recipe = Recipe(base_lr=np.logspace(-4, -2, 3)[1], class_weights=tuple(np.array([1.0, 2.0])))
    assert (type(recipe.base_lr), recipe.class_weights) == (float, (1.0, 2.0))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
