"""Patterns: the path of the file of each key, from the folder of a data set.

`images/{key}.jpg` has one path for a key, `images/{key}.{jpg,png}` has two, of which one exists.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from atrous.errors import InputError
from atrous.files import is_file

_CHOICE = re.compile(r"\.\{(?P<suffixes>[\w.]+(?:,[\w.]+)+)\}$")


@lru_cache
def alternatives(pattern: str) -> tuple[str, ...]:
    """Return the patterns, of one suffix each, that a pattern stands for.

    >>> alternatives("images/{key}.{jpg,png}")
    ('images/{key}.jpg', 'images/{key}.png')
    >>> alternatives("images/{key}.jpg")
    ('images/{key}.jpg',)
    """
    if not (match := _CHOICE.search(pattern)):
        return (pattern,)
    return tuple(f"{pattern[: match.start()]}.{end}" for end in match["suffixes"].split(","))


def with_suffixes(start: str, suffixes: Iterable[str]) -> str:
    """Return the pattern of paths that begin with `start` and end in one of `suffixes`.

    >>> with_suffixes("images/{key}", [".jpg", ".png"]), with_suffixes("{key}", [".jpg"])
    ('images/{key}.{jpg,png}', '{key}.jpg')
    """
    first, *others = suffixes
    return f"{start}.{{{','.join(s[1:] for s in (first, *others))}}}" if others else start + first


def path_of(folder: Path, pattern: str, key: str) -> str:
    """Return the path of the file of `key`; where no file exists, the first possible path."""
    paths = [one.replace("{key}", key) for one in alternatives(pattern)]
    if len(paths) == 1:
        return paths[0]
    there = [path for path in paths if is_file(folder / path)]
    for other in there[1:]:
        if not (folder / other).samefile(folder / there[0]):  # as .jpg and .JPG on some systems
            raise InputError(
                f"{folder / there[0]}: {other} has the same key {key!r}; "
                "remove one of the two or take its suffix out of the pattern"
            )
    return there[0] if there else paths[0]
