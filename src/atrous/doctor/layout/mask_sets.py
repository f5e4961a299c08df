"""The masks of every split: found by their names, or by their contents."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from atrous.data.lists import split_of
from atrous.doctor.layout.files import Files
from atrous.doctor.layout.mask_choice import Choice, choose, fitting
from atrous.doctor.layout.names import one_of
from atrous.errors import InputError
from atrous.images.label_maps import read_colors

IMAGE_FOLDER = re.compile(one_of("image_folders"))
MAX_GROUPS = 12
"""Most groups of images, or of masks, that are tried."""
_FEW_COLORS = 64


@dataclass(frozen=True)
class Group:
    """Files whose paths are the same but for the key."""

    split: str
    pattern: str
    """Their path, with {key}."""
    is_mask: bool
    keys: frozenset[str]

    @property
    def paths(self) -> set[str]:
        """The files."""
        return {self.pattern.replace("{key}", key) for key in self.keys}

    def without_extended(self) -> "Group":
        """Leave out keys that begin with another one: of x and x_car, x is the image."""

        def is_extended(key: str) -> bool:
            return any(key[: end.start()] in self.keys for end in re.finditer(r"[_\-. ]", key))

        return replace(self, keys=frozenset(key for key in self.keys if not is_extended(key)))


Roles = Mapping[str, bool]
"""By path: whether its folders, or its name, say that it is a mask."""


def choose_masks(
    folder: Path, roles: Roles, proposed: Sequence[tuple[Group, Files]], *, are_named: bool
) -> dict[str, Choice]:
    """Choose the masks of each split among those that names propose and others that fit.

    Args:
        folder: where the files lie.
        roles: of all files.
        proposed: the images of each split, and the pairs that names propose.
        are_named: whether names say which files are masks.
    """
    taken = set[str]().union(*(images.paths | files.paths() for images, files in proposed))
    rest = {path: is_mask for path, is_mask in roles.items() if path not in taken}
    fits = [_fitting(folder, rest, images, are_named=are_named) for images, _ in proposed]

    def choose_with(classes: set[str]) -> dict[str, Choice]:
        return {
            images.split: choice
            for (images, files), fit in zip(proposed, fits, strict=True)
            if (choice := choose(folder, files, images.pattern, fit, classes))
        }

    choices = choose_with(set())
    # A split may lack all masks but those of one class, which other splits tell to be one.
    classes = {name for choice in choices.values() for name in choice.files.classes}
    return choose_with(classes) if classes else choices


def choose_extended(folder: Path, roles: Roles, groups: Iterable[Group]) -> dict[str, Choice]:
    """Choose the masks of each split where their names extend those of images: x_car.png of x.jpg.

    Args:
        folder: where the files lie.
        roles: of all files.
        groups: of files that may be the images.
    """
    choices: dict[str, Choice] = {}
    every = [group.without_extended() for group in groups]
    every.sort(key=lambda group: (-len(group.keys), len(group.pattern), group.pattern))
    for split in sorted({group.split for group in every}, reverse=True):  # "" comes last
        near = [replace(group, split=split) for group in every if group.split in (split, "")]
        for images, are_named in product(near[:MAX_GROUPS], (True, False)):
            if split in choices or (not split and choices):
                break
            rest = {path: roles[path] for path in roles.keys() - images.paths}
            fits = _fitting(folder, rest, images, are_named=are_named)
            if choice := choose(folder, None, images.pattern, fits, set()):
                choices[split] = choice
    return choices


def in_split(paths: Iterable[str], split: str) -> list[str]:
    """Return the paths in folders of a split, or of no split."""
    return [path for path in paths if split_of(path.rpartition("/")[0]) in (split, "")]


def has_few_colors(path: Path) -> bool:
    """Return whether a picture has so few colours that it may be a mask."""
    try:
        return len(np.unique(read_colors(path))) <= _FEW_COLORS
    except InputError:
        return False


def _fitting(folder: Path, roles: Roles, images: Group, *, are_named: bool) -> dict[str, set[str]]:
    """Return the patterns of masks that fit the images of a split by their keys.

    Masks in folders of other splits, or in folders with other images, do not count.
    """
    near = in_split(roles, images.split)
    if are_named:
        parts = {part for path in roles if not roles[path] for part in path.split("/")[:-1]}
        parts -= {*images.pattern.split("/")}
        masks = (path for path in near if roles[path])
        return fitting((p for p in masks if parts.isdisjoint(p.split("/")[:-1])), images.keys)
    fits = fitting(near, images.keys)
    unnamed = {p: k for p, k in fits.items() if not IMAGE_FOLDER.search(p.lower())}
    return {p: k for p, k in unnamed.items() if has_few_colors(folder / p.replace("{key}", min(k)))}
