"""Training: a recipe and a data set in, a run folder out.

    from atrous.train import Recipe, train

    scores = train(Recipe(num_steps=500), "my_data", "runs/mine")

torch is imported when `train` is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atrous.train.loop import StepInfo, train
    from atrous.train.recipe import Recipe

__all__ = ["Recipe", "StepInfo", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("atrous.train.loop"), name)
