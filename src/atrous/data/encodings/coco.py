"""COCO's instances and stuff JSON: outlines and run-length masks of objects -> train ids.

A run-length mask counts pixels column by column from the top left: so many outside of the object,
so many inside, and so on. Compressed, each count is a few characters of 5 bits, from the third on
as the difference to the count before the last. Counts are decoded here, because the C code of
pycocotools trusts them; outlines are checked here and filled there, so that they cover the very
pixels that COCO's own tools count.

The JSON is read once. Coordinates and counts are kept as arrays, a fifth of the memory of lists.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from atrous.data.encodings.masks import Encoding
from atrous.decode import read_json
from atrous.errors import InputError, named
from atrous.images.photos import MAX_PIXELS
from atrous.metrics.segments import check_once

Counts = NDArray[np.int64]
"""Lengths of runs outside, inside, outside, ... of an object; their sum is H * W."""

_MOST_PAINTED = 40 * MAX_PIXELS
_MOST_OUTLINE = 4_000_000
_FIX = "is it a COCO JSON?"
_DIGITS = re.compile("0|[1-9][0-9]{0,17}")
_POINTS = [[a, b] for a in (int, float) for b in (int, float)]
_EACH = 40  # overhead of an outline in pixels of its length, of an object in 1000 pixels painted


class Mask:
    """The mask of one object as the JSON has it, lists of numbers as arrays; checked when drawn.

    Some tools write one outline without the list around it, or points as pairs: x and y.
    """

    def __init__(self, segmentation: Any):
        self.size = self.counts = self.outlines = None
        if isinstance(segmentation, dict):  # run lengths, perhaps compressed to text
            self.size, counts = segmentation.get("size"), segmentation.get("counts")
            self.counts = _numbers(counts) if isinstance(counts, list) else counts
        elif isinstance(segmentation, list):
            is_flat = all(type(v) in (int, float) for v in segmentation)
            is_points = len(segmentation) > 2 and all(map(_is_point, segmentation))
            outlines = [segmentation] if segmentation and (is_flat or is_points) else segmentation
            self.outlines = [_outline(outline) for outline in outlines]


@dataclass(frozen=True, eq=False)
class CocoImage:
    """One image of a COCO JSON."""

    path: Path
    """The JSON."""
    file_name: str
    size: tuple[int, int]
    """(height, width)."""
    objects: list[tuple[int, Mask]]
    """Category id and mask of each."""


class _Image(msgspec.Struct):
    id: int | str
    file_name: str
    height: Annotated[int, Meta(gt=0)]
    width: Annotated[int, Meta(gt=0)]

    def __post_init__(self) -> None:
        if self.height * self.width > MAX_PIXELS:
            raise ValueError(f"an image of {short(self.width)}x{short(self.height)}")


class _Annotation(msgspec.Struct):
    image_id: int | str
    category_id: int
    segmentation: Mask | None = None


class _Category(msgspec.Struct):
    id: int


class _Document(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_instances(path: Path) -> list[CocoImage]:
    """Read and check a COCO JSON of instances or stuff; the masks are checked when drawn."""
    document = read_json(path, _Document, _FIX, hook=lambda _, value: Mask(value), strict=False)
    categories = {category.id for category in document.categories}
    # 3 and "3" are one id: some tools write one in the images, the other in annotations.
    images = {
        str(image.id): CocoImage(path, image.file_name, (image.height, image.width), [])
        for image in document.images
    }
    with named(path, _FIX):
        check_once("two images have the id", [str(image.id) for image in document.images])
        check_once("two images have the file_name", [image.file_name for image in document.images])
        for annotation in document.annotations:
            if annotation.category_id not in categories:
                raise InputError(f"category {annotation.category_id} is not among its categories")
            if (image := images.get(str(annotation.image_id))) is None:
                raise InputError(f"image {short(annotation.image_id)} is not among its images")
            image.objects.append((annotation.category_id, annotation.segmentation or Mask(None)))
    return list(images.values())


def draw(image: CocoImage, encoding: Encoding) -> NDArray[np.uint8]:
    """Paint the objects of an image, the largest first: (H, W) train ids."""
    height, width = image.size
    train_ids = [encoding.train_id(category_id, _where(image)) for category_id, _ in image.objects]
    masks = _checked_masks(image)
    areas = [_area(mask) for mask in masks]
    label = np.full(height * width, encoding.background, np.uint8)  # column by column
    for i in sorted(range(len(masks)), key=lambda i: -areas[i]):
        for counts in masks[i]:
            runs = _inner(counts)
            inside = np.repeat(np.arange(runs.size) % 2 == 0, runs)
            label[counts[0] : counts[0] + inside.size][inside] = train_ids[i]
    return np.ascontiguousarray(label.reshape(width, height).T)


def empty_objects(image: CocoImage) -> list[int]:
    """Return the categories of the objects whose masks cover no pixel."""
    both = zip(image.objects, _checked_masks(image), strict=True)
    return [category_id for (category_id, _), mask in both if not _area(mask)]


def number_of(value: Any) -> int:
    """Return an integer that some tools write as 3.0 or "3"; refuse others by a ValueError."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    if type(value) is not int:  # True is one, too
        raise ValueError(f"{short(value)} where an integer was expected")
    return value


def _where(image: CocoImage) -> str:
    return f"{image.path}: image {short(image.file_name)}"


def _checked_masks(image: CocoImage) -> list[list[Counts]]:
    with named(_where(image), "export the annotations again"):
        return _masks(image.objects, *image.size)


def _area(mask: list[Counts]) -> int:
    return sum(int(counts[1::2].sum()) for counts in mask)


def _outline(outline: Any) -> NDArray[Any] | None:
    if isinstance(outline, list) and outline and all(map(_is_point, outline)):
        outline = [coordinate for point in outline for coordinate in point]
    return _numbers(outline)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and [*map(type, value)] in _POINTS


def _numbers(values: Any) -> NDArray[Any] | None:
    """Return a flat list of numbers as an array (N,); None if it is no such list."""
    # Types come first: beside one long text numpy would make room for all to be as long.
    if not isinstance(values, list) or not {*map(type, values)} <= {int, float}:
        return None
    try:
        array = np.array(values)
    except OverflowError:
        return None
    return array if array.dtype.kind in "iuf" else None


def _masks(objects: list[tuple[int, Mask]], height: int, width: int) -> list[list[Counts]]:
    """Return the runs of each object, one for each of its outlines.

    A wrong mask, or masks that would take minutes to paint, are refused by a ValueError.
    """
    masks = []
    outline_left, painted_left = float(_MOST_OUTLINE), _MOST_PAINTED
    for _, mask in objects:
        if mask.size is not None:
            runs = [_runs(mask, height, width)]
        else:
            outlines = _outlines(mask, height, width)
            lengths = (np.abs(o - np.roll(o, 1, 0)).max(1).sum() for o in outlines)  # in pixels
            outline_left -= sum(length + _EACH for length in lengths)
            if outline_left < 0:
                raise ValueError(f"outlines so many or so long: over {_MOST_OUTLINE:,} pixels")
            runs = [_filled(outline, height, width) for outline in outlines]
        painted_left -= 1000 * _EACH + sum(int(_inner(counts).sum()) for counts in runs)
        if painted_left < 0:
            raise ValueError("objects so many or so large that they would take minutes to paint")
        masks.append(runs)
    return masks


def _runs(mask: Mask, height: int, width: int) -> Counts:
    """Return the counts of a run-length mask, compressed or not."""
    size, counts = mask.size, mask.counts
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


def _outlines(mask: Mask, height: int, width: int) -> list[NDArray[np.float64]]:
    """Return the outlines of an object, (N, 2) x and y each; drop those of fewer than 3 points."""
    if mask.outlines is None:
        raise ValueError("an object without a mask")
    outlines = []
    for coordinates in mask.outlines:
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


def _filled(outline: NDArray[np.float64], height: int, width: int) -> Counts:
    """Return the runs of the pixels that COCO counts as within an outline."""
    from pycocotools import mask

    [filled] = mask.frPyObjects([outline.ravel()], height, width)
    return _uncompressed(filled["counts"].decode("ascii"))


def _inner(counts: Counts) -> Counts:
    """Return the runs of an object from the first to the last one inside."""
    return counts[1 : counts.size // 2 * 2]
