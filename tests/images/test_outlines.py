"""Polygons give back their pixels, by the rule of each program that fills them."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from rasterio.features import rasterize

from atrous.images.outlines import Points, Region, cut_open, regions_of

IGNORED = 255
LABELS = st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(
    lambda size: arrays(np.uint8, size, elements=st.sampled_from([0, 0, 0, 1, 2, IGNORED]))
)
"""Holes, corners that touch, single pixels, ignored ones."""
many = settings(max_examples=300, deadline=None)


def by_pillow(region: Region, size: tuple[int, int]) -> np.ndarray:
    """As LabelMe fills a polygon."""
    return pillow_polygon(cut_open(region.polygon).centres, size)


def by_rounding(region: Region, size: tuple[int, int]) -> np.ndarray:
    """As our reader of YOLO's files does."""
    return pillow_polygon(np.round(cut_open(region.polygon).centres), size)


def pillow_polygon(points: Points, size: tuple[int, int]) -> np.ndarray:
    picture = Image.new("1", size[::-1])
    ImageDraw.Draw(picture).polygon(points.ravel().tolist(), 1, 1)
    return np.array(picture)


def by_coco(region: Region, size: tuple[int, int]) -> np.ndarray:
    """As pycocotools fills an outline."""
    outline = cut_open(region.polygon).edges.ravel().tolist()
    return coco_mask.decode(coco_mask.frPyObjects([outline], *size))[..., 0] > 0


def by_gdal(region: Region, size: tuple[int, int]) -> np.ndarray:
    """As a polygon with holes, by the centres of pixels."""
    return rasterize([region.polygon], size) > 0


def filled(
    regions: Iterable[Region], size: tuple[int, int], fill: Callable[..., np.ndarray]
) -> np.ndarray:
    label = np.full(size, IGNORED, np.uint8)
    for region in regions:
        inside = fill(region, size)
        assert (label[inside] == IGNORED).all()  # no pixel has two regions
        label[inside] = region.train_id
    return label


@many
@given(LABELS)
@pytest.mark.parametrize("fill", [by_pillow, by_rounding, by_coco, by_gdal])
def test_no_pixel_is_lost(fill: Callable[..., np.ndarray], label: np.ndarray) -> None:
    regions = regions_of(label)
    assert all(region.polygon.is_valid for region in regions)
    assert sum(region.polygon.area for region in regions) == (label != IGNORED).sum()
    assert np.array_equal(filled(regions, label.shape, fill), label)


@pytest.mark.parametrize("fill", [by_pillow, by_rounding, by_coco, by_gdal])
def test_a_sponge(fill: Callable[..., np.ndarray]) -> None:
    noise = np.random.default_rng(0).random((60, 80))
    label = np.where(noise < 0.2, 1, np.where(noise < 0.3, IGNORED, 0)).astype(np.uint8)
    regions = regions_of(label)
    assert max(len(region.polygon.interiors) for region in regions) > 150
    assert np.array_equal(filled(regions, label.shape, fill), label)


def test_a_ring_of_pixels_has_one_hole() -> None:
    label = np.zeros((3, 3), np.uint8)
    label[1, 1] = IGNORED
    [region] = regions_of(label)
    assert region.polygon.equals(shapely.box(0, 0, 3, 3).difference(shapely.box(1, 1, 2, 2)))
    assert region.polygon.exterior.is_ccw and not region.polygon.interiors[0].is_ccw


def test_one_pixel_keeps_an_area() -> None:
    label = np.full((4, 4), IGNORED, np.uint8)
    label[2, 1] = 3
    ring = cut_open(regions_of(label)[0].polygon)
    assert sorted(map(tuple, ring.edges.tolist())) == [(1, 2), (1, 3), (2, 2), (2, 3)]
    assert shapely.Polygon(ring.centres).equals(shapely.box(1.05, 2.05, 1.45, 2.45))


@settings(max_examples=200, deadline=None)
@given(LABELS, st.sampled_from([0.6, 1.0, 4.0]))
def test_simplified_regions_keep_their_borders_common(label: np.ndarray, tolerance: float) -> None:
    exact, simple = regions_of(label), regions_of(label, tolerance)
    assert [region.train_id for region in exact] == [region.train_id for region in simple]
    polygons = np.array([region.polygon for region in simple], object)
    assert shapely.is_valid(polygons).all() and (shapely.area(polygons) > 0).all()
    assert shapely.coverage_is_valid(polygons)
    for region in simple:
        assert np.isfinite(cut_open(region.polygon).edges).all()


def test_simplifying_smooths_a_staircase() -> None:
    label = np.tri(40, dtype=np.uint8)
    exact, simple = (
        sum(len(region.polygon.exterior.coords) for region in regions_of(label, tolerance))
        for tolerance in (0, 1.5)
    )
    assert exact > 150 and simple <= 12
    inside = filled(regions_of(label, 1.5), label.shape, by_gdal) == label
    assert inside.mean() > 0.97
