"""Which of several folders of masks is meant, where more than one fits the same images.

Drawings for the eye and masks of objects are passed over. Binary masks that differ in one part of
their paths, the class, are masks of one class each, unless names or contents say that they are
drawings of several people, or of single objects. Other masks that differ are refused: a choice
between them would be a guess.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import BRIGHT
from atrous.data.lists import SPLIT_FOLDER
from atrous.doctor.layout.files import Files
from atrous.doctor.layout.names import one_of
from atrous.errors import InputError
from atrous.images.label_maps import read_brightness, read_colors
from atrous.images.photos import IMAGE_SUFFIXES
from atrous.text import some

_DRAWING = re.compile(one_of("drawings"), re.I)
SECOND_CHOICE = re.compile(one_of("drawings", "objects"), re.I)
_ROLE = re.compile(f"{one_of('roles')}|{SPLIT_FOLDER.pattern}", re.I)
_NUMBERED = re.compile(
    r"(?!(?:class|category|cat|label)[_\-. ]?\d)(?:.{0,12}?[_\-. ]?\d+|[a-z]|[0-9a-f]{16,})", re.I
)
_OF_PEOPLE = re.compile(rf"(?:^|[_\-. ])(?:{one_of('people')})[_\-]?[a-z]?\d*(?:$|[_\-. ])", re.I)
_MANUAL = re.compile(r"(?<![a-z0-9])(?:1st|first)?_?manual(?:_?1)?(?![a-z0-9])|1stHO", re.I)
_OTHER_MANUAL = re.compile(r"(?:2nd|second)_?manual|manual_?2|2ndHO", re.I)
_VIEW = re.compile(r"(?:^|[/_\-. ])(?:masks?|fov|roi|field_?of_?view)(?=[/_\-. ]|$)", re.I)
_SEPARATORS = "/_-. "
_SAMPLES = 8
"""Masks of a pattern that are read to tell what it holds."""
_SAME = 0.5
"""Two people's drawings of one object have a larger intersection over union."""
_NESTED = 0.98
"""Share of the smaller mask in the larger one, from which on it is a part of it."""
_LEAST_VIEW = 0.3
"""Smallest share of an image that a field of view covers; it is 0.69 in DRIVE."""


@dataclass(frozen=True)
class Choice:
    """The masks of a split; and patterns that were not chosen."""

    files: Files
    passed_over: tuple[str, ...] = ()
    """Drawings for the eye, other forms of the chosen masks, and those of a second person."""
    unused: tuple[str, ...] = ()
    """Masks of few images, which may be missed."""


def retina_masks(paths: Iterable[str]) -> tuple[set[str], set[str]]:
    """Find, in data of the retina, masks of the field of view and those of a second annotator.

    The names count only where about as many masks are called manual: DRIVE, HRF, CHASE_DB1.
    """
    pictures = [path for path in paths if path.lower().endswith(IMAGE_SUFFIXES)]
    second_masks = {path for path in pictures if _OTHER_MANUAL.search(path)}
    manual = {path for path in pictures if _MANUAL.search(path)} - second_masks
    folders = {part for path in manual for part in path.split("/")[:-1]}
    views = {
        path
        for path in {*pictures} - second_masks - manual
        if _VIEW.search("/".join(part for part in path.split("/") if part not in folders))
    }
    return (views, second_masks) if 2 * len(manual) >= max(1, len(views)) else (set(), set())


def fitting(paths: Iterable[str], keys: Collection[str]) -> dict[str, set[str]]:
    """Return the patterns, and keys, of pictures whose paths have one of `keys` as a whole part.

    Where a picture fits several patterns, the one that most pictures fit counts.
    """
    pictures = (path for path in sorted(paths) if path.lower().endswith(IMAGE_SUFFIXES))
    every = {path: dict(_patterns(path, keys)) for path in pictures}
    times = Counter(pattern for patterns in every.values() for pattern in patterns)
    found: dict[str, set[str]] = {}
    for patterns in filter(None, every.values()):
        pattern = max(patterns, key=lambda pattern: (times[pattern], pattern))
        found.setdefault(pattern, set()).add(patterns[pattern])
    return found


def choose(
    folder: Path,
    files: Files | None,
    images: str,
    fits: Mapping[str, set[str]],
    classes: Collection[str],
) -> Choice | None:
    """Choose the masks of one split.

    Args:
        folder: where paths begin.
        files: the pair that names alone propose; None if there is none.
        images: the pattern of the images.
        fits: other patterns of masks that fit these images, from `fitting`.
        classes: those with masks in other splits.

    Returns:
        None where nothing fits.
    """
    masks = {**fits, **({files.labels: set(files.keys)} if files else {})}
    usual = files.labels if files else images
    second, drawn = (
        {p for p in fits if words.search(_own_parts(p, usual))}
        for words in (SECOND_CHOICE, _DRAWING)
    )
    family = None
    for out in (drawn, second):
        family = family or _by_class(folder, _less(masks, out), second, classes)
    masks = _less(masks, second)
    if family is not None:
        pattern, members = family
        keys = tuple(sorted(set().union(*members.values())))
        files = Files(images, pattern, keys, classes=tuple(sorted(members)))
        own = {pattern.replace("{class}", name) for name in members}
    elif files is None:
        if len(masks) > 1 and max(map(len, masks.values())) > 1:
            raise _ambiguous(folder, *sorted(masks)[:2])
        return None
    else:
        own = {files.labels}
    rest = {p: keys & {*files.keys} for p, keys in _less(masks, own).items()}
    equal = [p for p, keys in rest.items() if 2 * len(keys) >= len(files.keys)]
    for pattern in equal:
        if family or not _same_content(folder, files.labels, pattern, rest[pattern]):
            raise _ambiguous(folder, files.labels, pattern)
    unused = rest.keys() - {*equal}
    return Choice(files, tuple(sorted(second.union(equal) - own)), tuple(sorted(unused)))


def with_field_of_view(
    folder: Path, choice: Choice, views: Iterable[str], second_masks: Iterable[str]
) -> Choice:
    """Add the masks of the field of view, and pass over those of a second annotator.

    Args:
        folder: where paths begin.
        choice: the masks of a split.
        views: paths that may be masks of the field of view.
        second_masks: masks that a second person drew.
    """
    files, keys = choice.files, set(choice.files.keys)
    fits = fitting(views, keys)
    pattern = next((p for p, held in sorted(fits.items()) if held == keys), "")
    for key in _some(keys) if pattern else ():
        label, view = (_read(folder, p.replace("{key}", key)) for p in (files.labels, pattern))
        if label is not None and view is not None and label.shape == view.shape:
            drawn, seen = _inside(label), _inside(view)
            outside = (drawn & ~seen).sum() > (1 - _NESTED) * drawn.sum()
            if outside or seen.mean() < _LEAST_VIEW:
                raise _ambiguous(folder, files.labels, pattern)
    return Choice(
        replace(files, valid=pattern),
        (*choice.passed_over, *sorted(fitting(second_masks, keys))),
        (*choice.unused, *sorted(fits.keys() - {pattern})),
    )


def _patterns(path: str, keys: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield patterns of a path with its longest key, which may occur in it more than once."""
    stem, dot, suffix = path.rpartition(".")
    starts = [0, *(i + 1 for i, letter in enumerate(stem) if letter in _SEPARATORS)]
    ends = [*(i for i, letter in enumerate(stem) if letter in _SEPARATORS), len(stem)]
    found = [(i, j) for i in starts for j in ends if i < j and stem[i:j] in keys]
    longest = max((j - i for i, j in found), default=0)
    for i, j in found:
        if j - i == longest:
            key, sides = stem[i:j], f"[^{re.escape(_SEPARATORS)}]"
            yield f"{stem[:i]}{{key}}{stem[j:]}{dot}{suffix}", key
            whole = rf"(?<!{sides}){re.escape(key)}(?!{sides})"
            yield re.sub(whole, "{key}", stem) + dot + suffix, key


def _less(masks: Mapping[str, set[str]], patterns: Collection[str]) -> dict[str, set[str]]:
    return {pattern: keys for pattern, keys in masks.items() if pattern not in patterns}


def _own_parts(pattern: str, other: str) -> str:
    """Return the parts of a pattern that another one lacks."""
    return "/".join(part for part in pattern.split("/") if part not in other.split("/"))


def _by_class(
    folder: Path, masks: Mapping[str, set[str]], second: Collection[str], names: Collection[str]
) -> tuple[str, dict[str, set[str]]] | None:
    """Return the pattern with {class} that most masks fit, and the keys of each class.

    One of them at least is not among `second`.
    """
    families: dict[tuple[str, str], dict[str, set[str]]] = {}
    for pattern, keys in masks.items():
        for before, name, after in _slots(pattern):
            families.setdefault((before, after), {})[name] = keys
    fit = {
        (before, after): family
        for (before, after), family in families.items()
        if (len(family) > 1 or {*family} <= {*names})
        and any(f"{before}{name}{after}" not in second for name in family)
    }
    if not fit:
        return None
    (before, after), members = max(
        fit.items(), key=lambda item: (sum(map(len, item[1].values())), len("".join(item[1])))
    )
    patterns = {name: f"{before}{name}{after}" for name in members}
    for name, keys in members.items():
        if not _is_binary(folder, [patterns[name].replace("{key}", key) for key in _some(keys)]):
            return None
    pattern = f"{before}{{class}}{after}"
    if {*members} <= {*names}:
        return pattern, members
    if all(_NUMBERED.fullmatch(name) for name in members):
        raise InputError(
            f"{folder}: masks whose names differ in numbers ({_named(pattern, members)}): of "
            "single objects, or of several people? Draw those of an image into one mask of classes"
        )
    pairs = list(combinations(members, 2))
    common = [members[a] & members[b] for a, b in pairs]
    if not any(common):
        raise InputError(
            f"{folder}: every image has a mask in one of {_named(pattern, members)} only: are they "
            "classes, or parts of the set? Put the masks in one folder, or write a dataset.toml"
        )
    for (a, b), keys in zip(pairs, common, strict=True):
        of_people = _OF_PEOPLE.search(a) and _OF_PEOPLE.search(b)
        if of_people or _are_alike(folder, patterns[a], patterns[b], keys):
            raise _ambiguous(folder, patterns[a], patterns[b])
    return pattern, members


def _slots(pattern: str) -> Iterator[tuple[str, str, str]]:
    """Yield each part of a pattern that may name a class, with the text before and after it."""
    for part in re.finditer("[^/]+", pattern.rpartition(".")[0]):
        tokens = list(re.finditer(r"[^_\-. ]+", part[0]))
        for first, last in combinations_with_replacement(range(len(tokens)), 2):
            start, end = part.start() + tokens[first].start(), part.start() + tokens[last].end()
            words = tokens[first : last + 1]
            if not any("{key}" in word[0] or _ROLE.fullmatch(word[0].lower()) for word in words):
                yield pattern[:start], pattern[start:end], pattern[end:]


def _is_binary(folder: Path, paths: Sequence[str]) -> bool:
    """Return whether masks hold two values, or two and what blur makes of them."""
    masks = [mask for path in paths if (mask := _read(folder, path)) is not None]
    for mask in masks:
        top = int(mask.max(initial=0))
        between = (mask > top // 8) & (mask < top - top // 8)
        if len(np.unique(mask)) > 2 and (top < BRIGHT or between.mean() > 0.2):
            return False
    return bool(masks)


def _are_alike(folder: Path, one: str, other: str, keys: Iterable[str]) -> bool:
    """Return whether binary masks show the same object, drawn by two people or in two versions."""
    common, union, smaller = 0, 0, 0
    for key in _some(keys):
        a, b = (_read(folder, pattern.replace("{key}", key)) for pattern in (one, other))
        if a is None or b is None or a.shape != b.shape:
            continue
        inside, other_inside = _inside(a), _inside(b)
        common += int((inside & other_inside).sum())
        union += int((inside | other_inside).sum())
        smaller += min(int(inside.sum()), int(other_inside.sum()))
    if common <= _SAME * union:
        return False
    return common < _NESTED * smaller or common > 0.9 * union


def _same_content(folder: Path, one: str, other: str, keys: Iterable[str]) -> bool:
    """Return whether two patterns hold the same masks up to a one-to-one change of values."""
    both: set[int] = set()
    for key in _some(keys):
        try:
            a, b = (read_colors(folder / p.replace("{key}", key)) for p in (one, other))
        except InputError:
            return False
        if a.shape != b.shape:
            return False
        both |= {*np.unique(a.astype(np.int64) << 24 | b).tolist()}
    return len(both) == len({code >> 24 for code in both}) == len({c & 0xFFFFFF for c in both})


def _inside(mask: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Return the pixels at least half as bright as the brightest of a binary mask, (H, W)."""
    return np.asarray(mask >= max(1, int(mask.max(initial=0)) // 2))


def _some(keys: Iterable[str]) -> list[str]:
    ordered = sorted(keys)
    return ordered[:: len(ordered) // _SAMPLES + 1]


def _read(folder: Path, path: str) -> NDArray[np.integer[Any]] | None:
    """Read a mask; None where it cannot be read, which the scan reports."""
    try:
        return read_brightness(folder / path)
    except InputError:
        return None


def _named(pattern: str, names: Iterable[str]) -> str:
    paths = (pattern.replace("{class}", name).replace("{key}", "*") for name in sorted(names))
    return some(paths, most=2)


def _ambiguous(folder: Path, *patterns: str) -> InputError:
    one, other = (pattern.replace("{key}", "*").replace("{class}", "CLASS") for pattern in patterns)
    return InputError(
        f"{folder}: two kinds of masks fit the same images, {one} and {other}; remove or rename "
        "the one that is not meant, or write a dataset.toml"
    )
