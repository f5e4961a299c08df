"""Images as input of a network: photos, and the bands of TIFFs and other rasters.

This is the one reader for `segment`, training and evaluation, so that a file gives the same pixels
to all. Pillow reads photos (`atrous.images.photos`); rasterio reads GDAL's formats
(`atrous.images.rasters`). A TIFF is a photo if it has no coordinates and no mask, one grey or three
colours of unsigned integers in their usual order, and perhaps transparency.

Pixels without data, and so without a label, are those of a file's own nodata value or mask, NaN in
a band that is used, and transparency of 0 in a TIFF. A TIFF's fourth band is transparency only if
it is 0 or 255 in all files of a set: GDAL declares any fourth band of 8 bits as transparency, even
an infrared one.
"""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from atrous.errors import InputError
from atrous.images.bands import Bands
from atrous.images.photos import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    decoded,
    first_bytes,
    has_declared_alpha,
    image_size,
    open_header,
    photo_array,
    read_transparency,
    without_warnings,
)
from atrous.images.rasters import (
    JPEG_2000,
    TIFF_SIGNATURES,
    RasterRows,
    alpha_band,
    has_rasterio,
    opened_raster,
    read_rows,
)

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_BANDS, _EXTRA, _FORMAT = 277, 338, 339
_PHOTO_BITS = {1, 2, 4, 8, 16}
_WEBP = 50001
_NODATA = 42113
_GDAL_METADATA = 42112
_SUBFILE, _IS_MASK = 254, 4
_MOST_DIRECTORIES = 16
_GEO_TAGS = (33550, 33922, 34264, 34735, _NODATA)
"""TIFF tags: pixel scale, tie points, transformation, keys; GDAL's nodata value."""
_COLORS = (2, 6, 8)
"""Photometric interpretations of three bands: RGB, YCbCr, CIELAB."""
_CMYK = 5
_TIFF_SUFFIXES = (".tif", ".tiff")
_STRIP = 512
"""Rows of a single band that are read at a time."""


def read_pixels(
    path: Path | str, bands: Bands, data: bytes | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Read an image (H, W, C), and where it has data (H, W); None: everywhere.

    Args:
        path: the file; it only names it in messages if `data` is given.
        bands: the bands to read.
        data: the content of a file in a shard.
    """
    path = Path(path)
    start = first_bytes(path, data)
    # Pillow cannot decode the JPEG 2000 that GDAL writes.
    by_gdal = start.startswith(JPEG_2000) and has_rasterio()
    if start.startswith(TIFF_SIGNATURES):
        by_gdal = is_raster(path, data)
    if not bands.are_given and not by_gdal:
        return _read_photo(path, bands, data)
    with opened_raster(path, data) as source:
        if source.width * source.height > MAX_PIXELS:
            raise InputError(f"{path}: over {MAX_PIXELS // 10**6} million pixels; cut it up")
        return RasterRows(source, path, bands).read(0, source.height)


def _read_photo(
    path: Path, bands: Bands, data: bytes | None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    image, has_data = decoded(path, data), None
    if has_declared_alpha(image):
        if bands.alpha:
            has_data = np.asarray(image.getchannel("A")) > 0
        else:
            image = image.convert(image.mode[:-1])
    return photo_array(image, str(path)), has_data


def where_data(path: Path, bands: Bands, data: bytes | None = None) -> NDArray[np.bool_] | None:
    """Return where an image has data, as `read_pixels` does, without decoding photos."""
    if bands.are_given or first_bytes(path, data).startswith(TIFF_SIGNATURES):
        return read_pixels(path, bands, data)[1]
    return None


def pixel_size(path: Path) -> tuple[int, int]:
    """Return (H, W) of an image as `read_pixels` gives it, from the header alone."""
    if not is_raster(path):
        return image_size(path)
    with opened_raster(path) as source:
        return source.height, source.width


def is_raster(path: Path, data: bytes | None = None) -> bool:
    """Return whether `path` is no photo: a TIFF of other bands, with coordinates, or very large.

    Only the header is read. A file that cannot be read is no raster; its reader reports why.
    Without rasterio, a TIFF whose bands are those of a photo is one, and has no coordinates.
    """
    if data is None and not path.is_file():  # reading a pipe might never end
        return False
    directories = []
    try:
        with path.open("rb") if data is None else io.BytesIO(data) as file:
            with without_warnings():
                directories = list(_directories(file))
            if directories and (
                not _is_photo(directories[0])
                or any(int(tags.get(_SUBFILE, 0)) & _IS_MASK for tags in directories)
                or (data is None and _has_sidecar(path))
            ):
                return True
            file.seek(0)
            with open_header(file, path) as image:
                return image.width * image.height > MAX_PIXELS
    except Image.DecompressionBombError:
        return True
    except UnidentifiedImageError:  # a TIFF in a compression that only GDAL may know
        return bool(directories) and _WIDTH in directories[0] and has_rasterio()
    except Exception:  # Pillow's readers raise a dozen kinds on damaged files
        return False


def fourth_is_alpha(paths: Iterable[Path]) -> tuple[bool, str]:
    """Decide for a set of files whether the fourth band of its TIFFs is transparency.

    It is if it holds only 0 and 255 in all of them, and 255 somewhere. Reading ends at the first
    other value.

    Returns:
        The decision, and a line with the reason, empty if no TIFF declares such a band.
    """
    band, count, seen = "fourth band of the TIFFs", 0, np.zeros(2, bool)  # 0, 255
    for path in paths:
        if not may_be_tiff(path.name):
            continue
        try:
            for strip in _declared_alpha(path):
                count += 1
                limit = np.iinfo(strip.dtype).max if strip.dtype.kind in "iu" else 1
                if ((strip != 0) & (strip != limit)).any():
                    return False, (
                        f"{band}: no transparency, because {path.name} holds more than 0 and 255 "
                        "there; it is left out unless it is named"
                    )
                seen |= (strip == 0).any(), (strip == limit).any()
        except InputError:
            continue  # its reader reports why
    if count and not seen[1]:
        return False, f"{band}: no transparency, because it is 0 in all of them"
    line = f"{band}: transparency, because it is 0 or 255 in all of them; 0: no data"
    return True, line if seen[0] else ""


def may_be_tiff(name: str) -> bool:
    """Return whether a file of this name may be a TIFF: by its suffix, or an unknown suffix."""
    suffix = PurePath(name).suffix.lower()
    return suffix in _TIFF_SUFFIXES or suffix not in IMAGE_SUFFIXES


def _declared_alpha(path: Path) -> Iterator[NDArray[Any]]:
    """Yield the band that a TIFF declares as transparency, some rows at a time, if there is one."""
    if not is_raster(path):
        if (alpha := read_transparency(path)) is not None:
            yield alpha
        return
    with opened_raster(path) as source:
        if band := alpha_band(source):
            for top in range(0, source.height, _STRIP):
                yield read_rows(source, path, band, top, min(top + _STRIP, source.height))


def _directories(file: BinaryIO) -> Iterator[TiffImagePlugin.ImageFileDirectory_v2]:
    """Yield the first directories of a TIFF or BigTIFF; none of any other file."""
    header = file.read(8)
    if header[:4] in TIFF_SIGNATURES[2:]:
        header += file.read(8)
    elif header[:4] not in TIFF_SIGNATURES:
        return
    following = TiffImagePlugin.ImageFileDirectory_v2(header).next
    for _ in range(_MOST_DIRECTORIES):
        if not following:
            return
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(following)
        tags.load(file)
        following = tags.next
        yield tags


def _has_sidecar(path: Path) -> bool:
    """Return whether GDAL keeps a TIFF's mask, nodata value or colours in a file beside it."""
    if path.with_name(path.name + ".msk").is_file():
        return True
    notes = path.with_name(path.name + ".aux.xml")
    declared = rb"<(NoDataValue|ColorTable|ColorInterp)\b"
    return notes.is_file() and re.search(declared, notes.read_bytes()) is not None


def _is_photo(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Return whether a TIFF is a photo; without rasterio, coordinates may be ignored."""
    if tags.get(_WIDTH, 0) * tags.get(_HEIGHT, 0) > MAX_PIXELS or not _has_photo_bands(tags):
        return False
    # Pillow reads 8 bits exactly, if there are data everywhere.
    is_plain = tags.get(_BANDS, 1) != 4 and set(tags.get(_BITS, ())) == {8} and _NODATA not in tags
    return not any(tag in tags for tag in _GEO_TAGS) or (is_plain and not has_rasterio())


def _has_photo_bands(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Return whether a TIFF's bands are a photo's: unsigned grey or colours, maybe transparency."""
    bands, photometric = tags.get(_BANDS, 1), tags.get(_PHOTOMETRIC)
    if "colorinterp" in str(tags.get(_GDAL_METADATA, "")):  # blue, green and red, perhaps
        return False
    if any(kind != 1 for kind in tags.get(_FORMAT, ())) or tags.get(_COMPRESSION) == _WEBP:
        return False
    if not _PHOTO_BITS.issuperset(tags.get(_BITS, ())):  # 12 bits would be nearly black
        return False
    if photometric in _COLORS or photometric == _CMYK:
        return bands in (3, 4)
    return bands == 1 or (bands == 2 and bool(tags.get(_EXTRA)) and tags[_EXTRA][0] != 0)
