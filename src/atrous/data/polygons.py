"""Polygons in one file per image: LabelMe's JSON, and YOLO's text -> train ids.

Shapes are filled, outline included, in the order of the file, so that a later one covers an earlier
one. LabelMe draws its own the same way, down to the pixel. Only what has an area is read: a line or
a point among the shapes is an error, since leaving it out would lose a label in silence.
"""

from collections.abc import Iterator
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from atrous.data.json_file import numbers, objects, read_json
from atrous.data.labels import Encoding
from atrous.files import InputError
from atrous.images import MAX_PIXELS, image_size, no_such_file

_MAX_BYTES = 200 << 20  # LabelMe's files may hold the image as well
_MOST_WORK = 40 * MAX_PIXELS  # some seconds at worst
_KINDS = ("polygon", "rectangle", "circle")


class _Shape(NamedTuple):
    """One labelled region."""

    name: str | int
    """Of its class: LabelMe's label, YOLO's index."""
    kind: str
    """One of `_KINDS`."""
    points: NDArray[np.float64]
    """(N, 2), x and y in pixels; two corners of the box around a rectangle or circle."""


def read_polygons(path: Path, image: Path, encoding: Encoding) -> NDArray[np.uint8]:
    """Draw the shapes of a .json (LabelMe) or .txt (YOLO) file: (H, W) train ids.

    Args:
        path: the file of shapes.
        image: the file of its image, of which the size is read.
        encoding: the train ids of names and class indices, and the background.

    Raises:
        InputError: a file is not what it should be, or a class is unknown.
    """
    height, width = image_size(image)
    if not path.is_file():
        raise no_such_file(path)
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: over {_MAX_BYTES >> 20} MB, too much for one image's shapes")
    canvas = Image.new("L", (width, height), encoding.background)
    pen = ImageDraw.Draw(canvas)
    read = _labelme if path.suffix.lower() == ".json" else _yolo
    work_left = _MOST_WORK
    try:
        for shape in read(path, height, width):
            work_left -= _work(shape, height, width)
            if work_left < 0:
                raise ValueError("shapes so many or so large that they would take minutes to draw")
            _fill(pen, shape, encoding.train_id(shape.name, str(path)))
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing; export it from LabelMe again") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; export the polygons again") from None
    return np.array(canvas)


def _labelme(path: Path, height: int, width: int) -> Iterator[_Shape]:
    """The shapes of a LabelMe file."""
    table = read_json(path)
    size = table.get("imageWidth") or width, table.get("imageHeight") or height
    if size != (width, height):
        raise ValueError(f"drawn on {short(size)}, but its image is {width}x{height}")
    for shape in objects(table, "shapes"):
        kind, points = shape.get("shape_type") or "polygon", _points(shape["points"])
        if kind not in _KINDS:
            raise ValueError(f"a {short(kind)}, where only {', '.join(_KINDS)} cover an area")
        if not isinstance(shape["label"], str):
            raise ValueError(f"label {short(shape['label'])}, where a name was expected")
        if (len(points) < 3) if kind == "polygon" else (len(points) != 2):
            raise ValueError(f"a {kind} of {len(points)} points")
        if kind == "circle":  # by its centre and a point on it
            radius = np.hypot(*(points[1] - points[0]))
            points = np.stack([points[0] - radius, points[0] + radius])
        yield _Shape(shape["label"], kind, points)


def _points(values: Any) -> NDArray[np.float64]:
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
    size = np.array([width, height])
    if not ((shape.points >= -size) & (shape.points <= 2 * size)).all():  # false for NaN too
        raise ValueError("a shape that runs far out of the image")
    columns, rows = np.ptp(shape.points, axis=0)
    outline = np.abs(shape.points - np.roll(shape.points, 1, 0)).max(1).sum()
    return int(rows * (columns + 16 * len(shape.points)) + 1000 * (outline + 40))


def _fill(pen: ImageDraw.ImageDraw, shape: _Shape, train_id: int) -> None:
    box = [*shape.points.min(0), *shape.points.max(0)]
    if shape.kind == "polygon":
        pen.polygon(shape.points.ravel().tolist(), train_id, train_id)
    elif shape.kind == "rectangle":
        pen.rectangle(box, train_id, train_id)
    else:
        pen.ellipse(box, train_id, train_id)
