"""Recipes: functions that return a Recipe; their docstrings give the command, cost and score."""

from collections.abc import Callable

from atrous.recipes.camvid import camvid, camvid_small
from atrous.recipes.paper import paper
from atrous.train.recipe import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    "camvid": camvid,
    "camvid_small": camvid_small,
    "paper": paper,
    "plain": Recipe,
}
"""What `atrous train NAME` looks up; `plain` is the default of `atrous train --data FOLDER`."""
