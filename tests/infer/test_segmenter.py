"""From photos to labels, with a bundle whose labels are known beforehand."""

import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atrous
from atrous.errors import InputError
from atrous.images.label_maps import read_label
from atrous.images.photos import write_image
from atrous.infer.ordered_map import in_order
from atrous.infer.runtimes.base import Labelled
from atrous.infer.segmenter import Outcome, Segmentation, Segmenter, load


@pytest.fixture
def segmenter(tiny_bundle: Path) -> Segmenter:
    return load(tiny_bundle, threads=1)


def test_labels_have_the_size_of_the_photo(segmenter: Segmenter, paint: np.ndarray) -> None:
    labels = segmenter(paint).labels
    assert labels.shape == (30, 41)
    assert (labels[:, :16] == 0).all()
    assert (labels[:, 16:28] == 1).all()
    assert (labels[:, 28:] == 2).all()
    assert np.array_equal(segmenter.predict(paint), labels)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4), (33, 17)])
def test_any_size(segmenter: Segmenter, size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    image[..., 1] = 255
    assert (segmenter(image).labels == np.ones(size)).all()


def test_file_pillow_image_and_array_are_the_same(
    segmenter: Segmenter, paint: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "paint.png"
    write_image(path, paint)
    from_array = segmenter(paint)
    for photo in (path, str(path), Image.fromarray(paint)):
        assert np.array_equal(segmenter(photo).labels, from_array.labels)
    assert segmenter(path).source == path


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4)),
        np.zeros((4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_photos_are_refused(segmenter: Segmenter, array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"where uint8 \(H, W, 3\) was expected"):
        segmenter(array)


def test_coverage_is_largest_first(segmenter: Segmenter, paint: np.ndarray) -> None:
    coverage = segmenter(paint).coverage()
    assert list(coverage.items()) == [("red", 16 / 41), ("blue", 13 / 41), ("green", 12 / 41)]


def test_save_writes_labels_overlay_and_numbers(
    segmenter: Segmenter, paint: np.ndarray, tmp_path: Path
) -> None:
    result = segmenter(paint)
    files = result.save(tmp_path / "out", "street")
    assert [file.name for file in files] == [
        "street.labels.png",
        "street.overlay.jpg",
        "street.json",
    ]
    assert sorted((tmp_path / "out").iterdir()) == sorted(files)
    assert np.array_equal(read_label(files[0]), result.labels)
    with Image.open(files[1]) as overlay:
        assert overlay.width > 41
    document = json.loads(files[2].read_text("utf-8"))
    assert document["size"] == [30, 41]
    assert document["model"] == "paint (fp32, onnxruntime, 1 thread)"
    assert document["classes"] == ["red", "green", "blue", "grey"]
    assert document["coverage"]["red"] == pytest.approx(16 / 41, abs=1e-6)


def test_stream_keeps_order_and_goes_on_after_a_bad_photo(
    segmenter: Segmenter, paint: np.ndarray, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(12)]
    for path in paths:
        write_image(path, paint)
    paths[3].write_text("hello")
    outcomes = list(segmenter.stream(paths))
    assert [path for path, _ in outcomes] == paths
    assert isinstance(outcomes[3][1], InputError)
    good = [result for _, result in outcomes if isinstance(result, Segmentation)]
    assert len(good) == 11
    assert all(result.labels.shape == (30, 41) for result in good)


def test_stream_can_be_left_early(segmenter: Segmenter, paint: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "paint.png"
    write_image(path, paint)
    taken: list[int] = []

    def endless():
        while True:
            taken.append(1)
            yield path

    stream = segmenter.stream(endless())
    next(stream)
    stream.close()
    assert len(taken) < 10


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_several_photos_at_a_time_give_what_one_gives(
    tiny_bundle: Path, tmp_path: Path, calls: int
) -> None:
    """Photos of many sizes, and damaged ones among them, in threads that all save their own."""
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.png" for index in range(20)]
    for path in paths:
        size = tuple(random.integers(1, 90, 2))
        write_image(path, random.integers(0, 256, (*size, 3), dtype=np.uint8))
    paths[7].write_bytes(paths[7].read_bytes()[:50])
    one, many = load(tiny_bundle, threads=1), load(tiny_bundle, threads=3, calls=calls)

    def save(outcome: Outcome) -> tuple[Path, int]:
        path, result = outcome
        if isinstance(result, InputError):
            return path, 0
        return path, len(result.save(tmp_path / "out"))

    assert list(many.map(save, paths)) == [(p, 0 if p == paths[7] else 3) for p in paths]
    for path in paths[:7] + paths[8:]:
        labels = read_label(tmp_path / "out" / f"{path.stem}.labels.png")
        assert np.array_equal(labels, one(path).labels)
    assert len(list((tmp_path / "out").iterdir())) == 3 * 19


def test_calls_are_no_more_than_threads(tiny_bundle: Path) -> None:
    assert load(tiny_bundle, threads=2, calls=4).calls == 2
    assert load(tiny_bundle, threads=1, calls=4).calls == 1


def test_only_so_many_calls_at_a_time(tiny_bundle: Path, paint: np.ndarray, tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(12)]
    for path in paths:
        write_image(path, paint)
    segmenter = load(tiny_bundle, threads=2, calls=2)
    under_way, most, lock, label = 0, 0, threading.Lock(), segmenter.label
    first = threading.Barrier(2, timeout=300)  # two at a time there are
    numbers = itertools.count()

    def watched(images: np.ndarray, *, with_confidence: bool) -> Labelled:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
            number = next(numbers)
        if number < 2:  # later pairs could wait for photos that are only submitted after them
            first.wait()
        time.sleep(0.005)  # in which a third would come
        labels = label(images, with_confidence=with_confidence)
        with lock:
            under_way -= 1
        return labels

    segmenter.label = watched
    assert len(list(segmenter.stream(paths))) == 12
    assert most == 2


def test_an_overlay_too_long_for_a_jpeg_is_a_png(segmenter: Segmenter, tmp_path: Path) -> None:
    image = np.zeros((1, 65_500, 3), np.uint8)
    files = segmenter(image).save(tmp_path, "long")
    assert files[1].name == "long.overlay.png"
    with Image.open(files[1]) as overlay:
        assert overlay.width > 65_500


def test_in_order_bounds_what_is_under_way() -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def task(item: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.001 * (item % 3))
        with lock:
            under_way -= 1
        return item

    with ThreadPoolExecutor(8) as executor:
        assert list(in_order(executor, task, range(40), ahead=2)) == list(range(40))
    assert most <= 3


def test_public_names_load_lazily(tiny_bundle: Path, paint: np.ndarray) -> None:
    segment = atrous.load(tiny_bundle)
    assert isinstance(segment(paint), atrous.Segmentation)
    assert isinstance(segment, atrous.Segmenter)
    assert set(atrous.__all__) <= set(dir(atrous))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = atrous.nonsense
