"""Files of `--write`: read back by other programs, they have the labels of the photo."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from color_bundle import TAXONOMY
from geotiff import write_tiff
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools.coco import COCO
from rasterio.features import rasterize
from rasterio.transform import from_origin

from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.images.label_maps import read_label
from atrous.images.photos import write_image
from atrous.infer.outputs import KINDS
from atrous.infer.raster.segment import segment_raster
from atrous.infer.result import Segmentation
from atrous.infer.segmenter import load

IGNORED = 255
LABELS = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: arrays(np.uint8, size, elements=st.sampled_from([0, 0, 0, 1, 3, IGNORED]))
)
few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def result_of(labels: np.ndarray, **fields: Any) -> Segmentation:
    image = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), np.uint8)
    return Segmentation(
        image=image, labels=labels, taxonomy=TAXONOMY, seconds=0, model="none", **fields
    )


def from_geojson(path: Path, size: tuple[int, int], transform: Any = None) -> np.ndarray:
    document = json.loads(path.read_text("utf-8"))
    polygons = [shapely.geometry.shape(feature["geometry"]) for feature in document["features"]]
    assert shapely.is_valid(polygons).all() and all(p.exterior.is_ccw for p in polygons)
    for feature in document["features"]:
        properties = feature["properties"]
        assert properties["class"] == TAXONOMY.classes[properties["train_id"]]
    if not polygons:
        return np.full(size, IGNORED, np.uint8)
    ids = [feature["properties"]["train_id"] for feature in document["features"]]
    place = {} if transform is None else {"transform": transform}
    return rasterize(zip(polygons, ids, strict=True), size, fill=IGNORED, dtype="uint8", **place)


def from_coco(path: Path, size: tuple[int, int]) -> np.ndarray:
    coco = COCO(path)
    label = np.full(size, IGNORED, np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        inside = coco.annToMask(annotation) > 0
        assert inside.sum() == annotation["area"]
        name = coco.cats[annotation["category_id"]]["name"]
        label[inside] = TAXONOMY.classes.index(name)
    return label


@few
@given(LABELS)
def test_no_pixel_is_lost(tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("outputs")
    result = result_of(labels)
    write_image(folder / "a.png", result.image)
    files = result.save(folder, "a", ("polygons", "rle", "masks", "cutouts"))
    assert np.array_equal(from_geojson(files[0], labels.shape), labels)
    assert np.array_equal(from_coco(files[1], labels.shape), labels)
    shown = [TAXONOMY.classes[i] for i in np.unique(labels) if i != IGNORED]
    assert [path.stem for path in files[2:]] == 2 * shown
    for path in files[2 + len(shown) :]:
        cutout = np.asarray(Image.open(path))  # (H, W, 4)
        inside = labels == TAXONOMY.classes.index(path.stem)
        assert np.array_equal(cutout[..., 3], np.where(inside, 255, 0))
        assert np.array_equal(cutout[..., :3], result.image * inside[..., None])
    if shown:
        (folder / "dataset.toml").write_text(
            f'[labels]\nencoding = "binary-masks"\nclasses = {json.dumps(TAXONOMY.classes)}\n'
            '[splits.val]\nimages = "{key}.png"\nlabels = "{key}.masks/{class}.png"\nlist = "l.txt"'
        )
        (folder / "l.txt").write_text("a\n")
        assert np.array_equal(Dataset.open(folder).split("val").label(0), labels)


def test_masks_of_an_earlier_call_are_removed(tmp_path: Path) -> None:
    result_of(np.array([[0, 1]], np.uint8)).save(tmp_path, "a", ["masks"])
    (tmp_path / "a.masks/mine.png").touch()
    result_of(np.array([[0, 2]], np.uint8)).save(tmp_path, "a", ["masks"])
    names = sorted(path.name for path in (tmp_path / "a.masks").iterdir())
    assert names == ["blue.png", "mine.png", "red.png"]


def test_confidence_is_the_probability_of_the_label(
    tiny_bundle: Path, paint: np.ndarray, tmp_path: Path
) -> None:
    segmenter = load(tiny_bundle, threads=1, with_confidence=True)
    image = np.clip(paint.astype(int) + np.arange(41)[:, None], 0, 255).astype(np.uint8)
    result = segmenter(image)
    labels, sure = segmenter.predict_with_confidence(image)
    assert np.array_equal(result.labels, labels)
    [path] = result.save(tmp_path, "a", ["confidence"])
    assert np.array_equal(read_label(path), np.rint(255 * sure))
    with pytest.raises(InputError, match="with_confidence=True"):
        load(tiny_bundle, threads=1)(image).save(tmp_path, "a", ["confidence"])


def test_kinds_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write svg: no file; take labels, overlay, json, conf"):
        result_of(np.zeros((2, 2), np.uint8)).save(tmp_path, "a", ["svg"])  # type: ignore[list-item]
    assert not [*tmp_path.iterdir()]


def test_a_raster_keeps_its_coordinates(tiny_bundle: Path, tmp_path: Path) -> None:
    segmenter = load(tiny_bundle, threads=2, tile=128, with_confidence=True)
    image = np.zeros((150, 300, 3), np.uint8)
    image[..., 0] = 255
    image[40:90, 100:220] = [0, 0, 255]
    image[60:70, 110:120] = [0, 255, 0]
    image[:7] = 9  # no data
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 0.5, 0.5)}
    path = write_tiff(tmp_path / "field.tif", image, nodata=9, **place)
    kinds = ("polygons", "confidence", "labels")
    _, files = segment_raster(segmenter, path, tmp_path / "out/field", write=kinds)
    assert [file.name for file in files] == [
        "field.polygons.geojson",
        "field.confidence.tif",
        "field.labels.tif",
    ]
    with rasterio.open(files[2]) as file:
        labels = file.read(1)
    assert (labels[:7] == IGNORED).all() and {0, 1, 2} <= set(np.unique(labels).tolist())
    document = json.loads(files[0].read_text("utf-8"))
    assert document["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32632"
    assert np.array_equal(from_geojson(files[0], labels.shape, place["transform"]), labels)
    with rasterio.open(files[1]) as file:
        sure = file.read(1)
        assert (file.crs, file.transform, file.nodata) == (*place.values(), 0)
    expected = np.rint(255 * segmenter.predict_with_confidence(image)[1])
    assert np.array_equal(sure, np.where(labels == IGNORED, 0, expected))
    before = sorted((tmp_path / "out").iterdir())
    [only] = segment_raster(segmenter, path, tmp_path / "b/field", write=["polygons"])[1]
    assert sorted((tmp_path / "out").iterdir()) == before
    assert [*(tmp_path / "b").iterdir()] == [only]
    assert only.read_bytes() == files[0].read_bytes()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_in_degrees_or_without_coordinates(tiny_bundle: Path, tmp_path: Path) -> None:
    segmenter = load(tiny_bundle, threads=1)
    image = np.zeros((8, 12, 3), np.uint8)
    degrees = {"crs": "EPSG:4326", "transform": from_origin(9, 48, 0.01, 0.01)}
    for name, place in (("a", degrees), ("b", {})):
        path = write_tiff(tmp_path / f"{name}.tif", image, **place)
        [file] = segment_raster(segmenter, path, tmp_path / name, write=["polygons"])[1]
        document = json.loads(file.read_text("utf-8"))
        assert "crs" not in document
        bounds = shapely.geometry.shape(document["features"][0]["geometry"]).bounds
        assert np.allclose(bounds, (9, 47.92, 9.12, 48) if place else (0, 0, 12, 8))


def test_kinds_that_rasters_have_not(tiny_bundle: Path, tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((8, 12, 3), np.uint8))
    with pytest.raises(InputError, match=r"a\.tif: write masks: no file of a raster; take labels"):
        segment_raster(load(tiny_bundle, threads=1), path, tmp_path / "a", write=KINDS[-1:])
