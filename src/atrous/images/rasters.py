"""Rasters in rows: TIFFs, GeoTIFFs and photos too large for memory, whose bands become channels.

rasterio (extra: geo) reads GDAL's formats. Colours are 8 bits of red, green and blue (or grey); for
any other bands and values, `Bands` names those that a network takes.
"""

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.files import no_such_file
from atrous.images.bands import Bands, Channels, has_value, likely_range
from atrous.images.photos import IMAGE_SUFFIXES, first_bytes, without_warnings
from atrous.text import one_line

_PREVIEW = 2048
"""Longest side of a reduced image."""
_SMALL = 128
"""Longest side of the sample that the range of values is guessed from."""
_CACHE_MEGABYTES = 128
"""GDAL's cache, which by default takes a twentieth of the machine's memory."""
_COLORS = ("red", "green", "blue")
_MAX_BLOCK_BYTES = 1 << 28
"""Limit of a block, which is decoded in one piece."""

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The last two are BigTIFF's."""
JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
"""Signatures of a file with boxes, and of a bare codestream."""
_DRIVERS = {
    **dict.fromkeys(TIFF_SIGNATURES, "GTiff"),
    **dict.fromkeys(JPEG_2000, "JP2OpenJPEG"),
    **{b"\x89PNG": "PNG", b"\xff\xd8": "JPEG", b"RIFF": "WEBP", b"BM": "BMP", b"GIF8": "GIF"},
    **dict.fromkeys((b"P5", b"P6"), "PNM"),
}
"""GDAL's reader of an image, by its first bytes."""


class RasterRows:
    """A raster as rows of 8-bit channels; keeps rows that the next call may need again."""

    def __init__(self, source: Any, path: Path, bands: Bands):
        """Decide which bands are channels and which values are black and white."""
        self._source, self._path = source, path
        self._range = value_range = bands.value_range
        with _readable(path):
            _check_count(source, path, bands)
            self._bands = _band_numbers(source, path, bands)
            self._palette = None if bands.numbers else _palette(source)
            structure = source.tags(ns="IMAGE_STRUCTURE")
            self._alpha = _transparency(source, bands)
            bits = int(source.tags(self._bands[0], ns="IMAGE_STRUCTURE").get("NBITS", 8))
        if value_range is None and self._palette is None and bits < 8:
            self._range = 0, 2**bits - 1
        self._from_white = value_range is None and structure.get("MINISWHITE") == "YES"
        self._rows = np.empty((0, source.width, len(self._bands)), np.uint8)
        self._end = 0
        self._has_data = np.empty((0, source.width), bool)
        kinds = {source.dtypes[i - 1] for i in self._bands}
        if any(kind.startswith("complex") for kind in kinds):
            raise InputError(f"{path}: complex values are no colours; convert it first")
        if value_range is None and kinds != {"uint8"} and self._palette is None:
            raise InputError(self._which_range())
        if value_range is not None and kinds == {"uint8"} and value_range[1] > 255:
            raise InputError(
                f"{path}: 8-bit values, where white is to be {value_range[1]:g}; give the range of "
                "this file: --range 0 255, or range in dataset.toml"
            )

    def read(self, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read the rows from `start` up to `stop`, (n, W, C), and where they have data, (n, W).

        Neither number may be less than before: each row is read from the file once.
        """
        values = read_rows(self._source, self._path, self._bands, self._end, stop)  # (C, n, W)
        with _readable(self._path):
            mask = self._valid(self._end, stop)  # (n, W)
        if values.dtype.kind == "f":
            mask &= np.isfinite(values).all(0)
        if values.dtype.kind != "u":
            mask &= has_value(values).any(0)
        kept = self._rows[len(self._rows) - (self._end - start) :]
        self._rows, self._end = np.concatenate([kept, self._scaled(values)]), stop
        self._has_data = np.concatenate([self._has_data, mask])
        return self._rows, self._has_data[start - stop :]

    def take_mask(self, count: int) -> NDArray[np.bool_]:
        """Return whether the next rows that were read have data, (count, W), and drop them."""
        mask, self._has_data = self._has_data[:count], self._has_data[count:]
        return mask

    def reduced(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read all of it, averaged to `size`, (*size, C)."""
        return self._scaled(self._reduced(size).data)

    def _valid(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Return where the file declares data; a fourth band counts if it is transparency.

        A nodata value counts in the bands that are used; rasterio's dataset_mask takes it from all
        bands, and the fourth band as transparency beside it.
        """
        from rasterio.enums import MaskFlags

        mask = np.ones((stop - start, self._source.width), bool)
        window = (start, stop), (0, self._source.width)
        if MaskFlags.alpha not in self._source.mask_flag_enums[0]:
            used = sorted(set(self._bands))
            mask &= (self._source.read_masks(used, window=window) > 0).any(0)
        if self._alpha:
            mask &= self._source.read(self._alpha, window=window) > 0
        return mask

    def _reduced(self, size: tuple[int, int]) -> np.ma.MaskedArray[Any, Any]:
        from rasterio.enums import Resampling

        # The default, the nearest pixel, can be a hundred times slower; indices have no average.
        way = Resampling.average if self._palette is None else Resampling.nearest
        shape = (len(self._bands), *size)
        with _readable(self._path):
            values: np.ma.MaskedArray[Any, Any] = self._source.read(
                self._bands, out_shape=shape, resampling=way, masked=True
            )
        return values

    def _scaled(self, values: NDArray[Any]) -> NDArray[np.uint8]:  # (C, n, W) -> (n, W, C)
        if self._palette is not None:
            return np.asarray(self._palette[values[0]])
        colors = np.empty((*values.shape[1:], len(values)), np.uint8)
        for channel, plane in enumerate(values):
            if self._range is not None:
                low, high = self._range
                plane = (np.nan_to_num(plane.astype(np.float32)) - low) * (255 / (high - low))
                plane = np.rint(plane.clip(0, 255, out=plane))
            colors[:, :, channel] = plane
        return 255 - colors if self._from_white else colors

    def _which_range(self) -> str:
        low, high = likely_range(self._reduced(reduced_size(self._source.shape)).compressed())
        return (
            f"{self._path}: {self._source.dtypes[self._bands[0] - 1]} values; say which are black "
            f"and white, perhaps --range {low:.6g} {high:.6g} (96 in 100 of them lie within), or "
            f"range = [{low:.6g}, {high:.6g}] in dataset.toml"
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise rasterio's errors as an InputError."""
    from rasterio._err import CPLE_BaseError  # raised by some properties of a file
    from rasterio.errors import RasterioError

    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        reason = one_line(error.__cause__ or error).rstrip(".")
        raise InputError(f"{path}: cannot be read ({reason}); copy or convert it again") from None


@contextmanager
def opened_raster(path: Path, data: bytes | None = None) -> Iterator[Any]:
    """Yield the rasterio dataset of a file, or of `data`, the content of a file in a shard."""
    if data is None and not path.exists():
        raise no_such_file(path)
    if not has_rasterio():
        raise InputError(f'{path}: a raster; install what reads it: pip install "atrous[geo]"')
    import rasterio

    driver = _driver(path, data)
    with without_warnings(), _readable(path):  # of a file without coordinates
        source = rasterio.open(path if data is None else io.BytesIO(data), driver=driver)
    with source, rasterio.Env(GDAL_CACHEMAX=_CACHE_MEGABYTES):
        with _readable(path):
            is_turned = source.tags().get("EXIF_Orientation", "1") != "1"
            tuple(source.colorinterp)  # fails here, and not later, if the metadata are damaged
        block_height, block_width = source.block_shapes[0] if source.count else (0, 0)
        bytes_each = source.count * np.dtype(source.dtypes[0]).itemsize
        if block_height * block_width * bytes_each > _MAX_BLOCK_BYTES:
            raise InputError(
                f"{path}: stored in blocks of {block_width}x{block_height} pixels; make it a tiled "
                "TIFF first: gdal_translate -co TILED=YES IN OUT.tif"
            )
        if is_turned:
            raise InputError(f"{path}: turned by EXIF, at this size; save it upright, as a TIFF")
        yield source


def _driver(path: Path, data: bytes | None) -> str | None:
    """Return the name of GDAL's reader by a file's first bytes; None leaves the choice to GDAL.

    By itself GDAL would follow a text to other files and hosts, or start HDF5, so a file whose
    suffix is an image's must be an image.
    """
    start = first_bytes(path, data)
    for signature, driver in _DRIVERS.items():
        if start.startswith(signature):
            return driver
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise InputError(f"{path}: not an image, or of a kind without bands; convert it to a TIFF")
    return None


def has_rasterio() -> bool:
    """Return whether the extra "geo" is installed."""
    return importlib.util.find_spec("rasterio") is not None


def read_rows(source: Any, path: Path, bands: int | list[int], start: int, stop: int) -> Any:
    """Read rows of one band, (n, W), or of several, (C, n, W), with the file's values."""
    with _readable(path):
        return source.read(bands, window=((start, stop), (0, source.width)))


def read_small(source: Any, path: Path, bands: list[int]) -> np.ma.MaskedArray[Any, Any]:
    """Read some pixels of a few bands, spread over the file, (C, h, w); masked: no data."""
    shape = (len(bands), *(min(side, _SMALL) for side in source.shape))
    with _readable(path):
        values: np.ma.MaskedArray[Any, Any] = source.read(bands, out_shape=shape, masked=True)
    return values


def channels_of(path: Path, bands: Bands, data: bytes | None = None) -> Channels:
    """Return the channels of a file; three are always red, green and blue."""
    if not bands.numbers:
        return Channels()
    with opened_raster(path, data) as source:
        kinds = [_kinds(source)[number - 1] for number in _band_numbers(source, path, bands)]
        count = _data_bands(source, bands)
    if len(kinds) == 3:
        return Channels(of=count)
    return Channels(tuple(_COLORS.index(k) if k in _COLORS else None for k in kinds), count)


def _check_count(source: Any, path: Path, bands: Bands) -> None:
    """Refuse a file with another number of bands than the training data."""
    if bands.of in (None, count := _data_bands(source, bands)):
        return
    fix = f"say which the model takes, such as --bands {bands.named()}"
    if count < bands.channels:
        fix = "give files that have them all"
    raise InputError(
        f"{path}: {count} bands, where the model was trained on files of {bands.of}; {fix}"
    )


def _band_numbers(source: Any, path: Path, bands: Bands) -> list[int]:
    """Return the bands that are channels: those in `bands`, or the colours, or grey three times.

    Colours are taken in the order that the file declares, so BGR becomes RGB.
    """
    kinds = _kinds(source)
    if wrong := [band for band in bands.numbers if not 1 <= band <= source.count]:
        raise InputError(
            f"{path}: has no band {wrong[0]}; give --bands from 1 to {source.count}, or bands in "
            "dataset.toml"
        )
    if bands.numbers and kinds[0] == "palette":
        raise InputError(f"{path}: colours by a palette; leave bands out")
    if bands.numbers:
        return list(bands.numbers)
    if all(kinds.count(color) == 1 for color in _COLORS):
        return [kinds.index(color) + 1 for color in _COLORS]
    numbers = [number for number, kind in enumerate(kinds, 1) if kind != "alpha"]
    if len(numbers) in (1, 3):
        return numbers * (3 // len(numbers))
    raise InputError(
        f"{path}: {len(numbers)} bands; say which are red, green and blue, such as --bands 3 2 1, "
        "or all that count by bands = [1, 2, 3, 4] in dataset.toml"
    )


def _data_bands(source: Any, bands: Bands) -> int:
    """Return the number of bands of a file, without transparency."""
    return int(source.count) - bool(_transparency(source, bands))


def _transparency(source: Any, bands: Bands) -> int:
    """Return the number of the band that is transparency and no channel; 0: none."""
    band = alpha_band(source) if bands.alpha else 0
    return 0 if band in bands.numbers else band


def alpha_band(source: Any) -> int:
    """Return the number of the band that is declared as transparency; 0: none."""
    kinds = _kinds(source)
    return kinds.index("alpha") + 1 if "alpha" in kinds else 0


def _kinds(source: Any) -> list[str]:
    """Return the meaning of each band: "red", "gray", "palette", "alpha", ..."""
    return [kind.name for kind in source.colorinterp]


def _palette(source: Any) -> NDArray[np.uint8] | None:
    """Return the colours of a file's values, (N, 3), if they are indices into a palette."""
    if _kinds(source)[0] != "palette":
        return None
    colors = np.zeros((np.iinfo(source.dtypes[0]).max + 1, 3), np.uint8)
    for index, color in source.colormap(1).items():
        colors[index] = color[:3]
    return colors


def reduced_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return (H, W) of a reduced image."""
    factor = min(1, _PREVIEW / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
