"""Label maps and masks, from files to arrays and back.

A label map is (H, W) and keeps the integers of its file: palette indices stay indices, nothing is
scaled. A mask that is painted in colours is read as 24-bit codes, R + 256 G + 65536 B.

A file in a shard is given as `data`, its content; its path then only names it in messages.
"""

import io
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.errors import InputError
from atrous.files import replacing
from atrous.images.photos import decoded, opened, raw_mode
from atrous.taxonomy import Taxonomy

TRANSPARENT = 1 << 24
"""The code of a pixel without colour."""

_GDAL_NODATA = 42113  # a tag of TIFFs
_COLOR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")


def read_label(path: Path | str, data: bytes | None = None) -> NDArray[np.integer[Any]]:
    """Read a label map as integers (H, W), with the ids that the file holds.

    No data is read as -1: a value below 0, infinite or NaN, and one from 65536 on that a GeoTIFF
    declares as no data.
    """
    path = Path(path)
    with opened(path, data) as image:
        largest = _largest_grey(image, path)
        no_data = _declared_nodata(image)
        image.load()
    if image.mode in ("L", "P", "I", "F"):
        ids = np.array(image)
        if image.mode in ("I", "F"):
            ids = _as_integers(ids, no_data, path)
        if largest is None:
            return ids
        return np.rint(ids * (largest / (255 if image.mode == "L" else 65535))).astype(ids.dtype)
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)  # to the byte order of this machine
    raise InputError(
        f"{path}: {image.mode} colours where class indices were expected; save it as a grey or "
        'palette PNG whose values are the class numbers, or read it by encoding = "rgb"'
    )


def declared_nodata(path: Path | str) -> float | None:
    """Return the value that a GeoTIFF declares as no data, from the header alone."""
    with opened(Path(path)) as image:
        return _declared_nodata(image)


def has_palette(path: Path | str, data: bytes | None = None) -> bool:
    """Return whether a label map holds indices into a palette, from the header alone."""
    with opened(Path(path), data) as image:
        return image.mode == "P"


def read_colors(
    path: Path | str, data: bytes | None = None, *, transparency: bool = False
) -> NDArray[np.int32]:
    """Read a colour-coded label map as 24-bit codes (H, W), R + 256 G + 65536 B.

    A palette counts by its colours, grey v as (v, v, v). With `transparency`, transparent pixels
    get the code `TRANSPARENT`; else their colours count.
    """
    path = Path(path)
    image = decoded(path, data)
    if image.mode not in _COLOR_MODES:
        raise InputError(
            f"{path}: pixels of kind {image.mode} where colours were expected; "
            'save it as 8-bit RGB PNG, or read its values by encoding = "index"'
        )
    pixels = np.asarray(image.convert("RGBA"))  # (H, W, 4)
    codes = (pixels.view("<u4")[:, :, 0] & 0xFFFFFF).astype(np.int32)  # (H, W)
    # In RGB and grey files, a colour that the file declares as transparent keeps its value.
    if transparency and image.mode not in ("1", "L", "RGB", "RGBX"):
        codes[_is_transparent(pixels[:, :, 3], codes, path)] = TRANSPARENT
    return codes


def read_brightness(path: Path | str) -> NDArray[np.integer[Any]]:
    """Read how bright a binary mask is drawn, (H, W): the largest of red, green and blue.

    A palette counts by its colours, transparent pixels as 0. Where all pixels have one colour and
    only their opacity differs, the opacity is the mask. Grey of more than 8 bits is read as it is.
    """
    image = decoded(Path(path))
    if image.mode not in _COLOR_MODES:
        return read_label(path)
    pixels = np.asarray(image.convert("RGBA"))  # (H, W, 4)
    values, alpha = pixels[..., :3].max(2), pixels[..., 3]
    if alpha.min(initial=255) < alpha.max(initial=0) and not np.ptp(pixels[..., :3], (0, 1)).any():
        return alpha
    return np.where(alpha > 0, values, 0)


def write_label(
    path: Path | str, labels: NDArray[np.integer[Any]], taxonomy: Taxonomy, *, flush: bool = True
) -> None:
    """Write train ids (H, W), 0 to 255, as a PNG: the ids are its values, the colours its palette.

    `flush` is that of `atrous.files.replacing`.
    """
    assert labels.ndim == 2 and (labels.size == 0 or 0 <= labels.min() <= labels.max() <= 255)
    image = Image.fromarray(np.ascontiguousarray(labels, np.uint8))
    image.putpalette(taxonomy.palette().tobytes())
    content = io.BytesIO()
    # Run lengths suit label maps: half the time of level 4, and smaller.
    image.save(content, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    with replacing(path, flush=flush) as temporary:
        temporary.write_bytes(content.getbuffer())


def _is_transparent(
    alpha: NDArray[np.uint8], codes: NDArray[np.int32], path: Path
) -> NDArray[np.bool_]:
    """Return where a mask is less than half as opaque as its most opaque pixel; all (H, W).

    A mask that is transparent throughout, but has several colours, counts by its colours. One
    colour in several levels of transparency that cover regions is refused.
    """
    top = int(alpha.max())
    if top == 0:
        return np.full(alpha.shape, bool((codes == codes[0, 0]).all()))
    inner = alpha[1:-1, 1:-1]
    solid = (inner == alpha[:-2, 1:-1]) & (inner == alpha[2:, 1:-1])
    solid &= (inner == alpha[1:-1, :-2]) & (inner == alpha[1:-1, 2:])
    counts = np.bincount(alpha.ravel(), minlength=256)
    levels = np.flatnonzero(4 * np.bincount(inner[solid], minlength=256) > counts)
    drawn = codes[alpha > 0]
    if len(levels) > 2 and (drawn == drawn[0]).all():
        raise InputError(
            f"{path}: one colour in {len(levels)} levels of transparency, which look like "
            "shades of one class; save its classes as grey values or colours"
        )
    return np.asarray(2 * alpha.astype(np.int16) < top)


def _largest_grey(image: Image.Image, path: Path) -> int | None:
    """Return the value of a grey file that Pillow stretches to white; None if it stretches nothing.

    A file whose 0 is white is refused: Pillow inverts its values.
    """
    mode, *more = raw_mode(image)
    if re.fullmatch("[1L];[24]?IR?", mode):
        raise InputError(f"{path}: its 0 is white; save it as a PNG whose 0 is black")
    if image.format == "PPM" and more:
        return int(more[0])
    return {"L;2": 3, "L;4": 15}.get(mode[:3])


def _declared_nodata(image: Image.Image) -> float | None:
    """Return the number in GDAL's tag, if there is one."""
    try:
        return float(getattr(image, "tag_v2", {})[_GDAL_NODATA])
    except (KeyError, TypeError, ValueError):
        return None


def _as_integers(
    values: NDArray[np.int32] | NDArray[np.float32], no_data: float | None, path: Path
) -> NDArray[np.int32]:
    """Return values (H, W) as integers, -1 where they mean no data and cannot be ids."""
    beyond = ~((values >= 0) & (values < 1 << 16))  # NaN too
    if beyond.any():
        empty = ~(values >= 0) | np.isinf(values)
        if no_data is not None:
            empty |= beyond & np.isclose(values, no_data, rtol=1e-6)
        values = np.where(empty, np.float64(-1), values)
    odd = values[(values != np.rint(values)) | (values >= 1 << 31)]
    if odd.size:
        raise InputError(
            f"{path}: holds {odd[0]:g} where class indices were expected; save them as integers"
        )
    return values.astype(np.int32)
