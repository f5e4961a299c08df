"""Recipes and studies by name; their docstrings give command, cost and score."""

from collections.abc import Callable
from functools import partial

from atrous.errors import InputError
from atrous.recipes import studies
from atrous.recipes.camvid import camvid
from atrous.recipes.studies import paper, paper_on_cpu
from atrous.text import did_you_mean
from atrous.train.recipe import Recipe

__all__ = ["DATA_SETS", "RECIPES", "STUDIES", "camvid", "find", "paper"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    "camvid": camvid,
    "paper": paper,
    "plain": Recipe,
}
"""Recipes of `atrous train NAME`; without one, `atrous train --data FOLDER` plans."""

DATA_SETS = {"camvid": "camvid", "paper": "cocostuff-stuff"}
"""Built-in data sets of the recipes that are made for one."""

STUDIES: dict[str, Callable[[], dict[str, Recipe]]] = {
    "against_fcn": studies.against_fcn,
    "against_fcn_with_frrn": studies.against_fcn_with_frrn,
    "against_fcn_short": studies.against_fcn_short,
    "paper_batch": partial(studies.batch_sizes, paper()),
    "paper_backbone": partial(studies.backbones, paper(), studies.RESNETS),
    "paper_blocks": partial(studies.repetitions, paper()),
    "paper_optimizer": partial(studies.optimizers, paper()),
    "paper_jitter": partial(studies.jitter, paper()),
    "camvid_batch": partial(studies.batch_sizes, paper_on_cpu()),
    "camvid_backbone": partial(studies.backbones, paper_on_cpu(), studies.LITES),
    "camvid_blocks": partial(studies.repetitions, paper_on_cpu()),
    "camvid_optimizer": partial(studies.optimizers, paper_on_cpu()),
    "camvid_jitter": partial(studies.jitter, paper_on_cpu()),
}
"""Studies of `atrous compare NAME`: several recipes by name."""


def find(name: str) -> Recipe:
    """Return a recipe by name, or one of a study by STUDY/NAME."""
    if name in RECIPES:
        return RECIPES[name]()
    study, _, member = name.partition("/")
    if study not in STUDIES:
        fix = did_you_mean(name, [*RECIPES, *STUDIES], f"There are: {', '.join(RECIPES)}")
        raise InputError(f"no recipe {name!r}. {fix}")
    recipes = STUDIES[study]()
    if member not in recipes:
        names = ", ".join(f"{study}/{each}" for each in recipes)
        raise InputError(f"{name}: {study} is a study; `atrous compare {study}`, or one of {names}")
    return recipes[member]
