"""Predictions beside truth: from a model, from files, and as segments."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from panoptic_data import CATEGORIES, PANOPTIC, write_panoptic_data

from atrous.data.dataset import Dataset
from atrous.data.encodings.panoptic import evaluate_panoptic_files, write_panoptic
from atrous.data.shapes import TAXONOMY, write_shapes
from atrous.errors import InputError
from atrous.evaluation.panoptic import evaluate_panoptic
from atrous.evaluation.predictions import find_predictions, read_predictions
from atrous.evaluation.score import Predicted, Tally, count, count_samples
from atrous.images.label_maps import write_label
from atrous.images.photos import write_image
from atrous.metrics import Boundary, Calibration, Confusion, Panoptic


@dataclass
class Pair:
    image: np.ndarray
    label: np.ndarray
    key: str


def make_samples():
    """Images whose red channel is the label, of two sizes; the second holds ignored pixels."""
    random = np.random.default_rng(0)
    samples = []
    for key, size in (("a", (4, 6)), ("b", (5, 3))):
        label = random.integers(0, 3, size, dtype=np.uint8)
        samples.append(Pair(np.stack([label] * 3, axis=-1), label.copy(), key))
    samples[1].label[0] = 255
    return samples


def red(image):
    return image[..., 0]


def test_each_image_is_scored_at_its_own_size():
    done = []
    confusion = count_samples(red, make_samples(), 3, lambda *n: done.append(n))
    assert confusion.matrix.sum() == 4 * 6 + 4 * 3
    assert confusion.scores().miou == 1
    assert confusion.keys == ["a", "b"]
    assert done == [(1, 2), (2, 2)]


def test_a_wrong_prediction_moves_off_the_diagonal():
    confusion = count_samples(lambda image: (red(image) + 1) % 3, make_samples(), 3)
    assert confusion.matrix.diagonal().sum() == 0


def test_an_error_names_the_image():
    samples = make_samples()
    samples[1].label[1, 1] = 77
    with pytest.raises(InputError, match=r"^b: the label holds 77"):
        count_samples(red, samples, 3)


def test_parts_are_scored_alone():
    samples = make_samples()
    whole = count_samples(red, samples, 3, indices=range(1, 2))
    assert whole.keys == ["b"]
    whole.merge(count_samples(red, samples, 3, indices=range(1)))
    assert np.array_equal(whole.matrix, count_samples(red, samples, 3).matrix)


def test_a_model_is_called_in_the_callers_thread_and_few_images_are_read_ahead():
    read, threads = [], set()

    class Many(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    ahead = []

    def predict(image):
        threads.add(threading.current_thread())
        ahead.append(len(read) - len(ahead))
        return red(image)

    count_samples(predict, Many(make_samples() * 20), 3)
    assert threads == {threading.main_thread()}
    assert len(read) == 40 and max(ahead) <= 5


def test_all_that_is_asked_for_is_counted():
    label = np.zeros((40, 40), np.uint8)
    label[10:30, 10:30] = 1
    sure = np.full(label.shape, 0.8, np.float32)
    tally = Tally(Confusion(2), Boundary(2), Calibration())
    count([Predicted("a", label, label, sure)], tally, 1)
    assert tally.boundary is not None and tally.boundary.scores().miou == 1
    assert tally.calibration is not None and tally.calibration.ece() == pytest.approx(0.2)


@pytest.fixture
def shapes(tmp_path: Path) -> Dataset:
    return Dataset.open(write_shapes(tmp_path / "shapes", 1, 3, size=(20, 30)))


@pytest.mark.parametrize("name", ["{}.png", "{}.labels.png"])
def test_predictions_are_read_from_files(shapes: Dataset, tmp_path: Path, name: str) -> None:
    samples = shapes.split("val")
    for index, key in enumerate(samples.keys):
        label = samples.label(index)
        label[label == 255] = 77  # no truth there, so whatever a file says does not count
        write_label(tmp_path / name.format(key), label, TAXONOMY)
    paths = find_predictions(tmp_path, samples, range(3)).paths
    tally = Tally(Confusion(4))
    count(read_predictions(paths, samples, 4), tally, 3)
    assert tally.confusion.scores().miou == 1
    assert tally.confusion.keys == list(samples.keys)


def test_dataset_ids_are_mapped_as_those_of_the_masks(shapes: Dataset, tmp_path: Path) -> None:
    toml = tmp_path / "shapes/dataset.toml"
    toml.write_text(toml.read_text().replace("ignore =", "map = {0=0, 1=1, 2=2, 33=3}\nignore ="))
    dataset = Dataset.open(toml)
    write_label(tmp_path / "shapes/val-labels/0000.png", np.full((20, 30), 33), TAXONOMY)
    paths = {0: tmp_path / "shapes/val-labels/0000.png"}
    samples = dataset.split("val")
    [image] = read_predictions(paths, samples, 4, dataset.encoding)
    assert (image.prediction == 3).all()
    with pytest.raises(InputError, match=r"0000\.png: holds 33, where .* --ids dataset$"):
        list(read_predictions(paths, samples, 4))


def test_colours_are_read_where_the_data_set_has_colours(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text(
        '[labels]\nencoding = "rgb"\n'
        'classes = [{ name = "a", color = [9, 0, 0] }, { name = "b", color = [0, 9, 0] }]\n'
        '[splits.val]\nimages = "{key}.jpg"\nlabels = "{key}.png"\n'
    )
    mask = np.zeros((4, 6, 3), np.uint8)
    mask[:, :2, 0] = mask[:, 2:, 1] = 9
    write_image(tmp_path / "x.png", mask)
    write_image(tmp_path / "x.jpg", mask)
    dataset = Dataset.open(tmp_path)
    [image] = read_predictions({0: tmp_path / "x.png"}, dataset.split("val"), 2, dataset.encoding)
    assert (
        np.array_equal(image.prediction, image.label)
        and image.label[0].tolist() == [0, 0] + [1] * 4
    )


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (np.zeros((20, 31)), r"0000\.png: 31x20, but its truth is 30x20"),
        (np.full((20, 30), 255), r"0000\.png: holds 255 \(ignored\) where the truth is a class"),
        (np.full((20, 30), -1), r"0000\.png: holds -1, where train ids 0 to 3 can be"),
        (np.full((20, 30), 50) * [[1, 2, 3, 4, 5] * 6], r"holds 50, 100, 150, 200, 250, where"),
        (
            np.arange(600).reshape(20, 30),
            r"0000\.png: holds 4, 5, 6, 7, 8, \.\.\., where train ids",
        ),
    ],
)
def test_a_prediction_that_does_not_fit_is_named(
    shapes, tmp_path, monkeypatch, prediction, message
) -> None:
    monkeypatch.setattr("atrous.evaluation.predictions.read_label", lambda path: prediction)
    with pytest.raises(InputError, match=message):
        list(read_predictions({0: tmp_path / "0000.png"}, shapes.split("val"), 4))


def test_an_id_that_is_unknown_is_refused_only_where_it_counts(shapes, tmp_path) -> None:
    samples = shapes.split("val")
    truth = Path(samples.label_path("0000"))
    label = samples.label(0)
    label[:2] = 255
    write_label(truth, label, TAXONOMY)
    label[0] = 77  # neither a class nor ignored
    write_label(tmp_path / "0000.png", label, TAXONOMY)
    paths = {0: tmp_path / "0000.png"}
    tally = Tally(Confusion(4))
    count(read_predictions(paths, samples, 4, shapes.encoding), tally, 1)
    assert tally.confusion.scores().miou == 1
    label[5] = 77
    write_label(tmp_path / "0000.png", label, TAXONOMY)
    with pytest.raises(InputError, match=r"0000\.png: holds 77, no class, where the truth is one"):
        list(read_predictions(paths, samples, 4, shapes.encoding))


def test_a_panoptic_result_scores_as_its_files_do(tmp_path: Path) -> None:
    dataset = write_panoptic_data(tmp_path)
    split, done = dataset.split("val"), []
    result = tmp_path / "result.json"
    quality = evaluate_panoptic(result, split, dataset.taxonomy, lambda *n: done.append(n))
    assert split.missing == 1 and done == [(1, 2), (2, 2)]
    write_image(tmp_path / "images/000000000002.png", np.zeros((16, 20, 3), np.uint8))
    whole = evaluate_panoptic(result, dataset.split("val"), dataset.taxonomy).scores()
    files = evaluate_panoptic_files(
        tmp_path / "truth.json", tmp_path / "truth", result, tmp_path / "result"
    ).scores()
    assert 0 < whole.pq == files.pq != quality.scores().pq
    assert whole.per_class[0].name == "cat" and whole.per_class[0].tp == files.per_class[7].tp


def test_an_image_without_a_panoptic_result_is_named(tmp_path: Path) -> None:
    dataset = write_panoptic_data(tmp_path)
    write_panoptic(tmp_path / "result", tmp_path / "result.json", [], CATEGORIES)
    with pytest.raises(InputError, match=r"result\.json: no result of 000000000000; looked for"):
        evaluate_panoptic(tmp_path / "result.json", dataset.split("val"), dataset.taxonomy)


@pytest.fixture
def cities(tmp_path: Path) -> Callable[[list[str], list[str]], float]:
    """Scores a panoptic result of these file names against truth of keys in folders."""
    pixels, segments = np.full((2, 3), 5), [{"id": 5, "category_id": 7}]

    def score(keys: list[str], names: list[str]) -> float:
        for folder, stems in (("truth", keys), ("result", names)):
            entries = [(stem, stem, Panoptic(pixels, segments)) for stem in stems]
            write_panoptic(tmp_path / folder, tmp_path / f"{folder}.json", entries, CATEGORIES)
        for key in keys:
            write_image(tmp_path / f"images/{key}.png", np.zeros((2, 3, 3), np.uint8))
        (tmp_path / "dataset.toml").write_text(PANOPTIC)
        dataset = Dataset.open(tmp_path)
        result = tmp_path / "result.json"
        return evaluate_panoptic(result, dataset.split("val"), dataset.taxonomy).scores().pq

    return score


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["x/1", "y/1"], ["y/1", "x/1"]),
        (["x/1", "y/2"], ["1", "2"]),
        (["x/1", "1"], ["x/1", "1"]),
    ],
)
def test_panoptic_results_are_found_nested_or_flat(cities, keys, names) -> None:
    assert cities(keys, names) == 1


def test_a_panoptic_result_that_two_images_could_mean_is_refused(cities) -> None:
    with pytest.raises(InputError, match=r"no result of x/1; looked for the file_name x/1\.png$"):
        cities(["x/1", "y/1"], ["1"])
