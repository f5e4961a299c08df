"""Photos, from files to arrays and back.

A photo is always uint8 (H, W, 3) in sRGB, turned upright by its EXIF orientation. A file in a shard
is given as `data`, its content; its path then only names it in messages.

Reading drops transparency (the photo is laid over white), the lower half of 16 bits, all frames but
the first, and an embedded colour profile (the values are taken as sRGB). The size is read from the
header and checked before anything is decoded, so a file that promises a billion pixels costs
nothing.
"""

import ctypes
import importlib.util
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from atrous.errors import InputError
from atrous.files import no_such_file, replacing
from atrous.text import one_line

HEIF_SUFFIXES = (".heic", ".heif", ".hif")

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".png", ".apng", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".qoi"),
    *HEIF_SUFFIXES,
)
"""Suffixes of the photos in a folder, in lower case."""

UNREAD_SUFFIXES = (
    *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"),
    *(".jxl", ".psd", ".exr", ".hdr", ".svg", ".eps", ".jxr", ".dcm"),
    *(".vrt", ".img", ".ecw", ".sid", ".ntf", ".nitf"),
)
"""Suffixes of pictures in formats that are not read, in lower case: camera raw and others."""

HEIF_INSTALL = 'pip install "atrous[heif]"'

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded."""

# Pillow also knows formats that start other programs (EPS) or hold no photos: they stay closed.
_FORMATS = (
    *("JPEG", "JPEG2000", "PNG", "GIF", "BMP", "PPM"),
    *("WEBP", "TIFF", "AVIF", "ICO", "QOI"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
# Warning filters belong to the whole process: only one thread at a time may change them.
_HEADER_LOCK = threading.Lock()
# Without a handler, Pillow logs damaged files to standard error.
_SILENT = logging.NullHandler()


def read_image(path: Path | str, data: bytes | None = None) -> NDArray[np.uint8]:
    """Read a photo as uint8 (H, W, 3), sRGB, 0 to 255, upright."""
    return photo_array(decoded(Path(path), data), str(path))


def read_transparency(path: Path | str) -> NDArray[np.uint8] | None:
    """Read the band of a TIFF that is declared as transparency, (H, W), if there is one."""
    with opened(Path(path)) as image:
        if not has_declared_alpha(image):
            return None
        image.load()
        return np.asarray(image.getchannel("A"))


def has_declared_alpha(image: Image.Image) -> bool:
    """Return whether an image from a TIFF declares a band as transparency."""
    return image.format == "TIFF" and image.mode in ("RGBA", "LA")


def image_size(path: Path | str, data: bytes | None = None) -> tuple[int, int]:
    """Return (H, W) of a photo as `read_image` gives it, from the header alone."""
    with opened(Path(path), data) as image:
        width, height = image.size
        turned = image.format != "TIFF" and _orientation(image) in _TURNED  # Pillow turns TIFFs
    return (width, height) if turned else (height, width)


def checked_array(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Refuse an array that is not uint8 (H, W, C) with at least one pixel."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels or image.size == 0:
        kind = "sRGB" if channels == 3 else "its bands"
        raise InputError(
            f"array: {image.dtype} {image.shape}, where uint8 (H, W, {channels}) was expected, "
            f"{kind} from 0 to 255; convert it first"
        )
    return image


def photo_array(image: Image.Image, name: str = "image") -> NDArray[np.uint8]:
    """Convert a Pillow image of any mode to uint8 (H, W, 3); errors call it `name`."""
    with suppress(Exception):  # damaged metadata must not cost the photo
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits: I;16 in its byte orders, and I for some files
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


def write_image(path: Path | str, image: NDArray[np.uint8]) -> None:
    """Write uint8 (H, W, 3) in the format that the suffix of `path` names."""
    with replacing(path) as temporary:
        temporary.write_bytes(encoded(Image.fromarray(image), temporary))


def encoded(image: Image.Image, path: Path) -> bytes:
    """Return `image` in the format that the suffix of `path` names; JPEG in quality 90.

    Written straight to a file, a JPEG's last bytes may be lost on a full disk without an error.
    """
    content = io.BytesIO()
    content.name = str(path)  # Pillow takes the format from it
    image.save(content, quality=90)
    return content.getvalue()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore warnings; one thread at a time, so use it only to open a file."""
    with _HEADER_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_bytes(path: Path, data: bytes | None = None) -> bytes:
    """Return the first 64 bytes of a file; none if it cannot be read, which its reader reports."""
    if data is not None:
        return data[:64]
    try:
        if not path.is_file():  # reading a pipe might never end
            return b""
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""


def is_heif(path: Path) -> bool:
    """Return whether the file is a HEIC or other HEIF photo, by its first bytes."""
    return _is_heif(first_bytes(path))


def can_read_heif() -> bool:
    """Return whether the extra "heif" is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def has_frames(path: Path) -> bool:
    """Return whether a file holds more pictures than the first, which is the one that is read.

    Other formats than GIF, PNG, WebP, AVIF and TIFF hold previews, and so do TIFF's frames of
    another size.
    """
    # Pillow's decoders raise a dozen kinds on damaged files.
    with suppress(Exception), path.open("rb") as file, open_header(file, path) as image:
        may_be_animated = image.format in ("GIF", "PNG", "WEBP", "AVIF", "TIFF")
        if may_be_animated and getattr(image, "is_animated", False):
            size = image.size
            image.seek(1)
            return image.size == size
    return False


def largest_of_16_bits(path: Path) -> int | None:
    """Return the largest value of a photo of 16 bits, None for any other file.

    Pillow keeps the upper 8 bits of colours, so for these the result may be up to 255 too large.
    Cameras of 12 bits store up to 4095, which is nearly black where 65535 is white.
    """
    # Pillow's decoders raise a dozen kinds on damaged files.
    with suppress(Exception), path.open("rb") as file, open_header(file, path) as image:
        if image.mode.startswith("I;16"):
            return int(np.asarray(image).max())
        if raw_mode(image)[0].endswith(";16B"):
            upper = int(np.asarray(image.convert("RGB")).max())
            return upper and upper * 256 + 255
    return None


def decoded(path: Path, data: bytes | None = None) -> Image.Image:
    """Read a file as a Pillow image, as it is stored."""
    with opened(path, data) as image:
        promised = image.size
        image.load()
        if image.size != promised:
            raise ValueError("of another size than it says")
        return image


@contextmanager
def opened(path: Path, data: bytes | None = None) -> Iterator[Image.Image]:
    """Yield the image, its size checked; errors here and in the block become an InputError."""
    try:
        if data is None and not path.is_file():
            raise no_such_file(path)
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
            reason = one_line(error) or type(error).__name__
            problem = f"damaged or cut short ({reason}); copy or download it again"
    raise InputError(f"{path}: {problem}")


def open_header(file: BinaryIO, path: Path) -> Image.Image:
    """Open without decoding, and without Pillow's warning about large sizes.

    From a path, Pillow would map some TIFFs into memory, and scramble those that EXIF turns.
    """
    logging.getLogger("PIL").addHandler(_SILENT)
    with without_warnings():
        if not (start := file.read(64)):
            raise InputError(f"{path}: the file is empty; copy or download it again")
        file.seek(0)
        if not _is_heif(start):
            unsigned = ("TGA",) if path.suffix.lower() == ".tga" else ()  # any bytes may look so
            return Image.open(file, formats=(*_FORMATS, *unsigned))
        if not can_read_heif():
            raise InputError(f"{path}: a HEIC photo; install what reads it: {HEIF_INSTALL}")
        from pillow_heif import HeifImageFile  # which the core install does not have

        return cast(Image.Image, HeifImageFile(file))  # type: ignore[no-untyped-call]


def _is_heif(start: bytes) -> bool:
    """Return whether the first bytes are those of a HEIF, not of an AVIF, which Pillow reads."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and b"avif" not in start


@cache
def _silence_libtiff() -> None:
    """Keep libtiff's lines off standard error: Pillow raises the same."""
    home = Path(PIL.__file__).parent
    for library in (*home.parent.glob("pillow.libs/libtiff*"), *home.glob(".dylibs/libtiff*")):
        ctypes.CDLL(str(library)).TIFFSetErrorHandler(None)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, from the header alone; 1 where it cannot be read."""
    with suppress(Exception):  # damaged metadata must not cost the photo
        # A PNG's own getexif would decode the pixels, in case EXIF stands behind them.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    return 1


def raw_mode(image: Image.Image) -> tuple[str, *tuple[Any, ...]]:
    """Return Pillow's name of the stored pixels' layout, and its decoder's other arguments."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    args = tiles[0].args if tiles else ""
    mode, *more = args if isinstance(args, tuple) else (args,)
    return str(mode), *more
