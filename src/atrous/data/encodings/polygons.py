"""Shapes in one file per image: LabelMe's and Supervisely's JSON, YOLO's text -> train ids.

Shapes are filled, outline included, in the order of the file, so that a later one covers an earlier
one. LabelMe draws its own shapes the same way, down to the pixel. Only shapes with an area are
read: a line or a point is an error, because leaving it out would silently lose a label.
"""

import base64
import io
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from atrous.data.encodings.masks import Encoding, plain_name
from atrous.decode import convert, decode_json
from atrous.errors import InputError
from atrous.files import read_bytes
from atrous.images.photos import MAX_PIXELS
from atrous.images.pixels import pixel_size
from atrous.text import one_line

_MAX_BYTES = 200 << 20  # LabelMe's files may hold the image as well
_MOST_WORK = 40 * MAX_PIXELS  # some seconds at worst
_FIX = "export the polygons again"
_CORNERS = {"polygon": (3, None), "rotation": (3, None), "rectangle": (2, 4), "circle": (2, 2)}
"""Fewest and most points of each kind of LabelMe shape; X-AnyLabeling's boxes may have four."""

Points = NDArray[np.float64]
"""(N, 2), x and y in pixels."""


_Corners = list[tuple[float, float]]
"""x and y in pixels, as a file lists them."""


class _LabelMeShape(msgspec.Struct):
    label: str
    points: _Corners
    shape_type: Any = None
    mask: Any = None
    """A PNG in base64, of a shape whose type is mask."""


class _LabelMe(msgspec.Struct, rename={"width": "imageWidth", "height": "imageHeight"}):
    shapes: list[_LabelMeShape]
    width: Any = None
    height: Any = None


class _Bitmap(msgspec.Struct):
    data: str
    """A PNG, compressed by zlib, in base64."""
    origin: tuple[float, float]


class _Outline(msgspec.Struct):
    exterior: _Corners
    interior: list[_Corners] | None = None


class _SuperviselyObject(msgspec.Struct, rename="camel"):
    class_title: str
    geometry_type: Any = None
    bitmap: Any = None
    """A `_Bitmap`, of that type."""
    points: Any = None
    """An `_Outline`, of a polygon or rectangle."""


class _Size(msgspec.Struct):
    width: Any = None
    height: Any = None


class _Supervisely(msgspec.Struct):
    objects: list[_SuperviselyObject]
    size: _Size


class _Shape(NamedTuple):
    """One labelled region."""

    name: str | int
    """Name of its class, or YOLO's index."""
    kind: str
    """polygon, rectangle, circle or bitmap."""
    points: Points
    """Two corners of the box around a rectangle, circle or bitmap."""
    holes: tuple[Points, ...] = ()
    """Parts of a polygon that are left out: what lies below shows through."""
    bitmap: Image.Image | None = None
    """Mode "1"."""


def read_polygons(path: Path, image: Path, encoding: Encoding) -> NDArray[np.uint8]:
    """Draw the shapes of a .json (LabelMe, Supervisely) or .txt (YOLO) file: (H, W) train ids.

    Args:
        path: the file of shapes.
        image: the file of its image, of which the size is read.
        encoding: the train ids of names and class indices, and the background.
    """
    height, width = pixel_size(image)
    content = read_bytes(path, _MAX_BYTES, "give each image a file of its own")
    canvas = Image.new("L", (width, height), encoding.background)
    read = _json_shapes if path.suffix.lower() == ".json" else _yolo
    work_left = _MOST_WORK
    try:
        for shape in read(content, path, height, width):
            work_left -= _work(shape, height, width)
            if work_left < 0:
                raise ValueError("shapes so many or so large that they would take minutes to draw")
            _fill(canvas, shape, encoding.train_id(shape.name, str(path)))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: {error}; {_FIX}") from None
    return np.array(canvas)


def shape_names(path: Path) -> set[str]:
    """Return the names of the shapes in a LabelMe or Supervisely file, as classes are compared."""
    drawing = _drawing(read_bytes(path, _MAX_BYTES, _FIX), path)
    if isinstance(drawing, _LabelMe):
        names = [shape.label for shape in drawing.shapes]
    else:
        names = [entry.class_title for entry in drawing.objects]
    return {plain_name(name) for name in names} - {""}


def _drawing(content: bytes, path: Path) -> _LabelMe | _Supervisely:
    table = decode_json(content, dict[str, Any], path, _FIX)
    if "shapes" not in table and {"objects", "size"} <= table.keys():
        return convert(table, _Supervisely, path, _FIX)
    return convert(table, _LabelMe, path, _FIX)


def _json_shapes(content: bytes, path: Path, height: int, width: int) -> Iterator[_Shape]:
    drawing = _drawing(content, path)
    if isinstance(drawing, _LabelMe):
        size: _LabelMe | _Size = drawing
        read: Iterator[_Shape] = (_labelme(shape, height, width) for shape in drawing.shapes)
    else:
        size, read = drawing.size, _supervisely(drawing.objects, path, height, width)
    drawn = size.width or width, size.height or height
    if drawn != (width, height):
        raise ValueError(f"drawn on {drawn[0]}x{drawn[1]}, but its image is {width}x{height}")
    for shape in read:
        if not shape.name:
            raise ValueError("a shape without a name")
        if (shape.points.max(0) < 0).any() or (shape.points.min(0) > (width, height)).any():
            raise ValueError(f"a {shape.kind} of {short(shape.name)} outside of the image")
        yield shape


def _labelme(shape: _LabelMeShape, height: int, width: int) -> _Shape:
    name, points = plain_name(shape.label), _points(shape.points)
    kind = shape.shape_type or "polygon"
    if kind == "mask":
        if len(points) != 2:
            raise ValueError(f"a mask of {len(points)} points")
        [origin, last] = np.nan_to_num(points).astype(int)  # both corners are of its box
        picture = _bitmap(_base64(shape.mask), width, height)
        if (last - origin + 1 != picture.size).any():
            raise ValueError(f"a mask of {short(name)} whose size is not that of its box")
        return _placed(name, picture, origin, (width, height))
    if not isinstance(kind, str) or kind not in _CORNERS:
        raise ValueError(
            f"a {short(kind)}, where only polygon, rectangle, circle and mask cover an area"
        )
    least, most = _CORNERS[kind]
    if not least <= len(points) <= (most or len(points)):
        raise ValueError(f"a {kind} of {len(points)} points")
    if kind == "circle":  # by its centre and a point on it
        radius = np.hypot(*(points[1] - points[0]))
        points = np.stack([points[0] - radius, points[0] + radius])
    return _Shape(name, "polygon" if len(points) > 2 else kind, points)


def _supervisely(
    objects: list[_SuperviselyObject], path: Path, height: int, width: int
) -> Iterator[_Shape]:
    """Yield bitmaps at an origin, polygons with holes, and rectangles."""
    most = min(16 * height * width + (1 << 20), 1 << 28)  # bytes that the bitmaps inflate to
    for entry in objects:
        name, kind = plain_name(entry.class_title), entry.geometry_type
        if kind == "bitmap":
            bitmap = convert(entry.bitmap, _Bitmap, f"{path}: bitmap", _FIX)
            png = _inflated(bitmap.data, most)
            most -= len(png)
            [origin] = _points([bitmap.origin])
            yield _placed(name, _bitmap(png, width, height), origin, (width, height))
        elif kind in ("polygon", "rectangle"):
            outline = convert(entry.points, _Outline, f"{path}: points", _FIX)
            points, *holes = map(_points, (outline.exterior, *(outline.interior or ())))
            fits = min(map(len, (points, *holes))) > 2 if kind == "polygon" else len(points) == 2
            if not fits:
                raise ValueError(f"a {kind} of {len(points)} points")
            yield _Shape(name, kind, points, tuple(holes))
        else:
            raise ValueError(
                f"a {short(kind)}, where only bitmap, polygon and rectangle cover an area"
            )


def _points(corners: Sequence[tuple[float, float]]) -> Points:
    return np.array(corners, np.float64).reshape(-1, 2)


def _placed(name: str, picture: Image.Image, origin: NDArray[Any], size: tuple[int, int]) -> _Shape:
    """Return a bitmap at its origin, x and y; `size` is (width, height) of the image."""
    last = origin + picture.size - 1
    if not ((origin >= 0).all() and (last < size).all()):  # false for NaN too
        raise ValueError(f"a bitmap of {short(name)} that does not lie in its image")
    if picture.getbbox() is None:
        raise ValueError(f"a bitmap of {short(name)} that covers nothing")
    return _Shape(name, "bitmap", np.stack([origin, last]).astype(np.float64), (), picture)


def _base64(text: Any) -> bytes:
    """Decode base64 as LabelMe does: line breaks and other letters are skipped."""
    try:
        return base64.b64decode(text)
    except (TypeError, ValueError):
        raise ValueError("a mask that is no base64") from None


def _inflated(text: str, most: int) -> bytes:
    """Decompress the PNG of a bitmap, if it has no more than `most` bytes."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(_base64(text), max(most, 1))
    except zlib.error:
        raise ValueError("a bitmap that is not compressed by zlib") from None
    if inflater.unconsumed_tail:
        raise ValueError("bitmaps of more data than their image could need")
    return content


def _bitmap(png: bytes, width: int, height: int) -> Image.Image:
    """Return the pixels of a PNG that are set, mode "1".

    They are the opaque ones if the PNG has transparency, else those that are not 0. A PNG that is
    larger than the size given is refused by a ValueError.
    """
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
            if picture.width > width or picture.height > height:
                raise ValueError(f"larger than {width}x{height}")
            picture.load()
    except Exception as error:  # Pillow's decoder raises many kinds on damaged files
        raise ValueError(f"a bitmap that is no PNG of its shape ({one_line(error)})") from None
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        values = np.asarray(picture.convert("RGBA"))[..., 3]
    else:
        values = np.asarray(picture if picture.mode in ("1", "L", "P") else picture.convert("L"))
    return Image.fromarray(np.where(values > 0, np.uint8(255), np.uint8(0))).convert("1")


def _yolo(content: bytes, _: Path, height: int, width: int) -> Iterator[_Shape]:
    """Yield the polygons of a YOLO file: a class and x y x y ... from 0 to 1 on each line."""
    for line in content.decode("utf-8", "replace").splitlines():
        if not (words := line.split()):
            continue
        try:
            class_id, numbers = int(words[0]), np.array(words[1:], np.float64)
        except ValueError:
            raise ValueError(f"{short(line)}, where a class and numbers were expected") from None
        if numbers.size == 4:
            raise ValueError("a box, where polygons were expected")
        if numbers.size < 6 or numbers.size % 2:
            raise ValueError(f"a line of {numbers.size} numbers after its class")
        if not ((numbers >= -0.01) & (numbers <= 1.01)).all():  # false for NaN too
            raise ValueError("coordinates that do not lie between 0 and 1")
        # Files have few decimals: the nearest pixel is meant.
        points = np.round(numbers.reshape(-1, 2) * (width, height))
        yield _Shape(class_id, "polygon", points)


def _work(shape: _Shape, height: int, width: int) -> int:
    """Return about how long a shape takes to fill, in pixels painted.

    Pillow looks at each corner in each row, and sorts all the sides that cross it. A shape that
    runs far out of the image, where integers could overflow, is refused by a ValueError.
    """
    size, work = np.array([width, height]), 0
    for points in (shape.points, *shape.holes):
        if not ((points >= -size) & (points <= 2 * size)).all():  # false for NaN too
            raise ValueError("a shape that runs far out of the image")
        columns, rows = np.ptp(points, axis=0)
        outline = np.abs(points - np.roll(points, 1, 0)).max(1).sum()
        work += int(rows * (columns + 16 * len(points)) + 1000 * (outline + 40))
    return work


def _fill(canvas: Image.Image, shape: _Shape, train_id: int) -> None:
    pen = ImageDraw.Draw(canvas)
    box = [*shape.points.min(0), *shape.points.max(0)]
    if shape.bitmap is not None:
        canvas.paste(train_id, (int(box[0]), int(box[1])), shape.bitmap)
    elif shape.holes:
        corner = np.floor(shape.points.min(0))
        size = np.ceil(shape.points.max(0) - corner).astype(int) + 1
        inside = Image.new("1", (int(size[0]), int(size[1])))
        for points in (shape.points, *shape.holes):
            value = int(points is shape.points)
            ImageDraw.Draw(inside).polygon((points - corner).ravel().tolist(), value, value)
        canvas.paste(train_id, (int(corner[0]), int(corner[1])), inside)
    elif shape.kind == "polygon":
        pen.polygon(shape.points.ravel().tolist(), train_id, train_id)
    elif shape.kind == "rectangle":
        pen.rectangle(box, train_id, train_id)
    else:
        pen.ellipse(box, train_id, train_id)
