"""Label maps to polygons, exactly: rings along the edges of pixels.

Coordinates are x and y in pixels from the upper left corner of the image, whose first pixel covers
(0, 0) to (1, 1). A polygon surrounds one region, pixels of a class that touch by their sides, with
a ring for each hole. GDAL traces the rings (rasterio), GEOS simplifies them (shapely): the extra
"polygons".
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.taxonomy import IGNORE_INDEX

Points = NDArray[np.float64]
"""(N, 2), x and y."""


class Region(NamedTuple):
    """Pixels of one class that touch by their sides."""

    train_id: int
    polygon: Any
    """A shapely Polygon."""


class Ring(NamedTuple):
    """A polygon in one ring: to each hole leads a cut, there and back."""

    edges: Points
    """Along the edges of pixels, as COCO fills an outline."""
    centres: Points
    """Through the outermost pixels, as LabelMe, YOLO and OpenCV fill one: outline included. Both
    the integer part of a coordinate and the nearest integer are the pixel's number."""


def regions_of(labels: NDArray[np.integer[Any]], tolerance: float = 0) -> list[Region]:
    """Return the regions of a label map (H, W) without its ignored pixels.

    Args:
        labels: train ids.
        tolerance: 0 keeps each pixel. Otherwise a vertex goes where this changes an area by less
            than about the square of this many pixels (Visvalingam and Whyatt 1993); neighbours keep
            their common border, without gaps and overlaps, and no region vanishes.
    """
    import shapely
    from rasterio.features import shapes

    traced = [
        (int(value), shapely.geometry.shape(outline))
        for outline, value in shapes(labels, connectivity=4)
        if value != IGNORE_INDEX
    ]
    polygons = np.array([polygon for _, polygon in traced], object)
    if tolerance:
        # Neighbours share their borders only if both have a vertex wherever a third one begins.
        dense = shapely.transform(shapely.segmentize(polygons, 1), np.rint)
        polygons = shapely.coverage_simplify(dense, tolerance)
    polygons = shapely.orient_polygons(polygons)
    return [Region(train_id, p) for (train_id, _), p in zip(traced, polygons, strict=True)]


def cut_open(polygon: Any) -> Ring:
    """Return a polygon of `regions_of` in one ring."""
    rings = [_both(np.asarray(ring.coords)[:-1]) for ring in (polygon.exterior, *polygon.interiors)]
    outer, *holes = rings
    for hole in sorted(holes, key=lambda hole: hole[:, 0].min()):
        outer = _joined(outer, hole)
    edges = outer[:, :2]
    return Ring(edges[(edges != np.roll(edges, 1, 0)).any(1)], outer[:, 2:])


def _both(edges: Points) -> NDArray[np.float64]:
    """Return each vertex of a ring, the polygon to the left of its way, in both kinds, (N, 4)."""
    ahead = np.sign(np.roll(edges, -1, 0) - edges)  # (N, 2): the way on
    if not ((ahead != 0).sum(1) == 1).all():  # simplified
        return np.hstack([edges, np.maximum(edges - 0.5, 0)])
    behind = np.roll(ahead, 1, 0)
    inward, inward_behind = (np.stack([-way[:, 1], way[:, 0]], 1) for way in (ahead, behind))
    hollow = (inward_behind * ahead).sum(1) < 0  # the pixel across the corner may be no part of it
    arrived = np.where(hollow[:, None], inward_behind - behind, inward_behind + inward) / 2
    to_centres = np.stack([arrived, (inward + ahead) / 2], 1)  # (N, 2, 2)
    used = np.stack([np.ones_like(hollow), hollow], 1)  # (N, 2)
    corners = np.repeat(edges[:, None], 2, 1)[used]
    # 0.05 or 0.45 more than the pixel's number: even one pixel has an area.
    centres = np.round(corners + 0.6 * to_centres[used] - 0.25, 2)
    return np.hstack([corners, centres])


def _joined(ring: NDArray[np.float64], hole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Insert a hole into a ring, both (N, 4): by a cut from its left side to what lies there."""
    after = np.roll(hole, -1, 0)
    sloping = np.flatnonzero(hole[:, 1] != after[:, 1])
    i = sloping[(hole + after)[sloping, 0].argmin()]
    low, high = sorted((hole[i, 1], after[i, 1]))
    y = low + min(0.5, (high - low) / 2)  # along the centres of a row of pixels
    inner = _at(hole[i], after[i], y)
    after = np.roll(ring, -1, 0)
    crossing = np.flatnonzero((ring[:, 1] > y) != (after[:, 1] > y))
    cuts = _at(ring[crossing], after[crossing], y)
    left = np.where(cuts[:, 0] <= inner[0], cuts[:, 0], -np.inf).argmax()
    j, outer = crossing[left] + 1, cuts[left]
    return np.vstack([ring[:j], outer, inner, hole[i + 1 :], hole[: i + 1], inner, outer, ring[j:]])


def _at(start: NDArray[np.float64], end: NDArray[np.float64], y: float) -> NDArray[np.float64]:
    """Return the points (..., 4) of sides at the height `y`."""
    way = end - start
    points: NDArray[np.float64] = start + way * ((y - start[..., 1]) / way[..., 1])[..., None]
    points[..., 1], points[..., 3] = y, y - 0.25
    return points
