"""Draw label maps: colours, and overlays with a legend."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from atrous.kernels.blend import blend
from atrous.taxonomy import IGNORE_INDEX, Taxonomy
from atrous.text import percent_share

_SMALLEST_FONT, _LARGEST_FONT = 12, 96
_FONTS_PER_HEIGHT = 24
_ROW_HEIGHT = 1.5
"""Height of a row of the legend in font sizes."""
_MIN_ROWS = 12
"""Classes that the legend always shows, even where it becomes taller than the image."""

Share = tuple[str, float, tuple[int, int, int]]
"""A row of the legend: name, fraction of the area (NaN: not shown), colour."""


def colorize(labels: NDArray[np.integer[Any]], taxonomy: Taxonomy) -> NDArray[np.uint8]:
    """Return the colour of each train id: (H, W) -> uint8 (H, W, 3); ignored pixels are black."""
    return taxonomy.palette().take(labels, axis=0)


def overlay(
    image: NDArray[np.uint8],  # (H, W, 3)
    labels: NDArray[np.integer[Any]],  # (H, W)
    taxonomy: Taxonomy,
    opacity: float = 0.5,
    shares: NDArray[np.float64] | None = None,  # (K,)
) -> Image.Image:
    """Lay the colours of train ids over an sRGB image, with a legend to its right.

    The image keeps its size, at the top left. Ignored pixels show the image alone. `opacity` of the
    colours is from 0 to 1; `shares` of the classes are counted unless given.
    """
    if shares is None:
        shares = fractions(class_counts(labels, taxonomy.num_classes))
    panel = legend(legend_rows(shares, taxonomy), len(labels))
    return Image.fromarray(mix(image, labels, taxonomy, panel, opacity))


def mix(
    image: NDArray[np.uint8],  # (H, W, 3)
    labels: NDArray[np.integer[Any]],  # (H, W)
    taxonomy: Taxonomy,
    panel: Image.Image,
    opacity: float = 0.5,
) -> NDArray[np.uint8]:
    """Return the image under its labels' colours with `panel` to its right, on white (h, w, 3)."""
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


def class_counts(labels: NDArray[np.integer[Any]], num_classes: int) -> NDArray[np.int64]:
    """Return how many pixels of `labels` (H, W) each class has, (K,)."""
    # Pillow's histogram takes half the time of bincount, which widens its input to 64 bits.
    counts = Image.fromarray(np.ascontiguousarray(labels, np.uint8)).histogram()
    return np.array(counts[:num_classes], np.int64)


def fractions(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return counts (K,) as fractions of their sum; zeros if that is zero."""
    return np.asarray(counts / max(1, counts.sum()))


def legend_rows(shares: NDArray[np.float64], taxonomy: Taxonomy) -> list[Share]:
    """Return the classes that have a share, (K,), largest first."""
    order = [i for i in np.argsort(-shares, kind="stable") if shares[i]]
    return [(taxonomy.classes[i], float(shares[i]), taxonomy.colors[i]) for i in order]


def legend(rows: list[Share], image_height: int) -> Image.Image:
    """Draw a panel as tall as its rows; the font grows with the image, within legible sizes."""
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
    """Keep the first rows; the rows that do not fit become one."""
    if len(rows) <= limit:
        return rows
    rest = rows[limit - 1 :]
    others = (f"{len(rest)} others", sum(share for _, share, _ in rest), (255, 255, 255))
    return [*rows[: limit - 1], others]


@lru_cache(256)  # drawing text is a tenth of a small photo's time
def _text(text: str, size: int, height: int) -> Image.Image:
    """Draw one line, vertically centred, as a mask; font `size` and `height` in pixels."""
    font = ImageFont.load_default(size)
    mask = Image.new("L", (math.ceil(font.getlength(text)), height))
    ImageDraw.Draw(mask).text((0, height / 2), text, "white", font, anchor="lm")
    return mask


def _percent(share: float) -> tuple[str, str]:
    """Return "12" and ".3 %": there are few of either, so their drawings are cached."""
    if math.isnan(share):
        return "", ""
    before, point, after = percent_share(share).partition(".")
    return before, point + after
