"""Splits: patterns and keys of files, divided by the names of folders or by list files."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

SPLIT_FOLDER = re.compile(
    r"(?<![a-z])(train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?)(?=annot|label|mask|im|seg|[^a-z]|$)"
)
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_ORDER = ("train", "val", "test")
UNDIVIDED = "all"
"""The split of a folder that has no splits."""
_MOST_LIST_BYTES = 1 << 26


@dataclass(frozen=True)
class Files:
    """Images and masks whose paths are the same but for the key."""

    images: str
    """Pattern with {key}, from the folder."""
    labels: str
    keys: tuple[str, ...]
    annotations: str = ""
    """COCO: the JSON; instances and stuff have no labels besides."""
    classes: tuple[str, ...] = ()
    """Of binary masks: what may stand for {class} in `labels`."""
    valid: str = ""
    """Pattern of masks whose 0 marks pixels to ignore."""

    def image(self, key: str) -> str:
        """The path of an image."""
        return self.images.replace("{key}", key)

    def mask(self, key: str) -> str:
        """The path of what holds its mask."""
        return self.labels.replace("{key}", key) or self.annotations

    def masks(self, key: str) -> list[str]:
        """The paths of all files that may hold a part of its mask."""
        mask = self.mask(key)
        valid = [self.valid.replace("{key}", key)] if self.valid else []
        return [mask.replace("{class}", name) for name in self.classes or ("",)] + valid


@dataclass(frozen=True)
class Layout:
    """What a folder holds, by its names."""

    folder: Path
    splits: Mapping[str, Files]
    origin: str
    """Where the splits come from: "folders", "lists", "dataset.toml" or "none"."""
    unpaired_images: tuple[str, ...] = ()
    """From the folder, sorted."""
    unpaired_masks: tuple[str, ...] = ()
    odd_names: tuple[str, ...] = ()
    """Files whose names no list of keys can hold."""
    elsewhere: tuple[str, ...] = ()
    """Images in other folders, which no pair is of."""
    pairs_elsewhere: int = 0
    """How many of these have masks by their names, so that another pattern would be needed."""
    passed_over: tuple[str, ...] = ()
    """Patterns of masks that fit as well: drawings for the eye, and other forms of those chosen."""
    unused: tuple[str, ...] = ()
    """Patterns of masks that fit a few images, and are not read."""


def split_of(path: str) -> str:
    """The split that the folders, or the file, of a path are named after; "" if none."""
    found = SPLIT_FOLDER.findall(path.lower())
    return _SPLITS[found[-1]] if found else ""


def rank(split: str) -> int:
    """The place of a split in the usual order, which is also by how far it is held out."""
    return _ORDER.index(split) if split in _ORDER else -1


def narrow_to_lists(
    folder: Path, texts: Iterable[str], splits: Mapping[str, Files]
) -> tuple[dict[str, Files], set[str]]:
    """Narrow splits down to the list files named after them; also the stems that the lists name.

    Of several lists of one split, the one counts that most of its lines fit.
    """
    best: dict[str, tuple[float, Files, set[str]]] = {}
    for text in texts:
        split = _SPLITS.get(PurePosixPath(text).stem.lower(), "")
        files = splits.get(split, splits.get(""))
        if not split or files is None or (folder / text).stat().st_size > _MOST_LIST_BYTES:
            continue
        lines = (folder / text).read_text("utf-8", errors="replace").splitlines()
        named = [line.split()[0] for line in lines if line.strip()]
        keys = _keys_named(named, files)
        score = len(keys) / max(len(named), 1)
        if keys and score > best.get(split, (0.0,))[0]:
            stems = {PurePosixPath(entry).stem for entry in named}
            best[split] = score, replace(files, keys=keys), stems
    stems = set().union(*(stems for *_, stems in best.values()))
    return {split: best[split][1] for split in sorted(best, key=rank)}, stems


def _keys_named(named: Iterable[str], files: Files) -> tuple[str, ...]:
    """The keys of `files` that the entries of a list name: as keys, as paths, or as file names."""
    by_ending = {part: key for key in files.keys for part in (key.split("/")[-1], key)}
    after = files.images.split("{key}")[1]
    found: dict[str, None] = {}
    for entry in named:
        plain = entry.removesuffix(after)
        for part in (plain, plain.split("/")[-1], PurePosixPath(entry).stem):
            if part in by_ending:
                found[by_ending[part]] = None
                break
    return tuple(found)
