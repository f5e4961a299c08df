"""Splits: patterns and keys of files, divided by the names of folders or by list files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atrous.images.bands import COLORS, Bands

_ORDER = ("train", "val", "test")
UNDIVIDED = "all"
"""The split of a folder that has no splits."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask, as paths from the folder."""

    split: str
    key: str
    image: str
    mask: str
    bands: Bands = COLORS
    """How the image is read."""


@dataclass(frozen=True)
class Files:
    """Images and masks of a split, whose paths differ in the key alone."""

    images: str
    """Pattern with {key}, from the folder."""
    labels: str
    keys: tuple[str, ...]
    annotations: str = ""
    """The COCO JSON; the only labels of instances and stuff."""
    classes: tuple[str, ...] = ()
    """Binary masks: the names that may stand for {class} in `labels`."""
    valid: str = ""
    """Pattern of masks whose 0 marks pixels to ignore."""
    places: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The paths of image and mask of each key, where a pattern has several suffixes."""
    bands: Bands = COLORS
    """How the images are read; in all splits alike."""

    def image(self, key: str) -> str:
        """The path of an image."""
        return self.places[key][0] if self.places else self.images.replace("{key}", key)

    def mask(self, key: str) -> str:
        """The path of the file that holds its mask."""
        path = self.places[key][1] if self.places else self.labels.replace("{key}", key)
        return path or self.annotations

    def named_mask(self, key: str) -> str:
        """The path of a mask; where one JSON holds all masks, that and the image."""
        mask = self.mask(key)
        return mask if "{key}" in self.labels else f"{mask}, {self.image(key)}"

    def masks(self, key: str) -> list[str]:
        """The paths of all files that may hold a part of its mask."""
        mask = self.mask(key)
        valid = [self.valid.replace("{key}", key)] if self.valid else []
        return [mask.replace("{class}", name) for name in self.classes or ("",)] + valid

    def paths(self) -> set[str]:
        """All files of images and masks."""
        return {path for key in self.keys for path in (self.image(key), *self.masks(key))}


@dataclass(frozen=True)
class Layout:
    """The pairs and splits of a folder, and what was found beside them."""

    folder: Path
    splits: Mapping[str, Files]
    origin: str
    """Where the splits come from: "folders", "lists", "dataset.toml" or "none"."""
    unpaired_images: tuple[str, ...] = ()
    """Paths from the folder, sorted."""
    unpaired_masks: tuple[str, ...] = ()
    odd_names: tuple[str, ...] = ()
    """Files whose names no list of keys can hold."""
    elsewhere: tuple[str, ...] = ()
    """Images in other folders that belong to no pair."""
    pairs_elsewhere: int = 0
    """Number of these that have masks by their names, and would need another pattern."""
    passed_over: tuple[str, ...] = ()
    """Other patterns that fit: drawings for the eye, and other forms of the chosen masks."""
    unused: tuple[str, ...] = ()
    """Patterns of masks that fit a few images, and are not read."""
    same_key: tuple[str, ...] = ()
    """Files of one key and several suffixes, "a.jpg = a.png"; the first or none of them is read."""
    unread: tuple[str, ...] = ()
    """Files that begin as images do and have the suffix of none that is read."""
    missing: tuple[str, ...] = ()
    """Entries of lists that name no file, "train.txt: a.jpg"."""
    crossed: tuple[str, ...] = ()
    """Entries of lists that name the mask of another image, "train.txt: a.jpg"."""
    unused_lists: tuple[str, ...] = ()
    """Lists of splits that are not used, "train.txt: reason"."""
    other_lists: tuple[str, ...] = ()
    """Lists that another list of the split overrides, or whose name may mean something else."""
    guesses: tuple[str, ...] = ()
    """Assumptions about what the lists leave open."""
    unlisted: tuple[str, ...] = ()
    """Images that have masks and are named by no list."""

    def pairs(self) -> list[Pair]:
        """The pairs of all splits, in order."""
        return [
            Pair(split, key, files.image(key), files.named_mask(key), files.bands)
            for split, files in self.splits.items()
            for key in files.keys
        ]

    def paths(self) -> set[str]:
        """All files of images and masks that are read."""
        return {path for files in self.splits.values() for path in files.paths()}


def rank(split: str) -> int:
    """Return the place of a split in the order train, val, test: how far it is held out."""
    return _ORDER.index(split) if split in _ORDER else -1
