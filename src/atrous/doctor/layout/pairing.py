"""Which mask belongs to which image, found by the names of folders and files alone.

Files whose paths differ only in one part, the key, form a group: `images/{key}.jpg`. Of all groups
of images and all groups of masks, those two that share most keys are taken as a pair, because a
dataset.toml names one pattern for each. Splits come from folder names or from list files.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path, PurePosixPath

from atrous.data.lists import SPLIT_FOLDER, is_listable, split_of
from atrous.doctor.layout.files import UNDIVIDED, Files, Layout, rank
from atrous.doctor.layout.lists import LIST_SUFFIXES, with_lists
from atrous.doctor.layout.mask_choice import SECOND_CHOICE, retina_masks, with_field_of_view
from atrous.doctor.layout.mask_sets import (
    IMAGE_FOLDER,
    MAX_GROUPS,
    Group,
    choose_extended,
    choose_masks,
    has_few_colors,
    in_split,
)
from atrous.doctor.layout.names import merge_suffixes, one_of, unread_images, with_real_paths
from atrous.errors import InputError
from atrous.images.photos import IMAGE_SUFFIXES
from atrous.text import some

_MASK_FOLDER = re.compile(one_of("mask_folders"))
_MASK = rf"(?:(?i:{one_of('masks')})|[LP])"
_IMAGE = one_of("images")
_TAIL = re.compile(rf"(?P<mask>(?:[_\-. ](?:{_MASK}))+)$|(?P<image>[_\-. ](?:{_IMAGE}))$")
_HEAD = re.compile(rf"^(?:(?P<mask>(?:{_MASK})[_\-])|(?P<image>(?:{_IMAGE})[_\-]))")

_WEIGHTS = {".mat": 0.5, ".json": 0.4, ".txt": 0.3}
"""Captions and boxes lie beside images too: where there are masks as pictures, they count more."""


@dataclass(frozen=True)
class _Name:
    """A path, taken apart."""

    path: str
    places: tuple[tuple[str, str], ...]
    """Folders, and those below that belong to the key; first split after the last telling name."""
    readings: tuple[tuple[str, str, str], ...]
    """Head, key and tail of the file's name, without its suffix, in each way to read it."""
    is_mask: bool

    @property
    def unit(self) -> tuple[str, bool]:
        """Equal for files that may have one pattern, suffixes aside."""
        telling = self.places[0][0]
        return telling or self.path.rpartition("/")[0], self.is_mask

    @property
    def keys(self) -> set[str]:
        return {below + key for _, below in self.places for _, key, _ in self.readings}


_Pair = tuple[Group, Group]


class NothingPairedError(InputError):
    """No image was found, or no mask that belongs to one."""


def find_layout(folder: Path, paths: Iterable[str]) -> Layout:
    """Pair the files of `folder` by their names.

    Args:
        folder: where they lie.
        paths: of its files, from `folder`, as `walk` yields them.
    """
    paths = sorted(paths)
    odd = tuple(repr(path)[1:-1] for path in paths if not is_listable(path))
    kinds = (*IMAGE_SUFFIXES, *_WEIGHTS)
    views, second_masks = retina_masks(paths)
    skipped = views | second_masks
    own = [
        _name(path)
        for path in paths
        if is_listable(path) and path.lower().endswith(kinds) and path not in skipped
    ]
    merged = merge_suffixes({name.path: name.unit for name in own})
    names = [_name(path) for path in sorted(merged.real)]
    groups = _groups(names)
    pairs = _paired(groups)
    are_named = bool(pairs)
    # Where no name says mask, PNGs are masks: x.png of x.jpg.
    pngs = (replace(group, is_mask=group.pattern.lower().endswith(".png")) for group in groups)
    pairs = pairs or _paired(pngs) or _paired(_by_content(folder, groups, merged.real))
    roles = {name.path: name.is_mask for name in names}
    image_groups = [group for group in groups if not group.is_mask]
    choices = choose_masks(folder, roles, _proposed(pairs), are_named=are_named) or choose_extended(
        folder, roles, image_groups
    )
    others = (path for path in paths if not path.lower().endswith((*kinds, *LIST_SUFFIXES)))
    unread = tuple(unread_images(folder, filter(is_listable, others)))
    if not choices:
        photos = sum(path.lower().endswith(IMAGE_SUFFIXES) for path in paths)
        raise _nothing_paired(folder, photos, unread)
    choices = {
        split: with_field_of_view(
            folder, choice, *(in_split(paths, split) for paths in (views, second_masks))
        )
        for split, choice in sorted(choices.items(), key=lambda item: rank(item[0]))
    }
    splits = {split: choice.files for split, choice in choices.items()}
    if (both := splits.pop("trainval", None)) and "train" not in splits:
        splits = {"train" if splits else "": both, **splits}
    passed = tuple(sorted({p for choice in choices.values() for p in choice.passed_over}))
    unused = tuple(sorted({p for choice in choices.values() for p in choice.unused}))
    images, masks = (_unpaired(names, splits.values(), side, (*passed, *unused)) for side in (0, 1))
    layout = Layout(folder, splits, "folders", images, masks, odd, unread=unread)
    layout = _with_elsewhere(replace(layout, passed_over=passed, unused=unused), names)
    layout = with_real_paths(layout, merged)
    if "" in splits:
        layout = replace(layout, splits={UNDIVIDED: layout.splits[""]}, origin="none")
    return with_lists(layout, paths)


def _proposed(pairs: Mapping[str, _Pair]) -> list[tuple[Group, Files]]:
    """All images of each split, and the pairs among them."""
    return [
        (
            replace(image, split=split),
            Files(image.pattern, mask.pattern, tuple(sorted(image.keys & mask.keys))),
        )
        for split, (image, mask) in pairs.items()
    ]


def _with_elsewhere(layout: Layout, names: Iterable[_Name]) -> Layout:
    """Add the images in other folders that belong to no pair."""
    used = layout.paths().union(layout.unpaired_images, layout.unpaired_masks)
    rest = [name for name in names if name.path not in used]
    images = [n.path for n in rest if not n.is_mask and n.path.lower().endswith(IMAGE_SUFFIXES)]
    pairs = _paired(_groups(rest)).values()
    count = sum(len(image.keys & mask.keys) for image, mask in pairs)
    return replace(layout, elsewhere=tuple(images), pairs_elsewhere=count)


def _name(path: str) -> _Name:
    *folders, name = path.split("/")
    telling = 0
    for number, part in enumerate(folders, 1):
        if any(p.search(part.lower()) for p in (_MASK_FOLDER, IMAGE_FOLDER, SPLIT_FOLDER)):
            telling = number
    places = [
        ("".join(f"{part}/" for part in folders[:n]), "".join(f"{part}/" for part in folders[n:]))
        for n in sorted({telling, len(folders)})
    ]
    stem = PurePosixPath(name).stem
    readings, tells_mask = [("", stem, "")], False
    if (match := _TAIL.search(stem)) and match.start():
        readings.append(("", stem[: match.start()], match[0]))
        tells_mask = match["mask"] is not None
    if (inner := PurePosixPath(stem).suffix).lower() in IMAGE_SUFFIXES:  # x.jpg and x.jpg.png
        readings.append(("", stem.removesuffix(inner), inner))
    if (match := _HEAD.search(stem)) and match.end() < len(stem):
        readings.append((match[0], stem[match.end() :], ""))
        tells_mask |= match["mask"] is not None
    # The deepest folder that tells a role decides.
    lowered = [part.lower() for part in reversed(folders)]
    roles = (f for f in lowered if _MASK_FOLDER.search(f) or IMAGE_FOLDER.search(f))
    is_mask = next((_MASK_FOLDER.search(f) is not None for f in roles), tells_mask)
    is_mask |= path.lower().endswith(tuple(_WEIGHTS))
    return _Name(path, tuple(places), tuple(readings), is_mask)


def _groups(names: Iterable[_Name]) -> list[Group]:
    """Group files by all of their path that is not the key."""
    groups: dict[tuple[str, str, bool], set[str]] = defaultdict(set)
    for name in names:
        for (folder, below), (head, key, tail) in product(name.places, name.readings):
            if not (head and below):  # a pattern has one place for the key
                pattern = f"{folder}{head}{{key}}{tail}{PurePosixPath(name.path).suffix}"
                groups[split_of(folder), pattern, name.is_mask].add(below + key)
    return [Group(*group, frozenset(keys)) for group, keys in groups.items()]


def _by_content(folder: Path, groups: Iterable[Group], real: Mapping[str, str]) -> list[Group]:
    """Take files of few colours as masks, where names tell nothing; read one file of each group."""
    largest = sorted(groups, key=lambda g: (-len(g.keys), g.pattern))[:MAX_GROUPS]
    first = [group.pattern.replace("{key}", min(group.keys)) for group in largest]
    return [
        replace(group, is_mask=has_few_colors(folder / real[path]))
        for group, path in zip(largest, first, strict=True)
    ]


def _paired(groups: Iterable[Group]) -> dict[str, _Pair]:
    """The image group and the mask group of each split; of "" where there are no splits."""
    groups = list(groups)
    pairs: dict[str, _Pair] = {}
    for split in sorted({group.split for group in groups}, reverse=True):  # "" comes last
        near = [group for group in groups if group.split in (split, "")]
        # Of patterns that fit equally many files, the shortest comes first, and so wins.
        near.sort(key=lambda g: (-len(g.keys) * _weight(g), len(g.pattern), g.pattern))
        images, masks = ([g for g in near if g.is_mask == side] for side in (False, True))
        scored = [
            (len(image.keys & mask.keys) * _weight(mask), image, mask)
            for image, mask in product(images[:MAX_GROUPS], masks[:MAX_GROUPS])
            if split in (image.split, mask.split)
        ]
        best = max(scored, key=lambda entry: entry[0], default=None)
        if best and best[0] and (split or not pairs):
            pairs[split] = best[1:]
    return pairs


def _weight(group: Group) -> float:
    ending = (w for end, w in _WEIGHTS.items() if group.pattern.lower().endswith(end))
    return next(ending, 1.0) * (0.6 if SECOND_CHOICE.search(group.pattern) else 1.0)


def _unpaired(
    names: Sequence[_Name], splits: Iterable[Files], side: int, others: Sequence[str]
) -> tuple[str, ...]:
    """The images (side 0) or masks (side 1) in the folders of `splits` that belong to none.

    Masks of the patterns `others` are not of these.
    """
    paths: set[str] = set()
    for files in splits:
        keys = set(files.keys)
        used = {path for key in keys for path in files.masks(key)}
        used |= {pattern.replace("{key}", key) for pattern in others for key in keys}
        for name_of_class in files.classes or ("",) if side else ("",):
            pattern = (files.labels if side else files.images).replace("{class}", name_of_class)
            folder = pattern[: pattern.index("{key}")].rpartition("/")[0]
            kinds = tuple(e for e in _WEIGHTS if pattern.lower().endswith(e)) or IMAGE_SUFFIXES
            paths |= {
                name.path
                for name in names
                if (f"{folder}/" if folder else "") in (place for place, _ in name.places)
                and name.is_mask == bool(side)
                and name.path.lower().endswith(kinds)
                and not name.keys & keys  # objects beside classes are a second mask, no stray one
                and name.path not in used
            }
    return tuple(sorted(paths))


def _nothing_paired(folder: Path, photos: int, unread: Sequence[str]) -> NothingPairedError:
    looked = "images/ and masks/, train/ and trainannot/, x.jpg and x_mask.png, or a COCO JSON"
    if unread:
        looked += f"; passed over images in a format that is not read: {some(unread)}"
    dead = (path for path in folder.rglob("*") if path.is_symlink() and not path.exists())
    if links := sorted(filter(is_listable, (str(path.relative_to(folder)) for path in dead))):
        looked += f"; passed over links that lead nowhere: {some(links)}"
    if photos:
        return NothingPairedError(
            f"{folder}: {photos} images, but no mask goes with one by name; looked for {looked}"
        )
    return NothingPairedError(f"{folder}: no images in it; looked for {looked}")
