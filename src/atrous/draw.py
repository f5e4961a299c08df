"""Label maps for the eye: colours, and overlays with a legend."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atrous.kernels.blend import blend
from atrous.taxonomy import IGNORE_INDEX, Taxonomy

_SMALLEST_FONT, _LARGEST_FONT = 12, 96
_FONTS_PER_HEIGHT = 24
_ROW_HEIGHT = 1.5
"""Of the legend, in font sizes."""
_MIN_ROWS = 12
"""The legend shows at least so many classes, even where it becomes taller than the image."""

Share = tuple[str, float, tuple[int, int, int]]
"""Name, fraction of the area (NaN: not to be shown), colour: one row of the legend."""


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
    panel = legend(shares(labels, taxonomy), len(labels))
    return Image.fromarray(mix(image, labels, taxonomy, panel, opacity))


def mix(
    image: NDArray[np.uint8],  # (H, W, 3)
    labels: NDArray[np.integer[Any]],  # (H, W)
    taxonomy: Taxonomy,
    panel: Image.Image,
    opacity: float = 0.5,
) -> NDArray[np.uint8]:
    """Return the photo under its labels' colours with `panel` to its right, on white (h, w, 3)."""
    height, width = labels.shape
    assert image.shape == (height, width, 3)
    canvas = np.full((max(height, panel.height), width + panel.width, 3), 255, np.uint8)
    canvas[: panel.height, width:] = panel
    share = round(256 * opacity)
    weights = np.full(256, 256 - share, np.uint16)
    colors = taxonomy.palette().astype(np.uint16) * share + 128  # half of a step, to round
    weights[IGNORE_INDEX], colors[IGNORE_INDEX] = 256, 0
    blend(image, labels, weights, colors, canvas)
    return canvas


def shares(labels: NDArray[np.integer[Any]], taxonomy: Taxonomy) -> list[Share]:
    """Return the classes that occur in `labels` (H, W), largest first, with their shares.

    A share is of the pixels that have a class.
    """
    # Pillow's histogram takes half of the time of bincount, which widens its input to 64 bits.
    counts = Image.fromarray(np.ascontiguousarray(labels, np.uint8)).histogram()
    order = sorted(range(taxonomy.num_classes), key=lambda i: -counts[i])
    total = sum(counts[: taxonomy.num_classes])
    return [
        (taxonomy.classes[i], counts[i] / total, taxonomy.colors[i]) for i in order if counts[i]
    ]


def legend(rows: list[Share], image_height: int) -> Image.Image:
    """Draw a panel as tall as its rows; the font grows with the image, within what can be read."""
    size = min(max(_SMALLEST_FONT, image_height // _FONTS_PER_HEIGHT), _LARGEST_FONT)
    step = round(size * _ROW_HEIGHT)
    rows = _fit(rows, max(_MIN_ROWS, (image_height - size) // step))
    names = [_text(name, size, step) for name, _, _ in rows]
    percents = [[_text(part, size, step) for part in _percent(share)] for _, share, _ in rows]
    name_x = round(size * 2.2)
    right = name_x + max((name.width for name in names), default=0) + size
    right += max((sum(part.width for part in percent) for percent in percents), default=0)
    panel = Image.new("RGB", (right + size, len(rows) * step + size), "white")
    draw = ImageDraw.Draw(panel)
    for index, (name, percent, (*_, color)) in enumerate(zip(names, percents, rows, strict=True)):
        y = size // 2 + index * step
        middle = y + step / 2
        draw.rectangle((size * 0.8, middle - size / 2, size * 1.8, middle + size / 2), fill=color)
        panel.paste("black", (name_x, y), name)
        x = right - sum(part.width for part in percent)
        for part in percent:
            panel.paste("black", (x, y), part)
            x += part.width
    return panel


def _fit(rows: list[Share], limit: int) -> list[Share]:
    """Keep the first rows; what does not fit becomes one row."""
    if len(rows) <= limit:
        return rows
    rest = rows[limit - 1 :]
    others = (f"{len(rest)} others", sum(share for _, share, _ in rest), (255, 255, 255))
    return [*rows[: limit - 1], others]


@lru_cache(256)  # drawing text is a tenth of a small photo's time, and names come again
def _text(text: str, size: int, height: int) -> Image.Image:
    """Draw one line, halfway up, as a mask; `size` of the font and `height` in pixels."""
    font = ImageFont.load_default(size)
    mask = Image.new("L", (math.ceil(font.getlength(text)), height))
    ImageDraw.Draw(mask).text((0, height / 2), text, "white", font, anchor="lm")
    return mask


def _percent(share: float) -> tuple[str, str]:
    """Return "12" and ".3 %": parts of which there are few, so that drawings of them are kept."""
    if math.isnan(share):
        return "", ""
    before, after = f"{100 * share:.1f}".split(".") if share >= 0.001 else ("< 0", "1")
    return before, f".{after} %"
