"""Shapes in one file per image: LabelMe's and Supervisely's JSON, YOLO's text -> train ids.

Shapes are filled, outline included, in the order of the file, so that a later one covers an earlier
one. LabelMe draws its own the same way, down to the pixel. Only what has an area is read: a line or
a point among the shapes is an error, since leaving it out would lose a label in silence.
"""

import base64
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from atrous.data.encodings.masks import Encoding, plain_name
from atrous.errors import InputError
from atrous.files import no_such_file
from atrous.images.photos import MAX_PIXELS
from atrous.images.pixels import pixel_size
from atrous.json_file import numbers, objects, read_json

_MAX_BYTES = 200 << 20  # LabelMe's files may hold the image as well
_MOST_WORK = 40 * MAX_PIXELS  # some seconds at worst
_CORNERS = {"polygon": (3, None), "rotation": (3, None), "rectangle": (2, 4), "circle": (2, 2)}
"""The fewest and most points of each kind of LabelMe's; X-AnyLabeling's boxes may have four."""

Points = NDArray[np.float64]
"""(N, 2), x and y in pixels."""


class _Shape(NamedTuple):
    """One labelled region."""

    name: str | int
    """Of its class: the label, or YOLO's index."""
    kind: str
    """polygon, rectangle, circle or bitmap."""
    points: Points
    """Two corners of the box around a rectangle, circle or bitmap."""
    holes: tuple[Points, ...] = ()
    """Of a polygon: what lies below shows through."""
    bitmap: Image.Image | None = None
    """Mode "1"."""


def read_polygons(path: Path, image: Path, encoding: Encoding) -> NDArray[np.uint8]:
    """Draw the shapes of a .json (LabelMe, Supervisely) or .txt (YOLO) file: (H, W) train ids.

    Args:
        path: the file of shapes.
        image: the file of its image, of which the size is read.
        encoding: the train ids of names and class indices, and the background.

    Raises:
        InputError: a file is not what it should be, or a class is unknown.
    """
    height, width = pixel_size(image)
    if not path.is_file():
        raise no_such_file(path)
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: over {_MAX_BYTES >> 20} MB, too much for one image's shapes")
    canvas = Image.new("L", (width, height), encoding.background)
    read = _json_shapes if path.suffix.lower() == ".json" else _yolo
    work_left = _MOST_WORK
    with _one_line(path):
        for shape in read(path, height, width):
            work_left -= _work(shape, height, width)
            if work_left < 0:
                raise ValueError("shapes so many or so large that they would take minutes to draw")
            _fill(canvas, shape, encoding.train_id(shape.name, str(path)))
    return np.array(canvas)


def shape_names(path: Path) -> set[str]:
    """The names of the shapes in a LabelMe or Supervisely file, as classes are compared.

    Raises:
        InputError: it is neither.
    """
    table = read_json(path)
    field, label = ("objects", "classTitle") if _is_supervisely(table) else ("shapes", "label")
    with _one_line(path):
        return {plain_name(str(shape[label])) for shape in objects(table, field)} - {""}


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn what is wrong with the content of a file into one line."""
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing; export it again as LabelMe JSON") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; export the polygons again") from None


def _is_supervisely(table: dict[str, Any]) -> bool:
    return "objects" in table and "size" in table and "shapes" not in table


def _json_shapes(path: Path, height: int, width: int) -> Iterator[_Shape]:
    table = read_json(path)
    read = _supervisely if _is_supervisely(table) else _labelme
    for shape in read(table, height, width):
        if not shape.name:
            raise ValueError("a shape without a name")
        if (shape.points.max(0) < 0).any() or (shape.points.min(0) > (width, height)).any():
            raise ValueError(f"a {shape.kind} of {short(shape.name)} outside of the image")
        yield shape


def _labelme(table: dict[str, Any], height: int, width: int) -> Iterator[_Shape]:
    """The shapes of a LabelMe file."""
    _check_size((table.get("imageWidth"), table.get("imageHeight")), (width, height))
    for shape in objects(table, "shapes"):
        kind, points = shape.get("shape_type") or "polygon", _points(shape["points"])
        name = _name(shape["label"])
        if kind == "mask":
            if len(points) != 2:
                raise ValueError(f"a mask of {len(points)} points")
            [origin, last] = np.nan_to_num(points).astype(int)  # both corners are of its box
            picture = _bitmap(_base64(shape["mask"]), width, height)
            if (last - origin + 1 != picture.size).any():
                raise ValueError(f"a mask of {short(name)} whose size is not that of its box")
            yield _placed(name, picture, origin, (width, height))
            continue
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
        yield _Shape(name, "polygon" if len(points) > 2 else kind, points)


def _supervisely(table: dict[str, Any], height: int, width: int) -> Iterator[_Shape]:
    """The objects of a Supervisely file: bitmaps at an origin, polygons with holes, rectangles."""
    size = table["size"]
    if not isinstance(size, dict):
        raise ValueError(f"size is {short(size)}, where height and width were expected")
    _check_size((size.get("width"), size.get("height")), (width, height))
    most = min(16 * height * width + (1 << 20), 1 << 28)  # bytes that the bitmaps inflate to
    for entry in objects(table, "objects"):
        name, kind = _name(entry["classTitle"]), entry.get("geometryType")
        if kind == "bitmap":
            bitmap = _table(entry, kind)
            png = _inflated(bitmap["data"], most)
            most -= len(png)
            [origin] = _points([bitmap["origin"]])
            yield _placed(name, _bitmap(png, width, height), origin, (width, height))
        elif kind in ("polygon", "rectangle"):
            points = _table(entry, "points")
            outline = _points(points["exterior"])
            interior = points.get("interior") or []
            holes = tuple(_points(hole) for hole in interior) if isinstance(interior, list) else ()
            fits = min(map(len, (outline, *holes))) > 2 if kind == "polygon" else len(outline) == 2
            if not fits:
                raise ValueError(f"a {kind} of {len(outline)} points")
            yield _Shape(name, kind, outline, holes)
        else:
            raise ValueError(
                f"a {short(kind)}, where only bitmap, polygon and rectangle cover an area"
            )


def _check_size(size: tuple[Any, Any], expected: tuple[int, int]) -> None:
    if any(given and given != real for given, real in zip(size, expected, strict=True)):
        raise ValueError(f"drawn on {short(size)}, but its image is {expected[0]}x{expected[1]}")


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"label {short(value)}, where a name was expected")
    return plain_name(value)


def _table(entry: dict[str, Any], field: str) -> dict[str, Any]:
    if not isinstance(entry[field], dict):
        raise ValueError(f"{field} is {short(entry[field])}, where an object was expected")
    return dict(entry[field])


def _placed(name: str, picture: Image.Image, origin: NDArray[Any], size: tuple[int, int]) -> _Shape:
    """A bitmap at its origin, x and y; `size` is (width, height) of the image."""
    last = origin + picture.size - 1
    if not ((origin >= 0).all() and (last < size).all()):  # false for NaN too
        raise ValueError(f"a bitmap of {short(name)} that does not lie in its image")
    if picture.getbbox() is None:
        raise ValueError(f"a bitmap of {short(name)} that covers nothing")
    return _Shape(name, "bitmap", np.stack([origin, last]).astype(np.float64), (), picture)


def _base64(data: Any) -> bytes:
    try:
        return base64.b64decode(data)
    except (TypeError, ValueError):
        raise ValueError("a mask that is no base64") from None


def _inflated(data: Any, most: int) -> bytes:
    """Decompress the PNG of a bitmap, if it has no more than `most` bytes."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(_base64(data), max(most, 1))
    except zlib.error:
        raise ValueError("a bitmap that is not compressed by zlib") from None
    if inflater.unconsumed_tail:
        raise ValueError("bitmaps of more data than their image could need")
    return content


def _bitmap(png: bytes, width: int, height: int) -> Image.Image:
    """The pixels of a PNG that are set, mode "1": by its transparency if it has one, else not 0.

    Raises:
        ValueError: it is no PNG, or larger than the size given.
    """
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
            if picture.width > width or picture.height > height:
                raise ValueError(f"larger than {width}x{height}")
            picture.load()
    except Exception as error:  # Pillow's decoder raises many kinds on damaged files
        reason = " ".join(str(error).split())
        raise ValueError(f"a bitmap that is no PNG of its shape ({reason})") from None
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        values = np.asarray(picture.convert("RGBA"))[..., 3]
    else:
        values = np.asarray(picture if picture.mode in ("1", "L", "P") else picture.convert("L"))
    return Image.fromarray(np.where(values > 0, np.uint8(255), np.uint8(0))).convert("1")


def _points(values: Any) -> Points:
    """A list of [x, y] as an array (N, 2)."""
    if isinstance(values, list) and all(isinstance(v, list) and len(v) == 2 for v in values):
        flat = numbers([coordinate for point in values for coordinate in point])
        if flat is not None:
            return flat.astype(np.float64).reshape(-1, 2)
    raise ValueError("points that are no list of [x, y]")


def _yolo(path: Path, height: int, width: int) -> Iterator[_Shape]:
    """The polygons of a YOLO file: a class and x y x y ... from 0 to 1 on each line."""
    for line in path.read_text("utf-8", errors="replace").splitlines():
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
        # Few decimals are written: the nearest pixel is the one that was meant.
        points = np.round(numbers.reshape(-1, 2) * (width, height))
        yield _Shape(class_id, "polygon", points)


def _work(shape: _Shape, height: int, width: int) -> int:
    """About how long it takes to fill, in pixels painted.

    Pillow looks at each corner in each row, and sorts all the sides that cross it.

    Raises:
        ValueError: the shape runs far out of the image, where integers could overflow.
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
