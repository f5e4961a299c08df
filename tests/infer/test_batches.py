"""Batches on the CPU: a runtime that takes several images, as those on a GPU do."""

import itertools
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from atrous.errors import InputError
from atrous.evaluation.score import Tally, count, predict_batches
from atrous.images.photos import write_image
from atrous.infer.batches import label_stream
from atrous.infer.result import Segmentation
from atrous.infer.runtimes.onnx import OnnxRuntime
from atrous.infer.segmenter import Outcome, Segmenter
from atrous.infer.tiling import TiledRuntime
from atrous.infer.tta import AugmentedRuntime
from atrous.infer.video.frames import Frame
from atrous.metrics import Confusion

FULL = 8


class Batched(OnnxRuntime):
    """Takes up to FULL images at a time: fewer of large ones."""

    def __init__(self, path: Path):
        super().__init__(path, threads=3)
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.shapes.append(images.shape)
        return super().__call__(images)

    def batch_size(self, size: tuple[int, int]) -> int:
        return FULL if size[0] * size[1] < 10_000 else 2


@pytest.fixture
def runtime(tiny_bundle: Path) -> Batched:
    return Batched(tiny_bundle)


@pytest.fixture
def plain(tiny_bundle: Path) -> Segmenter:
    return Segmenter(OnnxRuntime(tiny_bundle, threads=1))


def photos(folder: Path, sizes: list[tuple[int, int]]) -> list[Path]:
    """Write photos of these sizes."""
    random = np.random.default_rng(0)
    paths = [folder / f"{index}.png" for index in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        write_image(path, random.integers(0, 256, (*size, 3), dtype=np.uint8))
    return paths


def test_a_stream_is_labelled_in_full_batches(
    runtime: Batched, plain: Segmenter, tmp_path: Path
) -> None:
    sizes = [(20, 30)] * 10 + [(31, 17)] * 3 + [(20, 30)] + [(100, 101)] * 3
    paths = photos(tmp_path, sizes)
    segmenter = Segmenter(runtime)
    outcomes = list(segmenter.stream(paths))
    assert [path for path, _ in outcomes] == paths
    for path, result in outcomes:
        assert isinstance(result, Segmentation)
        assert np.array_equal(result.labels, plain(path).labels)
        assert result.source == path and result.seconds > 0
    assert runtime.shapes == [
        (FULL, 20, 30, 3),
        (FULL, 20, 30, 3),  # two photos, padded
        (FULL, 31, 17, 3),
        (1, 20, 30, 3),  # too few to pad
        (2, 100, 101, 3),
        (2, 100, 101, 3),
    ]


def test_errors_stay_with_their_photos(runtime: Batched, plain: Segmenter, tmp_path: Path) -> None:
    paths = photos(tmp_path, [(20, 30)] * 12)
    for damaged in (0, 5, 6, 11):
        paths[damaged].write_text("hello")

    def save(outcome: Outcome) -> tuple[Path, str | np.ndarray]:
        path, result = outcome
        return path, str(result) if isinstance(result, InputError) else result.labels

    saved = list(Segmenter(runtime).map(save, paths))
    assert [path for path, _ in saved] == paths
    for index, (path, result) in enumerate(saved):
        if index in (0, 5, 6, 11):
            assert isinstance(result, str) and result.startswith(f"{path}: ")
            assert result.count(str(path)) == 1
        else:
            assert np.array_equal(result, plain(path).labels)


def test_an_error_of_the_network_names_each_photo(
    runtime: Batched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = photos(tmp_path, [(20, 30)] * 4)

    def fail(*_: object, **__: object) -> None:
        raise InputError("no memory; take smaller photos")

    segmenter = Segmenter(runtime)
    monkeypatch.setattr(segmenter, "label", fail)
    outcomes = list(segmenter.stream(paths))
    assert [str(e) for _, e in outcomes] == [f"{p}: no memory; take smaller photos" for p in paths]


def test_a_stream_can_be_left_early(runtime: Batched, tmp_path: Path) -> None:
    [path] = photos(tmp_path, [(20, 30)])
    taken: list[int] = []

    def endless():
        while True:
            taken.append(1)
            yield path

    stream = Segmenter(runtime).stream(endless())
    next(stream)
    stream.close()
    assert len(taken) < 10 * FULL


def test_large_photos_are_not_read_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrous.infer.batches._PIXELS_AHEAD", 4000)
    taken, seen = [], []

    def items():
        for index in range(60):
            taken.append(index)
            yield index

    stream = label_stream(
        items(),
        lambda index: np.zeros((50, 40, 3), np.uint8),
        lambda image: image,
        lambda images: (images[..., 0], None),
        lambda size: 20 if size == (1, 1) else 1,
        threads=2,
    )
    for index, (image, result, _) in enumerate(stream):
        assert not isinstance(result, InputError) and result[0].shape == image.shape[:2]
        seen.append(len(taken) - index)
    assert len(seen) == 60
    assert max(seen[45:]) <= 8  # before the first size is known, more are taken


@pytest.mark.parametrize("live", [False, True])
def test_frames_of_a_video(runtime: Batched, paint: np.ndarray, live: bool) -> None:
    def frames():
        for index in range(11):
            yield Frame(np.roll(paint, index, axis=1), Fraction(index, 25))
        raise InputError("cut off")

    results, segmenter = [], Segmenter(runtime)
    with pytest.raises(InputError, match=r"^cut off$"):
        for result in segmenter.map_frames(lambda frame: frame, frames(), live=live):
            results.append(result)
    assert [result.time for result in results] == [Fraction(index, 25) for index in range(11)]
    for index, result in enumerate(results):
        image = np.roll(paint, index, axis=1)
        assert np.array_equal(result.labels, segmenter.predict(image))
    assert (runtime.shapes[0] == (1, *paint.shape)) == live
    if not live:
        assert runtime.shapes[:2] == [(FULL, *paint.shape)] * 2  # the other three are padded


def test_a_live_frame_does_not_wait_for_the_next_one(runtime: Batched, paint: np.ndarray) -> None:
    """The source gives a frame only after the one before the last was labelled."""
    labelled: list[int] = []

    def frames():
        for index in range(8):
            assert len(labelled) >= index - 3
            yield Frame(paint, Fraction(index))

    def label(result: Segmentation) -> None:
        labelled.append(1)

    assert len(list(Segmenter(runtime).map_frames(label, frames(), live=True))) == 8


def samples_of(sizes: list[tuple[int, int]]) -> list[SimpleNamespace]:
    random = np.random.default_rng(1)
    samples = []
    for index, size in enumerate(sizes):
        image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        label = random.integers(0, 4, size, dtype=np.uint8)
        samples.append(SimpleNamespace(key=str(index), image=image, label=label))
    return samples


@pytest.mark.parametrize("with_confidence", [False, True])
def test_scores_are_those_of_single_images(
    runtime: Batched, plain: Segmenter, with_confidence: bool
) -> None:
    samples = samples_of([(20, 30)] * 9 + [(9, 7)] * 5)
    segmenter = Segmenter(runtime)

    def label(images: np.ndarray):
        return segmenter.label(images, with_confidence=with_confidence)

    found = list(predict_batches(label, segmenter.batch_size, samples, range(1, 14)))
    assert [each.key for each in found] == [str(index) for index in range(1, 14)]
    for each, sample in zip(found, samples[1:], strict=True):
        labels, confidence = plain.predict_with_confidence(sample.image)
        assert np.array_equal(each.prediction, labels)
        assert each.label is sample.label
        if with_confidence:
            assert np.array_equal(each.confidence, confidence)
        else:
            assert each.confidence is None
    assert {shape[0] for shape in runtime.shapes} == {FULL}
    tally = Tally(Confusion(4))
    count(found, tally, len(found))
    assert tally.confusion.keys == [each.key for each in found]


def test_an_error_names_the_sample(runtime: Batched) -> None:
    samples = samples_of([(20, 30)] * 3)
    samples[1].image = samples[1].image[..., :2]
    segmenter = Segmenter(runtime)
    with pytest.raises(InputError, match=r"^1: 2 bands, where paint takes 3"):
        list(predict_batches(segmenter.label, segmenter.batch_size, samples, range(3)))


def test_who_takes_batches(runtime: Batched) -> None:
    size = (20, 30)
    assert runtime.batch_size(size) == TiledRuntime(runtime).batch_size(size) == FULL
    assert TiledRuntime(runtime).batch_size((4096, 4096)) == 1
    assert TiledRuntime(runtime, 128).batch_size(size) == 1
    assert AugmentedRuntime(runtime, flip=True).batch_size(size) == 1
    assert OnnxRuntime(runtime.path, 1).batch_size(size) == 1


def test_whole_images_go_to_the_runtime_that_labels(runtime: Batched, paint: np.ndarray) -> None:
    """Only tiles and views take its logits."""

    class OnDevice(Batched):
        def label(self, images: np.ndarray, *_: object, **__: object):
            return np.full(images.shape[:3], 77, np.uint8), None

    inner = OnDevice(runtime.path)
    large = np.zeros((130, 140, 3), np.uint8)
    for wrapped, image, whole in itertools.chain(
        ((inner, paint, True), (TiledRuntime(inner), paint, True)),
        ((TiledRuntime(inner, 128), large, False), (AugmentedRuntime(inner, True), paint, False)),
    ):
        assert (Segmenter(wrapped).predict(image) == 77).all() == whole
