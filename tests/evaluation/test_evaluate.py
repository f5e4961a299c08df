"""Evaluations and comparisons as a Python user calls them."""

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atrous.data.dataset import Dataset
from atrous.errors import InputError
from atrous.evaluation.compare import compare, open_model
from atrous.evaluation.evaluate import (
    Truth,
    compare_with,
    evaluate,
    from_counts,
    from_files,
    from_model,
)
from atrous.evaluation.timing import Place, bench
from atrous.images.label_maps import write_label
from atrous.images.photos import write_image
from atrous.infer.segmenter import load
from atrous.metrics.interval import BOUNDARY_MEANS, MEANS
from atrous.progress import silent
from atrous.report.comparison import comparison_text
from atrous.report.scores import evaluation_text
from atrous.taxonomy import Taxonomy

DESCRIPTION = """\
name = "paint"
[labels]
encoding = "index"
ignore = [255]
classes = ["red", "green", "blue", "grey"]
[splits.val]
images = "images/{key}.png"
labels = "masks/{key}.png"
"""


@pytest.fixture
def truth(tmp_path: Path, paint: np.ndarray, tiny_bundle: Path) -> Truth:
    """Four photos; the bundle is right but for some pixels."""
    folder = tmp_path / "data"
    taxonomy = Taxonomy(name="x", classes=("x",), colors=((0, 0, 0),))
    for number in range(4):
        image = np.roll(paint, 5 * number, axis=1)
        label = load(tiny_bundle).predict(image).copy()
        label[0], label[1, : 5 * number + 5] = 255, 3
        write_image(folder / f"images/{number}.png", image)
        write_label(folder / f"masks/{number}.png", label, taxonomy)
    (folder / "dataset.toml").write_text(DESCRIPTION)
    return Truth.of(Dataset.open(folder))


def test_a_model_its_files_and_its_counts_score_alike(
    truth: Truth, tiny_bundle: Path, tmp_path: Path
) -> None:
    model = evaluate(from_model(load(tiny_bundle), truth), truth, boundary=True, pairs=2)
    assert model.num_images == 4 and model.boundary is not None and model.pairs is not None
    segmenter = load(tiny_bundle)
    for key in truth.samples.keys:
        segmenter(truth.dataset.folder / f"images/{key}.png").save(tmp_path / "out")
    files = evaluate(from_files(tmp_path / "out", truth), truth)
    for part in (range(0, 4, 2), range(1, 4, 2)):
        some = replace(truth, indices=part)
        evaluation = evaluate(from_model(segmenter, some), some)
        evaluation.confusion.save(tmp_path / f"{part.start}.npz")
    saved = from_counts([tmp_path / "1.npz", tmp_path / "0.npz"], truth)
    counts = evaluate(saved, truth)
    for other in (files, counts):
        assert np.array_equal(other.confusion.matrix, model.confusion.matrix)
        assert other.intervals == {name: model.intervals[name] for name in MEANS}
    alone = model.to_dict()
    assert alone["boundary_intervals"].keys() == set(BOUNDARY_MEANS)
    for name, (low, high) in alone["boundary_intervals"].items():
        assert low <= alone[name] <= high
    compared = compare_with(model, saved)
    assert compared.reference is not None and compared.reference.test.p_value == 1
    assert model.reference is None
    text = evaluation_text(compared)
    assert "not significant on 4 images" in text and "boundary IoU" in text
    with pytest.raises(InputError, match="saved counts do not hold any"):
        evaluate(saved, truth, boundary=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "coco"}, "no metric protocol 'coco'"),
        ({"tree": True}, "its classes have no groups"),
        ({"pairs": -1}, "pairs -1: say how many"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_work(
    truth: Truth, tiny_bundle: Path, options: dict, message: str
) -> None:
    source = from_model(load(tiny_bundle), truth)
    with pytest.raises(InputError, match=message):
        evaluate(source, truth, **options)
    assert next(iter(source.images)).key == "0"  # nothing was labelled


def test_models_are_compared(truth: Truth, tiny_bundle: Path, tmp_path: Path) -> None:
    steps = []
    paths = [shutil.copy(tiny_bundle, tmp_path / f"{name}.onnx") for name in ("one", "two")]
    models = [open_model(path.stem, path, truth, threads=1) for path in paths]
    files = {Place("two", "onnxruntime"): paths[1]}

    def track(step: str):
        steps.append(step)
        return nullcontext(silent)

    comparison = compare(models, truth, size=(20, 30), files=files, rounds=1, track=track)
    assert steps == ["images, one", "images, two", "images timed", "processes measured"]
    assert comparison.size == (20, 30) and comparison.runtimes == ["onnxruntime"]
    assert {model.name: len(model.speeds) for model in comparison.models} == {"one": 0, "two": 1}
    assert [pair.significant for pair in comparison.pairs] == [False]
    text = comparison_text(comparison)
    assert "one and two have the same mIoU" in text and "peak memory" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_model_is_timed(tiny_bundle: Path) -> None:
    done = []
    result = bench(
        tiny_bundle,
        size=(20, 30),
        runtimes=["onnxruntime"],
        rounds=2,
        progress=lambda *n: done.append(n),
    )
    assert done == [(1, 2), (2, 2)]
    assert result.fastest == "onnxruntime" and not result.remembered and not result.missing
    assert result.to_dict()["size"] == (20, 30)
