"""What the numbers in a label map mean: class names, colours, and which classes are things.

A taxonomy counts classes by train id, 0 to K - 1. Pixels that no class covers carry `IGNORE_INDEX`
and are left out of every loss and every score. `atrous.data.encodings.masks` turns the ids of a
data set's files into train ids.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from atrous.decode import convert
from atrous.errors import InputError

IGNORE_INDEX = 255
"""The train id of an unlabelled pixel."""

Byte = Annotated[int, Meta(ge=0, le=255)]

_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, which move a terminal's cursor, and surrogates, which no file can hold."""


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """Names, colours and things of K classes, in the order of their train ids."""

    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[Byte, Byte, Byte], ...]
    """sRGB, 0 to 255 each."""
    things: frozenset[int] = frozenset()
    """Train ids of countable classes; all others are stuff."""
    groups: tuple[str, ...] = ()
    """The place of each class in a tree of classes, root first: "stuff/indoor/textile"; empty where
    there is no tree."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= IGNORE_INDEX:
            raise InputError(f"{self.name}: {len(self.classes)} classes, give 1 to {IGNORE_INDEX}")
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
                f"{self.name}: {len(self.colors)} colours for {len(self.classes)} classes; "
                "give each class one"
            )
        if wrong := [thing for thing in self.things if not 0 <= thing < len(self.classes)]:
            raise InputError(f"{self.name}: the thing {wrong[0]} is no class; name train ids")
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
        """Return the colour of each of 256 ids, (256, 3) uint8; ids without a class are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: self.num_classes] = self.colors
        return palette

    def categories(self) -> list[dict[str, Any]]:
        """Return the classes as categories of a COCO panoptic JSON, whose ids are train ids."""
        return [
            {"id": i, "name": name, "isthing": int(i in self.things), "color": list(color)}
            for i, (name, color) in enumerate(zip(self.classes, self.colors, strict=True))
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form, which `from_dict` reads back."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "colors": [list(color) for color in self.colors],
            "things": sorted(self.things),
            "groups": list(self.groups),
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> "Taxonomy":
        """Read what `to_dict` wrote."""
        return convert(table, cls, "taxonomy", "it needs name, classes, colors and things")


def distinct_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return the first `count` colours of the PASCAL VOC colour map after black.

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
