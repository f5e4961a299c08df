"""Recipes: functions that return a Recipe; their docstrings give the command, cost and score."""

from collections.abc import Callable

from atrous.errors import InputError
from atrous.recipes.camvid import camvid, camvid_small
from atrous.recipes.paper import (
    against_fcn,
    camvid_backbone,
    camvid_batch,
    camvid_jitter,
    camvid_optimizer,
    paper,
    paper_backbone,
    paper_batch,
    paper_jitter,
    paper_optimizer,
)
from atrous.text import did_you_mean
from atrous.train.recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    "camvid": camvid,
    "camvid_small": camvid_small,
    "paper": paper,
    "plain": Recipe,
}
"""What `atrous train NAME` looks up; `plain` is the default of `atrous train --data FOLDER`."""

STUDIES: dict[str, Callable[[], dict[str, Recipe]]] = {
    "against_fcn": against_fcn,
    "paper_batch": paper_batch,
    "paper_backbone": paper_backbone,
    "paper_optimizer": paper_optimizer,
    "paper_jitter": paper_jitter,
    "camvid_batch": camvid_batch,
    "camvid_backbone": camvid_backbone,
    "camvid_optimizer": camvid_optimizer,
    "camvid_jitter": camvid_jitter,
}
"""What `atrous compare NAME` looks up, too: several recipes by name."""


def find(name: str) -> Recipe:
    """Return a recipe by name, or one of a study by STUDY/NAME.

    Raises:
        InputError: no such recipe; with the nearest name, or the members of the study.
    """
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
