"""Label maps for the eye: colours, and overlays with a legend."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atrous.taxonomy import IGNORE_INDEX, Taxonomy

_SMALLEST_FONT, _LARGEST_FONT = 12, 96
_FONTS_PER_HEIGHT = 24
_ROW_HEIGHT = 1.5
"""Of the legend, in font sizes."""
_MIN_ROWS = 12
"""The legend shows at least so many classes, even where it becomes taller than the image."""

Share = tuple[str, float, tuple[int, int, int]]
"""Name, fraction of the area, colour: one row of the legend."""


def colorize(labels: NDArray[np.integer[Any]], taxonomy: Taxonomy) -> NDArray[np.uint8]:
    """Return the colour of each train id: (H, W) -> uint8 (H, W, 3); ignored pixels are black."""
    return taxonomy.palette().take(labels, axis=0)


def overlay(
    image: NDArray[np.uint8],  # (H, W, 3)
    labels: NDArray[np.integer[Any]],  # (H, W)
    taxonomy: Taxonomy,
    opacity: float = 0.5,
) -> Image.Image:
    """Lay the colours of `labels` over `image`, with a legend to its right.

    The photo keeps its size, at the top left. Ignored pixels show the photo alone.

    Args:
        image: (H, W, 3) sRGB.
        labels: (H, W) train ids.
        taxonomy: their names and colours.
        opacity: of the colours, 0 to 1.
    """
    assert image.shape == (*labels.shape, 3)
    photo = Image.fromarray(image)
    mixed = Image.blend(photo, Image.fromarray(colorize(labels, taxonomy)), opacity)
    if (ignored := labels == IGNORE_INDEX).any():
        mixed.paste(photo, mask=Image.fromarray(ignored))
    legend = _legend(shares(labels, taxonomy), photo.height)
    canvas = Image.new(
        "RGB", (photo.width + legend.width, max(photo.height, legend.height)), "white"
    )
    canvas.paste(mixed, (0, 0))
    canvas.paste(legend, (photo.width, 0))
    return canvas


def shares(labels: NDArray[np.integer[Any]], taxonomy: Taxonomy) -> list[Share]:
    """Return the classes that occur in `labels` (H, W), largest first, as parts of all pixels."""
    num_classes = taxonomy.num_classes
    counts = np.zeros(num_classes, np.int64)
    for row in range(0, len(labels), 256):  # bincount widens its input to 64 bits
        counts += np.bincount(labels[row : row + 256].ravel(), minlength=num_classes)[:num_classes]
    order = np.argsort(-counts, kind="stable")
    return [
        (taxonomy.classes[i], float(counts[i] / labels.size), taxonomy.colors[i])
        for i in order
        if counts[i]
    ]


def _legend(rows: list[Share], image_height: int) -> Image.Image:
    """Draw a panel as tall as its rows; the font grows with the image, within what can be read."""
    size = min(max(_SMALLEST_FONT, image_height // _FONTS_PER_HEIGHT), _LARGEST_FONT)
    step = round(size * _ROW_HEIGHT)
    rows = _fit(rows, max(_MIN_ROWS, (image_height - size) // step))
    font = ImageFont.load_default(size)
    percents = [_percent(share) for _, share, _ in rows]
    name_width = math.ceil(max((font.getlength(name) for name, _, _ in rows), default=0))
    percent_width = math.ceil(max((font.getlength(text) for text in percents), default=0))
    name_x = round(size * 2.2)
    right = name_x + name_width + size + percent_width
    panel = Image.new("RGB", (right + size, len(rows) * step + size), "white")
    draw = ImageDraw.Draw(panel)
    for index, ((name, _, color), percent) in enumerate(zip(rows, percents, strict=True)):
        y = size // 2 + index * step
        middle = y + step / 2
        draw.rectangle((size * 0.8, middle - size / 2, size * 1.8, middle + size / 2), fill=color)
        draw.text((name_x, middle), name, "black", font, anchor="lm")
        draw.text((right, middle), percent, "black", font, anchor="rm")
    return panel


def _fit(rows: list[Share], limit: int) -> list[Share]:
    """Keep the first rows; what does not fit becomes one row."""
    if len(rows) <= limit:
        return rows
    rest = rows[limit - 1 :]
    others = (f"{len(rest)} others", sum(share for _, share, _ in rest), (255, 255, 255))
    return [*rows[: limit - 1], others]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"
