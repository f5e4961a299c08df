"""What the numbers in a label map mean: class names, colours, and which classes are things.

A taxonomy counts classes by train id, 0 to K - 1. Pixels that no class covers carry `IGNORE_INDEX`
and are left out of every loss and every score. How the ids of a dataset's files become train ids is
told in `atrous.data.encodings.masks`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError

IGNORE_INDEX = 255
"""The train id of an unlabelled pixel."""

_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, which move a terminal's cursor, and surrogates, which no file can hold."""


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """Names, colours and things of K classes, in the order of their train ids."""

    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    """sRGB, 0 to 255 each."""
    things: frozenset[int] = frozenset()
    """Train ids of countable classes; all others are stuff."""
    groups: tuple[str, ...] = ()
    """Where each class hangs in a tree of classes, root first: "stuff/indoor/textile". Empty: no
    tree."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= IGNORE_INDEX:
            raise InputError(
                f"{self.name}: {len(self.classes)} classes, where 1 to {IGNORE_INDEX} can be"
            )
        if len(set(self.classes)) != len(self.classes):
            twice = next(c for c in self.classes if self.classes.count(c) > 1)
            raise InputError(
                f"{self.name}: the class {short(twice)} is named twice; give each its own name"
            )
        if odd := [name for name in self.classes if _NO_TEXT.search(name)]:
            raise InputError(
                f"{self.name}: the class {short(odd[0])} holds a character that is no text; "
                "give it another name"
            )
        if len(self.colors) != len(self.classes):
            raise InputError(
                f"{self.name}: {len(self.colors)} colours for {len(self.classes)} classes"
            )
        if self.groups and len(self.groups) != len(self.classes):
            raise InputError(
                f"{self.name}: {len(self.groups)} groups for {len(self.classes)} classes; "
                "give each class its group, or none"
            )

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.classes)

    def palette(self) -> NDArray[np.uint8]:
        """The colour of each of 256 ids, (256, 3) uint8; ids without a class are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: self.num_classes] = self.colors
        return palette

    def categories(self) -> list[dict[str, Any]]:
        """The classes as COCO's panoptic JSON lists its categories, with train ids as ids."""
        return [
            {"id": i, "name": name, "isthing": int(i in self.things), "color": list(color)}
            for i, (name, color) in enumerate(zip(self.classes, self.colors, strict=True))
        ]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, which `from_dict` reads back."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "colors": [list(color) for color in self.colors],
            "things": sorted(self.things),
            "groups": list(self.groups),
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "Taxonomy":
        """Read what `to_dict` wrote.

        Raises:
            InputError: a field is missing or of the wrong kind.
        """
        try:
            classes, groups = table["classes"], table.get("groups", [])
            for names in (classes, groups):
                if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                    raise ValueError(f"{short(names)}, where a list of names was expected")
            colors = tuple((red, green, blue) for red, green, blue in table["colors"])
            things = {*table["things"]}
            if wrong := {*chain(*colors)} - {*range(256)}:
                raise ValueError(f"a colour of {short(wrong.pop())}, where 0 to 255 can be")
            if wrong := things - {*range(len(classes))}:
                raise ValueError(f"the thing {short(wrong.pop())}, which is no class")
            return cls(
                name=str(table["name"]),
                classes=tuple(classes),
                colors=colors,
                things=frozenset(things),
                groups=tuple(groups),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"taxonomy: {error}; it needs name, classes, colors and things"
            ) from None


def distinct_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """`count` colours that are told apart: the PASCAL VOC colour map, from its second entry on.

    >>> distinct_colors(2)
    ((128, 0, 0), (0, 128, 0))
    """
    colors = []
    for index in range(1, count + 1):
        color = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                color[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colors.append((color[0], color[1], color[2]))
    return tuple(colors)
