"""Options of rasters, said to the user."""

from typing import TYPE_CHECKING

from atrous.cli.progress import say

if TYPE_CHECKING:
    from atrous.data.dataset import Dataset


def say_fourth_band(dataset: "Dataset") -> None:
    """Say what a fourth band of the data set's TIFFs was taken for, if there is one."""
    if line := dataset.fourth_band[1]:
        say(line)
