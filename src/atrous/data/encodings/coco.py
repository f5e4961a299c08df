"""COCO's instances and stuff JSON: outlines and run-length masks of objects -> train ids.

A run-length mask counts pixels column by column from the top left: so many outside of the object,
so many inside, and so on. Compressed, each count is a few characters of 5 bits, from the third on
as the difference to the count before the last. Counts are decoded here, since the C code of
pycocotools trusts them; outlines are checked here and filled there, so that they cover the very
pixels that COCO's own tools count.

The JSON is read once. Coordinates and counts are kept as arrays, a fifth of the memory of lists.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import Encoding
from atrous.errors import InputError
from atrous.images.photos import MAX_PIXELS
from atrous.json_file import numbers, objects, read_json

Counts = NDArray[np.int64]
"""Lengths of runs outside, inside, outside, ... of an object; their sum is H * W."""

_MOST_PAINTED = 40 * MAX_PIXELS
_MOST_OUTLINE = 4_000_000
_NUMBER = re.compile("0|[1-9][0-9]{0,17}")
_POINTS = [[a, b] for a in (int, float) for b in (int, float)]
_EACH = 40  # an outline or object takes as long as so many pixels of outline, or thousand painted


@dataclass(frozen=True, eq=False)
class CocoImage:
    """What a COCO JSON says of one image."""

    path: Path
    """Of the JSON."""
    file_name: str
    size: tuple[int, int]
    """(H, W)."""
    objects: list[tuple[int, Any]]
    """Category id and segmentation of each, as the JSON has them, lists of numbers as arrays."""


def read_instances(path: Path) -> list[CocoImage]:
    """Read and check a COCO JSON of instances or stuff; the masks are checked when drawn.

    Raises:
        InputError: the file is not such a JSON; the line names the first fault.
    """
    table = read_json(path, _compact)
    try:
        categories = {number_of(category["id"]) for category in objects(table, "categories")}
        entries = objects(table, "images")
        images = {_image_id(image["id"]): _image(path, image) for image in entries}
        if len(images) < len(entries):
            raise ValueError("two images have one id")
        files = Counter(image.file_name for image in images.values())
        if len(files) < len(images):
            raise ValueError(f"two images have one file name, {short(files.most_common(1)[0][0])}")
        for annotation in objects(table, "annotations"):
            category_id = number_of(annotation["category_id"])
            image_id = _image_id(annotation["image_id"])
            if category_id not in categories:
                raise ValueError(f"category {short(category_id)} is not among its categories")
            if image_id not in images:
                raise ValueError(f"image {short(image_id)} is not among its images")
            images[image_id].objects.append((category_id, annotation.get("segmentation")))
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing; is it a COCO JSON?") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; is it a COCO JSON?") from None
    return list(images.values())


def draw(image: CocoImage, encoding: Encoding) -> NDArray[np.uint8]:
    """Paint the objects of an image, the largest first: (H, W) train ids.

    Raises:
        InputError: an object's mask is wrong, or its category is unknown.
    """
    height, width = image.size
    train_ids = [encoding.train_id(category_id, _where(image)) for category_id, _ in image.objects]
    masks = _checked_masks(image)
    areas = [_area(mask) for mask in masks]
    label = np.full(height * width, encoding.background, np.uint8)  # column by column
    for i in sorted(range(len(masks)), key=lambda i: -areas[i]):
        for counts in masks[i]:
            _paint(label, counts, train_ids[i])
    return np.ascontiguousarray(label.reshape(width, height).T)


def empty_objects(image: CocoImage) -> list[int]:
    """The categories of the objects whose masks cover no pixel.

    Raises:
        InputError: an object's mask is wrong.
    """
    both = zip(image.objects, _checked_masks(image), strict=True)
    return [category_id for (category_id, _), mask in both if not _area(mask)]


def number_of(value: Any) -> int:
    """An integer that some tools write as 3.0 or "3".

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    if type(value) is not int:  # True is one, too
        raise ValueError(f"{short(value)} where an integer was expected")
    return value


def _where(image: CocoImage) -> str:
    return f"{image.path}: image {short(image.file_name)}"


def _checked_masks(image: CocoImage) -> list[list[Counts]]:
    try:
        return _masks([segmentation for _, segmentation in image.objects], *image.size)
    except ValueError as error:
        raise InputError(f"{_where(image)}: {error}; export the annotations again") from None


def _area(mask: list[Counts]) -> int:
    return sum(int(counts[1::2].sum()) for counts in mask)


def _compact(table: dict[str, Any]) -> dict[str, Any]:
    """Make arrays of the numbers in an annotation or a run-length mask.

    Some tools write one outline without the list around it, or points as pairs: x and y.
    """
    if isinstance(counts := table.get("counts"), list):
        table["counts"] = numbers(counts)
    if isinstance(outlines := table.get("segmentation"), list):
        is_flat = all(type(v) in (int, float) for v in outlines)
        if outlines and (is_flat or (len(outlines) > 2 and all(map(_is_point, outlines)))):
            outlines = [outlines]
        table["segmentation"] = [_outline(outline) for outline in outlines]
    return table


def _outline(outline: Any) -> NDArray[Any] | None:
    if isinstance(outline, list) and outline and all(map(_is_point, outline)):
        outline = [coordinate for point in outline for coordinate in point]
    return numbers(outline)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and [*map(type, value)] in _POINTS


def _image(path: Path, image: Mapping[str, Any]) -> CocoImage:
    height, width = number_of(image["height"]), number_of(image["width"])
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise ValueError(f"image {short(image['id'])} is {short(width)}x{short(height)}")
    if not isinstance(image["file_name"], str):
        raise ValueError(f"image {short(image['id'])} has no file name")
    return CocoImage(path, image["file_name"], (height, width), [])


def _image_id(value: Any) -> int | str:
    """3, 3.0 and "3" are one id: some tools write one in the images, the other in annotations."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return value
    try:
        return number_of(value)
    except ValueError:
        raise ValueError(f"an image has the id {short(value)}; it is a number or text") from None


def _masks(segmentations: list[Any], height: int, width: int) -> list[list[Counts]]:
    """The runs of each object; several if it has several outlines.

    Raises:
        ValueError: one is not as it should be, or all together would take minutes to paint.
    """
    masks = []
    outline_left, painted_left = float(_MOST_OUTLINE), _MOST_PAINTED
    for segmentation in segmentations:
        if isinstance(segmentation, dict):
            mask = [_runs(segmentation, height, width)]
        else:
            outlines = _outlines(segmentation, height, width)
            outline_left -= sum(_length(outline) + _EACH for outline in outlines)
            if outline_left < 0:
                raise ValueError(f"outlines so many or so long: over {_MOST_OUTLINE:,} pixels")
            mask = [_filled(outline, height, width) for outline in outlines]
        painted_left -= 1000 * _EACH + sum(int(_inner(counts).sum()) for counts in mask)
        if painted_left < 0:
            raise ValueError("objects so many or so large that they would take minutes to paint")
        masks.append(mask)
    return masks


def _runs(mask: Mapping[str, Any], height: int, width: int) -> Counts:
    """The counts of a run-length mask, compressed or not."""
    size, counts = mask.get("size"), mask.get("counts")
    if size != [height, width]:
        raise ValueError(f"a mask of size {short(size)}, where [{height}, {width}] fits")
    if isinstance(counts, str):
        if counts.startswith("b'") and counts.endswith("'"):  # as Python prints bytes
            counts = counts[2:-1].replace("\\\\", "\\")
        counts = _uncompressed(counts)
    if not isinstance(counts, np.ndarray) or counts.dtype.kind != "i":
        raise ValueError("a run-length mask without counts")
    if not counts.size or not 0 <= counts.min() <= counts.max() <= height * width:
        raise ValueError("a run-length mask with impossible counts")
    if counts.sum() != height * width:
        raise ValueError(f"a run-length mask of {counts.sum()} pixels, not {height * width}")
    return counts.astype(np.int64)


def _uncompressed(text: str) -> Counts:
    """Undo COCO's compression of counts: characters from "0" on, of 5 bits and "goes on" each."""
    codes = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 32 == 0)  # of each count
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if not codes.size or not last.size or last[-1] != codes.size - 1:
        raise ValueError("a run-length mask that is cut short")
    if codes.min() < 0 or codes.max() > 63 or lengths.max() > 6:
        raise ValueError("a run-length mask with impossible counts")
    shifts = 5 * (np.arange(codes.size) - np.repeat(first, lengths))
    counts: Counts = np.add.reduceat((codes & 31) << shifts, first)
    counts -= (codes[last] >> 4 & 1) << (5 * lengths)  # the highest bit is the sign
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts


def _outlines(segmentation: Any, height: int, width: int) -> list[NDArray[np.float64]]:
    """The outlines of an object, (N, 2) x and y each; those of one or two points are left out."""
    if not isinstance(segmentation, list):
        raise ValueError("an object without a mask")
    outlines = []
    for coordinates in segmentation:
        if coordinates is None or coordinates.size % 2:
            raise ValueError("an outline that is no list of x, y, x, y, ...")
        outline = coordinates.astype(np.float64).reshape(-1, 2)
        size = np.array([width, height])
        if not ((outline >= -size) & (outline <= 2 * size)).all():  # false for NaN too
            raise ValueError("an outline that runs far out of the image")
        if len(outline) >= 3:
            outlines.append(outline)
    if not outlines:
        raise ValueError("an object without a mask; a box alone does not do")
    return outlines


def _length(outline: NDArray[np.float64]) -> float:
    """In pixels."""
    return float(np.abs(outline - np.roll(outline, 1, 0)).max(1).sum())


def _filled(outline: NDArray[np.float64], height: int, width: int) -> Counts:
    """The runs of the pixels that COCO counts as within an outline."""
    from pycocotools import mask

    [filled] = mask.frPyObjects([outline.ravel()], height, width)
    return _uncompressed(filled["counts"].decode("ascii"))


def _paint(label: NDArray[np.uint8], counts: Counts, train_id: int) -> None:
    """Paint the runs inside of an object onto a label map that is laid out column by column."""
    runs = _inner(counts)
    inside = np.repeat(np.arange(runs.size) % 2 == 0, runs)
    start = int(counts[0])
    label[start : start + inside.size][inside] = train_id


def _inner(counts: Counts) -> Counts:
    """The runs of an object from the first to the last one inside."""
    return counts[1 : counts.size // 2 * 2]
