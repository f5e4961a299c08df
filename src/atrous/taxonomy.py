"""What the numbers in a label map mean: class names, colours, and which classes are things.

A taxonomy counts classes by train id, 0 to K - 1. Pixels that no class covers carry `IGNORE_INDEX`
and are left out of every loss and every score. `atrous.data.encodings.masks` turns the ids of a
data set's files into train ids.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Annotated, Any

import msgspec
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
        for fault in self._faults():
            raise InputError(f"{self.name}: {fault}")

    def _faults(self) -> Iterator[str]:
        count = len(self.classes)
        if not 1 <= count <= IGNORE_INDEX:
            yield f"{count} classes, give 1 to {IGNORE_INDEX}"
        for name, times in Counter(self.classes).items():
            if times > 1:
                yield f"the class {short(name)} is named twice; give each its own name"
            if _NO_TEXT.search(name):
                yield f"the class {short(name)} holds a character that is no text; rename it"
        if len(self.colors) != count:
            yield f"{len(self.colors)} colours for {count} classes; give each class one"
        if wrong := [thing for thing in self.things if not 0 <= thing < count]:
            yield f"the thing {wrong[0]} is no class; name train ids"
        if len(self.groups) not in (0, count):
            yield f"{len(self.groups)} groups for {count} classes; give each class one, or none"

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
        table: dict[str, Any] = msgspec.to_builtins(self)
        return table | {"things": sorted(self.things)}

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
