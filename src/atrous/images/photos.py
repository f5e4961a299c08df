"""Photos and label maps, from files to arrays and back.

A photo is always uint8 (H, W, 3) in sRGB, turned upright by its EXIF orientation. A label map is
always (H, W) and keeps the integers of its file: palette indices stay indices, nothing is scaled.
A mask that is painted in colours is read as 24-bit codes, R + 256 G + 65536 B.

A file that does not lie on disk by itself, but in a shard, is given as `data`, its content; its
path then only names it in messages.

What a photo loses on the way in: transparency (it is laid over white), the lower half of 16 bits,
all frames but the first, and an embedded colour profile (the values are taken as sRGB). The size is
read from the header and checked before anything is decoded, so a file that promises a billion
pixels costs nothing.
"""

import ctypes
import importlib.util
import io
import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from atrous.errors import InputError
from atrous.files import no_such_file, replacing
from atrous.taxonomy import Taxonomy

HEIF_SUFFIXES = (".heic", ".heif", ".hif")

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".png", ".apng", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".qoi"),
    *HEIF_SUFFIXES,
)
"""What a folder is searched for, in lower case."""

UNREAD_SUFFIXES = (
    *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"),
    *(".jxl", ".psd", ".exr", ".hdr", ".svg", ".eps", ".jxr", ".dcm"),
    *(".vrt", ".img", ".ecw", ".sid", ".ntf", ".nitf"),
)
"""Pictures of formats that a folder's are not read of, in lower case: camera raw and others."""

HEIF_INSTALL = 'pip install "atrous[heif]"'

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded."""

TRANSPARENT = 1 << 24
"""Stands among 24-bit codes for a pixel without colour."""

_GDAL_NODATA = 42113  # a tag of TIFFs
# Pillow also knows formats that start other programs (EPS) or hold no photos: they stay closed.
_FORMATS = (
    *("JPEG", "JPEG2000", "PNG", "GIF", "BMP", "PPM"),
    *("WEBP", "TIFF", "AVIF", "ICO", "QOI"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_COLOR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
# Warning filters belong to the whole process: only one thread at a time may exchange them.
_HEADER_LOCK = threading.Lock()
# Without a handler of its own, what Pillow logs of damaged files would go to standard error.
_SILENT = logging.NullHandler()


def read_image(
    path: Path | str, data: bytes | None = None, *, transparency: bool = True
) -> NDArray[np.uint8]:
    """Read a photo as uint8 (H, W, 3), sRGB, 0 to 255, upright.

    Without `transparency` the fourth band of a TIFF, or the second of a grey one, is left out.

    Raises:
        InputError: the file is missing, no image, damaged, too large, or has no sRGB form.
    """
    path = Path(path)
    image = _decode(path, data)
    if not transparency and image.mode in ("RGBA", "LA"):
        image = image.convert(image.mode[:-1])
    return photo_array(image, str(path))


def read_transparency(path: Path | str, data: bytes | None = None) -> NDArray[np.uint8] | None:
    """Read the band of a TIFF that is declared as transparency, (H, W); None where none is.

    Raises:
        InputError: the file is missing, no image, damaged, or too large.
    """
    with _opened(Path(path), data) as image:
        if image.format != "TIFF" or image.mode not in ("RGBA", "LA"):
            return None
        image.load()
        return np.asarray(image.getchannel("A"))


def image_size(path: Path | str, data: bytes | None = None) -> tuple[int, int]:
    """Return (H, W) of a photo as `read_image` would give it; only the header is read.

    Raises:
        InputError: the file is missing, no image, or too large.
    """
    with _opened(Path(path), data) as image:
        width, height = image.size
        turned = image.format != "TIFF" and _orientation(image) in _TURNED  # Pillow turns TIFFs
    return (width, height) if turned else (height, width)


def photo_array(image: Image.Image, name: str = "image") -> NDArray[np.uint8]:
    """Turn a Pillow image of any mode into uint8 (H, W, 3), as `read_image` does for a file.

    Raises:
        InputError: `image` has no sRGB form; the message calls it `name`.
    """
    image = _upright(image)
    if image.mode.startswith(
        "I"
    ):  # I;16 in its byte orders, and I, as Pillow opens some 16-bit files
        grey = np.clip(np.asarray(image), 0, 65535).astype(np.uint16) // 257  # (H, W)
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)  # (H, W, 3)
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        if image.mode == "F":
            raise ValueError
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except ValueError:
        raise InputError(
            f"{name}: pixels of kind {image.mode} have no sRGB form; save it as 8-bit PNG or JPEG"
        ) from None


def shown(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image (H, W, C) as it is shown: its first three channels, or the first, in grey."""
    if image.shape[2] == 3:
        return image
    return np.ascontiguousarray(image[..., [0, 1, 2] if image.shape[2] > 3 else [0, 0, 0]])


def resized(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    way: Image.Resampling = Image.Resampling.BILINEAR,
) -> NDArray[np.uint8]:
    """Resize (H, W, C) to `size`, (H', W'); a smaller pixel is the mean of what it covers."""
    if image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize(size[::-1], way))
    planes = (np.ascontiguousarray(plane) for plane in image.transpose(2, 0, 1))
    return np.stack([np.asarray(Image.fromarray(p).resize(size[::-1], way)) for p in planes], 2)


def read_label(path: Path | str, data: bytes | None = None) -> NDArray[np.integer[Any]]:
    """Read a label map as integers (H, W), with the very ids that the file holds.

    A value below 0, infinite or NaN, and one from 65536 on that a GeoTIFF declares as no data, is
    read as -1: no data.

    Raises:
        InputError: the file is missing, no image, damaged, too large, holds colours or fractions,
            or counts from white.
    """
    path = Path(path)
    with _opened(path, data) as image:
        largest = _largest_grey(image, path)
        no_data = _declared_nodata(image)
        image.load()
    if image.mode in ("L", "P", "I", "F"):
        ids = np.array(image)
        if image.mode in ("I", "F"):
            ids = _whole(ids, no_data, path)
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
    """The value that a GeoTIFF declares as no data; only the header is read.

    Raises:
        InputError: the file is missing, no image, or too large.
    """
    with _opened(Path(path), None) as image:
        return _declared_nodata(image)


def has_palette(path: Path | str, data: bytes | None = None) -> bool:
    """Whether a label map's values are indices into a palette; only the header is read.

    Raises:
        InputError: the file is missing, no image, or too large.
    """
    with _opened(Path(path), data) as image:
        return image.mode == "P"


def read_colors(
    path: Path | str, data: bytes | None = None, *, transparency: bool = False
) -> NDArray[np.int32]:
    """Read a colour-coded label map as 24-bit codes (H, W), R + 256 G + 65536 B.

    A palette counts by its colours, grey v as (v, v, v).

    Args:
        path: the file.
        data: its content, if it does not lie on disk by itself.
        transparency: whether transparent pixels are read as the code `TRANSPARENT`; else their
            colours count.

    Raises:
        InputError: the file is missing, no image, damaged, too large, has no 8-bit colours, or
            several levels of transparency stand for classes.
    """
    path = Path(path)
    image = _decode(path, data)
    if image.mode not in _COLOR_MODES:
        raise InputError(
            f"{path}: pixels of kind {image.mode} where colours were expected; "
            'save it as 8-bit RGB PNG, or read its values by encoding = "index"'
        )
    pixels = np.asarray(image.convert("RGBA"))  # (H, W, 4)
    codes = (pixels.view("<u4")[:, :, 0] & 0xFFFFFF).astype(np.int32)  # (H, W)
    # Of RGB and grey, a colour that the file calls transparent is still told by its value.
    if transparency and image.mode not in ("1", "L", "RGB", "RGBX"):
        codes[_is_transparent(pixels[:, :, 3], codes, path)] = TRANSPARENT
    return codes


def _is_transparent(
    alpha: NDArray[np.uint8], codes: NDArray[np.int32], path: Path
) -> NDArray[np.bool_]:
    """Where a mask shows what lies beneath it: less than half as opaque as its most opaque pixel.

    All (H, W). A mask that is transparent throughout, but has several colours, counts by these.

    Raises:
        InputError: there is one colour, in several levels of transparency that cover regions.
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
            f"{path}: one colour in {len(levels)} levels of transparency, which cannot be told "
            "from shades of one class; save its classes as grey values or colours"
        )
    return np.asarray(2 * alpha.astype(np.int16) < top)


def read_brightness(path: Path | str) -> NDArray[np.integer[Any]]:
    """Read how bright a binary mask is drawn, (H, W): the largest of red, green and blue.

    A palette counts by its colours, transparent pixels as 0. Where all pixels have one colour and
    only their opacity differs, that is the mask. Grey of more than 8 bits is read as it is.

    Raises:
        InputError: the file is missing, no image, damaged or too large.
    """
    path = Path(path)
    image = _decode(path, None)
    if image.mode not in _COLOR_MODES:
        return read_label(path)
    pixels = np.asarray(image.convert("RGBA"))  # (H, W, 4)
    values, alpha = pixels[..., :3].max(2), pixels[..., 3]
    if alpha.min(initial=255) < alpha.max(initial=0) and not np.ptp(pixels[..., :3], (0, 1)).any():
        return alpha
    return np.where(alpha > 0, values, 0)


def write_image(path: Path | str, image: NDArray[np.uint8]) -> None:
    """Write uint8 (H, W, 3) in the format that the suffix of `path` names.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(encoded(Image.fromarray(image), temporary))


def encoded(image: Image.Image, path: Path) -> bytes:
    """Return what a file of this name would hold of `image`; JPEG in quality 90.

    Pillow itself does not notice if a disk is full before the last bytes of a JPEG.
    """
    content = io.BytesIO()
    content.name = str(path)  # Pillow takes the format from it
    image.save(content, quality=90)
    return content.getvalue()


def write_label(
    path: Path | str,
    labels: NDArray[np.integer[Any]],
    taxonomy: Taxonomy,
    *,
    flush: bool = True,
) -> None:
    """Write train ids (H, W), 0 to 255, as a PNG: the ids are its values, the colours its palette.

    `flush`: as of `atrous.files.replacing`.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    assert labels.ndim == 2 and (labels.size == 0 or 0 <= labels.min() <= labels.max() <= 255)
    png = _palette_png(labels, taxonomy.palette())
    with replacing(path, flush=flush) as temporary:
        temporary.write_bytes(png)


def _palette_png(labels: NDArray[np.integer[Any]], palette: NDArray[np.uint8]) -> bytes:
    """Return a PNG of `labels` (H, W) as indices into `palette` (256, 3); see the W3C's PNG.

    Pillow takes half as long again.
    """
    height, width = labels.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # each begins with its filter: 0, none
    rows[:, 1:] = labels
    # Run lengths suit label maps: half the time of level 4, and smaller.
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),  # 8 bits, with palette
        b"PLTE": palette.tobytes(),
        b"IDAT": deflate.compress(rows.data) + deflate.flush(),
        b"IEND": b"",
    }
    png = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks.items():
        check = zlib.crc32(data, zlib.crc32(kind))
        png += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", check)]
    return b"".join(png)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore the warnings of libraries about files; one thread at a time, so only to open one."""
    with _HEADER_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_heif(path: Path) -> bool:
    """Whether the file is a HEIC or other HEIF photo, by its first bytes."""
    with path.open("rb") as file:
        return _is_heif(file.read(64))


def can_read_heif() -> bool:
    """Whether the extra "heif" is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def has_frames(path: Path) -> bool:
    """Whether a file holds more pictures than the first, which is the one that is read.

    Only GIF, PNG, WebP, AVIF and TIFF: other formats' further frames are previews. So are a TIFF's
    of another size.
    """
    try:
        with path.open("rb") as file, open_header(file, path) as image:
            size = image.size
            if image.format not in ("GIF", "PNG", "WEBP", "AVIF", "TIFF"):
                return False
            if not getattr(image, "is_animated", False):
                return False
            image.seek(1)
            return image.size == size
    except Exception:  # Pillow's decoders raise a dozen kinds on damaged files
        return False


def largest_of_16_bits(path: Path) -> int | None:
    """The largest value of a photo of 16 bits; None of any other file.

    Of colours Pillow has the upper 8 bits, and so this may be up to 255 more. Cameras of 12 bits
    store up to 4095, which is nearly black where 65535 is white.
    """
    try:
        with path.open("rb") as file, open_header(file, path) as image:
            if image.mode.startswith("I;16"):
                return int(np.asarray(image).max())
            if not _raw_mode(image)[0].endswith(";16B"):
                return None
            upper = int(np.asarray(image.convert("RGB")).max())
            return upper and upper * 256 + 255
    except Exception:  # Pillow's decoders raise a dozen kinds on damaged files
        return None


def _decode(path: Path, data: bytes | None) -> Image.Image:
    with _opened(path, data) as image:
        promised = image.size
        image.load()
        if image.size != promised:
            raise ValueError("of another size than it says")
        return image


@contextmanager
def _opened(path: Path, data: bytes | None) -> Iterator[Image.Image]:
    """Yield the image, its size checked; what fails here or in the block becomes one line."""
    try:
        if data is None:
            _check_is_file(path)
        elif not data:
            raise InputError(f"{path}: the file is empty; copy or download it again")
        with (
            path.open("rb") if data is None else io.BytesIO(data) as file,
            open_header(file, path) as image,
        ):
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if image.format == "TIFF":
                _silence_libtiff()
            yield image
            return
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:
        problem = "not an image; give a JPEG, PNG, WebP, TIFF or the like"
    except Image.DecompressionBombError:
        problem = f"over {MAX_PIXELS // 10**6} million pixels; scale it down or cut it up"
    except Exception as error:  # Pillow's decoders raise a dozen kinds on damaged files
        if isinstance(error, OSError) and error.errno:
            problem = f"cannot be read ({error.strerror}); check its permissions and its disk"
        else:
            problem = f"damaged or cut short ({_one_line(error)}); copy or download it again"
    raise InputError(f"{path}: {problem}")


def open_header(file: BinaryIO, path: Path) -> Image.Image:
    """Open without decoding, and without Pillow's warning on large sizes: our limit counts.

    From a path, Pillow would map some TIFFs into memory, and scramble those that EXIF turns.
    """
    logging.getLogger("PIL").addHandler(_SILENT)
    with without_warnings():
        start = file.read(64)
        file.seek(0)
        if not _is_heif(start):
            unsigned = ("TGA",) if path.suffix.lower() == ".tga" else ()  # any bytes may look so
            return Image.open(file, formats=(*_FORMATS, *unsigned))
        if not can_read_heif():
            raise InputError(f"{path}: a HEIC photo; install what reads it: {HEIF_INSTALL}")
        from pillow_heif import HeifImageFile  # which the core install does not have

        return cast(Image.Image, HeifImageFile(file))  # type: ignore[no-untyped-call]


def _is_heif(start: bytes) -> bool:
    """Whether a file that begins so is a HEIF; AVIFs look alike, and Pillow reads them."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and b"avif" not in start


@cache
def _silence_libtiff() -> None:
    """Keep the lines of Pillow's libtiff off standard error: Pillow raises what they tell."""
    home = Path(PIL.__file__).parent
    for library in (*home.parent.glob("pillow.libs/libtiff*"), *home.glob(".dylibs/libtiff*")):
        ctypes.CDLL(str(library)).TIFFSetErrorHandler(None)


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give an image file")
    if not path.exists():
        raise no_such_file(path)
    if not path.is_file():
        raise InputError(f"{path}: is no ordinary file; write it to one first")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; copy or download it again")


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a photo whose EXIF cannot be read stays as it is."""
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata must not cost the photo
        return image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, from the header alone; 1 where it cannot be read."""
    try:
        # A PNG's own getexif would decode the pixels, in case EXIF stands behind them.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata must not cost the photo
        return 1


def _largest_grey(image: Image.Image, path: Path) -> int | None:
    """The value of a grey file that Pillow stretches to white; None where it stretches nothing.

    Raises:
        InputError: 0 is white in the file, and Pillow turns its values round.
    """
    raw_mode, *more = _raw_mode(image)
    if re.fullmatch("[1L];[24]?IR?", raw_mode):
        raise InputError(f"{path}: its 0 is white; save it as a PNG whose 0 is black")
    if image.format == "PPM" and more:
        return int(more[0])
    return {"L;2": 3, "L;4": 15}.get(raw_mode[:3])


def _raw_mode(image: Image.Image) -> tuple[str, *tuple[Any, ...]]:
    """How the pixels lie in the file, as Pillow names it, and what else its decoder is told."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    args = tiles[0].args if tiles else ""
    raw_mode, *more = args if isinstance(args, tuple) else (args,)
    return str(raw_mode), *more


def _declared_nodata(image: Image.Image) -> float | None:
    """What GDAL's tag says; None where there is none, or no number."""
    try:
        return float(getattr(image, "tag_v2", {})[_GDAL_NODATA])
    except (KeyError, TypeError, ValueError):
        return None


def _whole(
    values: NDArray[np.int32] | NDArray[np.float32], no_data: float | None, path: Path
) -> NDArray[np.int32]:
    """Return values (H, W) as integers; what says no data and cannot be an id, as -1.

    Raises:
        InputError: a value is a fraction, or too large.
    """
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
