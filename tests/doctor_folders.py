"""Folders of labelled images as strangers have them, written small."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

PALETTE = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)], np.uint8)
SIZE = (40, 56)


def photo(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Noise, (H, W, 3) uint8, of its own for each number."""
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


def mask(number: int, ids: Iterable[int] = range(5), size: tuple[int, int] = SIZE) -> np.ndarray:
    """Ellipses and boxes of all `ids` on the first of them, (H, W) uint8."""
    ids = list(ids)
    rng = np.random.default_rng(1000 + number)
    picture = Image.new("L", size[::-1], ids[0])
    pen = ImageDraw.Draw(picture)
    for place, i in enumerate(ids[1:]):
        x, y = 4 + 12 * place + int(rng.integers(0, 5)), int(rng.integers(2, 20))
        draw = pen.ellipse if rng.integers(0, 2) else pen.rectangle
        draw((x, y, x + 9, y + int(rng.integers(9, 18))), fill=i)
    return np.array(picture)


def save(path: Path, array: np.ndarray, palette: np.ndarray | None = None, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if palette is not None:
        picture.putpalette(palette.tobytes())
    picture.save(path, **options)


def write_images(folder: Path, count: int, start: int = 0, suffix: str = "png") -> None:
    """Photos as images/000.png and so on."""
    for number in range(start, start + count):
        save(folder / f"images/{number:03}.{suffix}", photo(number))


def write_index(folder: Path, count: int = 10) -> Path:
    """A healthy folder: images/ and masks/ of grey ids 0 to 4."""
    write_images(folder, count)
    for number in range(count):
        save(folder / f"masks/{number:03}.png", mask(number))
    return folder


def write_rgb(folder: Path, count: int = 10) -> Path:
    """A healthy folder whose masks are colours."""
    write_images(folder, count)
    for number in range(count):
        save(folder / f"masks/{number:03}.png", PALETTE[mask(number)])
    return folder


def resized(array: np.ndarray, method: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    """Made smaller and then of its old size again, as careless tools do it."""
    small = Image.fromarray(array).resize(
        (array.shape[1] * 2 // 3, array.shape[0] * 2 // 3), method
    )
    return np.array(small.resize(array.shape[1::-1], method))
