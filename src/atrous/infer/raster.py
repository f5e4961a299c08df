"""Rasters, read in rows and written in rows: TIFFs, GeoTIFFs and photos too large for memory.

rasterio (extra: geo) reads whatever GDAL does. Colours are 8 bits of red, green and blue (or grey);
of any other bands and values it must be said which of them are that.
"""

import errno
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from atrous.files import InputError
from atrous.images import MAX_PIXELS, no_such_file
from atrous.taxonomy import IGNORE_INDEX, Taxonomy

_PREVIEW = 2048
"""The longer side of a reduced image, at most."""
_CACHE_MEGABYTES = 128
"""Of GDAL, which otherwise takes a twentieth of the machine's memory."""
_MAX_BLOCK_BYTES = 1 << 28
"""A block is decoded in one piece; larger ones would break the bound on memory."""
_WIDTH, _HEIGHT, _BANDS = 256, 257, 277
_GEO_TAGS = (33550, 33922, 34264, 34735)
"""Of a TIFF: pixel scale, tie points, transformation, keys."""


def is_raster(path: Path) -> bool:
    """Whether `path` is for this module: a TIFF with coordinates, or more pixels than a photo may.

    Only the header is read; what cannot be read is no raster, and its reader will say why.
    """
    if not path.is_file():  # but a pipe, perhaps, which would never end
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if (tags := _tiff_tags(path)) is None:
                with Image.open(path) as image:
                    return image.width * image.height > MAX_PIXELS
        except Image.DecompressionBombError:
            return True
        except Exception:  # Pillow's readers raise a dozen kinds on damaged files
            return False
    large = tags.get(_WIDTH, 0) * tags.get(_HEIGHT, 0) > MAX_PIXELS
    return large or tags.get(_BANDS, 1) > 4 or any(tag in tags for tag in _GEO_TAGS)


class RasterRows:
    """A raster as rows of sRGB; keeps those that the next call may want again."""

    def __init__(
        self,
        source: Any,
        path: Path,
        bands: Sequence[int],
        value_range: tuple[float, float] | None,
    ):
        """Settle which bands and values are what.

        Raises:
            InputError: that cannot be known.
        """
        self._source, self._path = source, path
        self._bands = _color_bands(source, path, bands)
        self._range = value_range
        self._rows = np.empty((0, source.width, 3), np.uint8)
        self._end = 0
        self._has_data = np.empty((0, source.width), bool)
        if value_range is not None and not 0 < value_range[1] - value_range[0] < np.inf:
            black, white = value_range
            raise InputError(f"--range {black:g} {white:g}: give black, then white, a larger value")
        if any(source.dtypes[i - 1].startswith("complex") for i in self._bands):
            raise InputError(f"{path}: complex values are no colours; convert it first")
        if value_range is None and any(source.dtypes[i - 1] != "uint8" for i in self._bands):
            raise InputError(self._which_range())

    def read(self, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read the rows from `start` up to `stop`, (n, W, 3), and where they have data, (n, W).

        Neither number may be less than before: each row is read from the file once.
        """
        from rasterio.windows import Window

        window = Window(0, self._end, self._source.width, stop - self._end)
        with _damage_told(self._path):
            new = self._colors(self._source.read(self._bands, window=window))  # (n, W, 3)
            mask = self._source.dataset_mask(window=window) > 0  # (n, W)
        kept = self._rows[len(self._rows) - (self._end - start) :]
        self._rows, self._end = np.concatenate([kept, new]), stop
        self._has_data = np.concatenate([self._has_data, mask])
        return self._rows, self._has_data[start - stop :]

    def take_mask(self, count: int) -> NDArray[np.bool_]:
        """Return whether the next rows that were read have data, (count, W), and let go of them."""
        mask, self._has_data = self._has_data[:count], self._has_data[count:]
        return mask

    def reduced(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read all of it, averaged to `size`, (*size, 3)."""
        return self._colors(self._reduced(size).data)

    def _reduced(self, size: tuple[int, int]) -> np.ma.MaskedArray[Any, Any]:
        from rasterio.enums import Resampling

        shape = (len(self._bands), *size)
        with _damage_told(
            self._path
        ):  # the default, the nearest pixel, can be a hundred times slower
            values: np.ma.MaskedArray[Any, Any] = self._source.read(
                self._bands, out_shape=shape, resampling=Resampling.average, masked=True
            )
        return values

    def _colors(self, values: NDArray[Any]) -> NDArray[np.uint8]:  # (1 or 3, n, W)
        colors = np.empty((*values.shape[1:], 3), np.uint8)
        for channel in range(3):
            plane = values[channel % len(values)]
            if self._range is not None:
                low, high = self._range
                plane = (np.nan_to_num(plane.astype(np.float32)) - low) * (255 / (high - low))
                plane = np.rint(plane.clip(0, 255, out=plane))
            colors[:, :, channel] = plane
        return colors

    def _which_range(self) -> str:
        values = self._reduced(reduced_size(self._source.shape)).compressed()
        low, high = np.nanpercentile(values, (2, 98)) if values.size else (0, 1)
        return (
            f"{self._path}: {self._source.dtypes[self._bands[0] - 1]} values; say which are black "
            f"and white, perhaps --range {low:.4g} {high:.4g} (96 in 100 of them lie within)"
        )


def _tiff_tags(path: Path) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    """The first directory of a TIFF or BigTIFF; None for any other file."""
    with path.open("rb") as file:
        header = file.read(8)
        if header[:4] in (b"II+\0", b"MM\0+"):
            header += file.read(8)
        elif header[:4] not in (b"II*\0", b"MM\0*"):
            return None
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        return tags


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Tell in one line what rasterio cannot read."""
    from rasterio.errors import RasterioError, RasterioIOError

    try:
        yield
    except (RasterioError, RasterioIOError) as error:
        reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
        raise InputError(f"{path}: cannot be read ({reason}); copy or convert it again") from None


@contextmanager
def _full_disk_told() -> Iterator[None]:
    """Tell what rasterio does not: why a file of our own cannot be written, or read again."""
    from rasterio.errors import RasterioIOError

    try:
        yield
    except RasterioIOError:
        raise OSError(errno.EIO, "cannot be written; the disk may be full") from None


@contextmanager
def _unplaced() -> Iterator[None]:
    """A raster without coordinates is as good as any: no warning of rasterio's."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def opened_raster(path: Path) -> Iterator[Any]:
    """Yield the rasterio dataset.

    Raises:
        InputError: it is missing, no raster, turned by EXIF, or has to be decoded in one piece.
    """
    import rasterio

    if not path.exists():
        raise no_such_file(path)
    with _unplaced(), _damage_told(path):
        source = rasterio.open(path)
    with source, rasterio.Env(GDAL_CACHEMAX=_CACHE_MEGABYTES):
        block_height, block_width = source.block_shapes[0] if source.count else (0, 0)
        bytes_each = source.count * np.dtype(source.dtypes[0]).itemsize
        if block_height * block_width * bytes_each > _MAX_BLOCK_BYTES:
            raise InputError(
                f"{path}: stored in blocks of {block_width}x{block_height} pixels; make it a tiled "
                "TIFF first: gdal_translate -co TILED=YES IN OUT.tif"
            )
        if source.tags().get("EXIF_Orientation", "1") != "1":
            raise InputError(f"{path}: turned by EXIF, at this size; save it upright, as a TIFF")
        yield source


def _color_bands(source: Any, path: Path, wanted: Sequence[int]) -> list[int]:
    """The bands that are colours: those `wanted`, or the only ones besides transparency.

    Raises:
        InputError: there are no such bands, or it must be said which they are.
    """
    from rasterio.enums import ColorInterp

    if wrong := [band for band in wanted if not 1 <= band <= source.count]:
        raise InputError(f"{path}: has no band {wrong[0]}; give --bands from 1 to {source.count}")
    if source.colorinterp[0] == ColorInterp.palette:
        raise InputError(f"{path}: colours by a palette; convert it: gdal_translate -expand rgb")
    bands = [i for i, kind in enumerate(source.colorinterp, 1) if kind != ColorInterp.alpha]
    bands = list(wanted) or bands
    if len(bands) in (1, 3):
        return bands
    raise InputError(
        f"{path}: {len(bands)} bands; say which are red, green and blue, such as --bands 3 2 1"
    )


@contextmanager
def labels_file(path: Path, source: Any, taxonomy: Taxonomy) -> Iterator[Any]:
    """Yield a GeoTIFF to write labels to, with the coordinates of `source`.

    Raises:
        OSError: it cannot be written.
    """
    import rasterio

    points, points_crs = source.gcps  # an image that was not yet made to fit a map has these
    with _unplaced():
        labels = rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=source.height,
            width=source.width,
            count=1,
            dtype="uint8",
            nodata=IGNORE_INDEX,
            crs=source.crs or points_crs,
            transform=source.transform,
            gcps=points or None,
            rpcs=source.rpcs,
            tiled=True,
            blockxsize=512,
            blockysize=512,
            compress="deflate",
            bigtiff="if_safer",
        )
    with _full_disk_told(), labels:
        colors = enumerate(taxonomy.palette().tolist())
        labels.write_colormap(1, {i: tuple(color) for i, color in colors})
        yield labels


def reduced_labels(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read the labels of a file to `size`, (H, W): the most frequent of those that a pixel covers.

    It reads all of the file, and so finds out whether all of it was written.

    Raises:
        OSError: it was not.
    """
    import rasterio
    from rasterio.enums import Resampling

    with _unplaced(), _full_disk_told(), rasterio.open(path) as file:
        return np.asarray(file.read(1, out_shape=size, resampling=Resampling.mode), np.uint8)


def reduced_size(size: tuple[int, int]) -> tuple[int, int]:
    """The (H, W) of a reduced image."""
    factor = min(1, _PREVIEW / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def pixel_area(source: Any) -> float | None:
    """Square metres of a pixel; None in degrees, and in Web Mercator, whose metres are not true."""
    if source.crs is None or not source.crs.is_projected or source.crs.to_epsg() == 3857:
        return None
    metres: float = source.crs.linear_units_factor[1]
    return float(abs(source.transform.determinant)) * metres**2
