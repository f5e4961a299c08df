"""Comparison of models on one data set: scores, costs, and which differences are significant.

Models are compared in pairs, on the same images, by `atrous.metrics.interval.compare`. With several
pairs some differ by chance alone, so p-values are adjusted for their number (Holm 1979).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.sample import Sample
from atrous.evaluation.cost import Cost, cost_of
from atrous.evaluation.evaluate import Evaluation, Truth, evaluate, from_model
from atrous.evaluation.score import Labels, Predict, check_same_classes
from atrous.evaluation.timing import Place, Speed, measure
from atrous.images.photos import resized
from atrous.infer.runtime_selection import default_runtime, processor, versions
from atrous.infer.runtimes.open import runtimes_of
from atrous.infer.segmenter import Segmenter, load
from atrous.metrics import Scores
from atrous.metrics.boundary import BoundaryScores
from atrous.metrics.interval import (
    BOUNDARY_MEANS,
    SIGNIFICANT,
    PairedTest,
    compare_boundaries,
    holm,
)
from atrous.metrics.interval import compare as paired_test
from atrous.metrics.protocols import rates, without_nan
from atrous.progress import Track, untracked

__all__ = [
    "TESTED",
    "Comparison",
    "Difference",
    "Model",
    "ModelPair",
    "ModelResult",
    "Scene",
    "compare",
    "open_model",
    "scenes",
]

TESTED = ("miou", *BOUNDARY_MEANS)
"""Scores whose differences are tested."""

SHOWN_IMAGES = 6
"""Number of images that are shown: those in which the models differ most."""

_APART = 5
"""Smallest distance of shown images in the split: neighbouring video frames look alike."""

_RESAMPLES = 1000
_RESAMPLES_OF_A_PAIR = 100
"""Smallest number for each pair: with fewer, no p-value adjusted for many pairs can be small."""


class Model(NamedTuple):
    """A model to be compared."""

    name: str
    path: Path
    """Bundle or run folder."""
    segmenter: Segmenter


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelResult:
    """Scores and costs of one model."""

    name: str
    evaluation: Evaluation
    """Its boundary scores are not None."""
    cost: Cost
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    """Runtime -> speed."""

    @property
    def scores(self) -> Scores:
        """Scores of the classes, and their means."""
        return self.evaluation.scores

    @property
    def boundary(self) -> BoundaryScores:
        """Boundary scores of the classes, and their means."""
        assert self.evaluation.boundary is not None
        return self.evaluation.boundary

    @property
    def boundary_counts(self) -> NDArray[np.uint32]:
        """Counts of the boundaries in each image, (N, 7, K)."""
        assert self.evaluation.boundary_counts is not None
        return self.evaluation.boundary_counts

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; docs/comparison.md describes them."""
        classes = self.evaluation.truth.classes
        return {
            "name": self.name,
            "model": self.evaluation.name,
            **self.cost._asdict(),
            "runtimes": {runtime: speed._asdict() for runtime, speed in self.speeds.items()},
            **self.scores.to_dict(classes),
            "intervals": self.evaluation.intervals,
            **self.boundary.to_dict(classes),
        }


class Difference(NamedTuple):
    """How much a score of two models differs."""

    test: PairedTest
    p_adjusted: float
    """p-value, adjusted for the number of pairs."""

    @property
    def significant(self) -> bool:
        """Whether the difference is statistically significant."""
        return self.p_adjusted < SIGNIFICANT


class ModelPair(NamedTuple):
    """Two models, the one with the better mIoU first."""

    first: str
    second: str
    differences: Mapping[str, Difference]
    """By score: miou, boundary_miou, boundary_mf."""

    @property
    def test(self) -> PairedTest:
        """The test of mIoU."""
        return self.differences["miou"].test

    @property
    def p_adjusted(self) -> float:
        """p-value of mIoU, adjusted for the number of pairs."""
        return self.differences["miou"].p_adjusted

    @property
    def significant(self) -> bool:
        """Whether the difference in mIoU is statistically significant."""
        return self.differences["miou"].significant


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Results of all models, and the differences between them."""

    size: tuple[int, int]
    """(H, W) of the image that costs are counted and measured on."""
    machine: Mapping[str, Any]
    """Processor, threads, versions."""
    unavailable: Mapping[str, str]
    """Requested runtimes that are unavailable, with the reason."""
    models: Sequence[ModelResult]
    """Best mIoU first."""

    @property
    def truth(self) -> Truth:
        """Images of the comparison."""
        return self.models[0].evaluation.truth

    @property
    def protocol(self) -> str:
        """Definition of the scores."""
        return self.models[0].evaluation.protocol

    @property
    def keys(self) -> list[str]:
        """Keys of the images."""
        return self.models[0].evaluation.confusion.keys

    @property
    def runtimes(self) -> list[str]:
        """Runtimes in which a model was measured."""
        return list(dict.fromkeys(runtime for model in self.models for runtime in model.speeds))

    @cached_property
    def pairs(self) -> list[ModelPair]:
        """Each pair of models, the better one first."""
        pairs = list(combinations(self.models, 2))
        resamples = max(_RESAMPLES, _RESAMPLES_OF_A_PAIR * len(pairs))
        tests = [
            {"miou": paired_test(a, b, self.protocol, resamples)}
            | compare_boundaries(one.boundary_counts, other.boundary_counts, resamples)
            for (a, b), (one, other) in zip(combinations(self._counts, 2), pairs, strict=True)
        ]
        adjusted = {name: holm([test[name].p_value for test in tests]) for name in TESTED}
        differences = [
            {name: Difference(test[name], adjusted[name][i]) for name in TESTED}
            for i, test in enumerate(tests)
        ]
        return [
            ModelPair(one.name, other.name, each)
            for (one, other), each in zip(pairs, differences, strict=True)
        ]

    @cached_property
    def mious(self) -> NDArray[np.float64]:
        """(models, N) mIoU of each single image, over the classes in its truth."""
        return rates(self._counts, "per-image").miou

    @cached_property
    def _counts(self) -> NDArray[np.uint32]:  # (models, N, 3, K)
        return np.stack([model.evaluation.confusion.counts() for model in self.models])

    @cached_property
    def most_different(self) -> list[int]:
        """Indices of images with the largest range of mIoU, largest first; no close neighbours."""
        spread = np.nan_to_num(np.ptp(self.mious, axis=0))  # (N,)
        chosen: list[int] = []
        for i in np.argsort(-spread, kind="stable").tolist():
            if len(chosen) < SHOWN_IMAGES and all(abs(i - other) >= _APART for other in chosen):
                chosen.append(i)
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values; docs/comparison.md describes them."""
        names = [model.name for model in self.models]
        document = {
            "data": self.truth.dataset.name,
            "split": self.truth.split,
            "images": len(self.keys),
            "missing": self.truth.samples.missing,
            "protocol": self.protocol,
            "size": self.size,
            "machine": self.machine,
            "lacking": self.unavailable,
            "models": [model.to_dict() for model in self.models],
            "pairs": [
                {
                    "first": pair.first,
                    "second": pair.second,
                    **_difference(pair.differences["miou"]),
                    **{name: _difference(pair.differences[name]) for name in BOUNDARY_MEANS},
                }
                for pair in self.pairs
            ],
            "most_different": [
                {"key": self.keys[i], "miou": dict(zip(names, self.mious[:, i], strict=True))}
                for i in self.most_different
            ],
        }
        return without_nan(document)


def _difference(difference: Difference) -> dict[str, float]:
    return difference.test._asdict() | {"p_adjusted": difference.p_adjusted}


def open_model(
    name: str, path: Path, truth: Truth, threads: int, runtimes: Sequence[str] = ()
) -> Model:
    """Open a model that knows the classes of the truth.

    It labels in the first of `runtimes` that takes its file; by default in `default_runtime`, so
    that no score depends on what `atrous bench` found fastest.
    """
    fitting = (runtime for runtime in runtimes if runtime in runtimes_of(path))
    segmenter = load(path, threads, next(fitting, default_runtime(path)))
    classes = segmenter.metadata.taxonomy.classes
    check_same_classes(classes, truth.classes, name, truth.dataset.name)
    return Model(name, path, segmenter)


def compare(
    models: Sequence[Model],
    truth: Truth,
    *,
    protocol: str = "pooled",
    size: tuple[int, int] | None = None,
    files: Mapping[Place, Path] | None = None,
    rounds: int = 20,
    track: Track = untracked,
) -> Comparison:
    """Score all models on one data set, then count and measure their costs.

    Args:
        models: two or more from `open_model`, with the same number of threads.
        truth: images to label.
        protocol: one of `atrous.metrics.protocols.PROTOCOLS`.
        size: (H, W) of the image that costs are counted on; by default that of the first image.
        files: the file that each runtime loads of each model, to measure time and memory; by
            default these are not measured.
        rounds: number of times that each model labels the image in each runtime.
        track: shows the progress of each step.
    """
    image = truth.samples[truth.indices[0]].image
    if size is not None:
        image = resized(image, size, Image.Resampling.BICUBIC)
    size, threads = (image.shape[0], image.shape[1]), models[0].segmenter.runtime.threads
    evaluations = [
        evaluate(
            from_model(model.segmenter, truth, name=model.name),
            truth,
            protocol=protocol,
            boundary=True,
            track=_named(track, model.name),
        )
        for model in models
    ]
    speeds, unavailable = measure(files or {}, image, threads=threads, rounds=rounds, track=track)
    results = [
        ModelResult(
            name=model.name,
            evaluation=evaluation,
            cost=cost_of(model.path, size),
            speeds=speeds.get(model.name, {}),
        )
        for model, evaluation in zip(models, evaluations, strict=True)
    ]
    return Comparison(
        size=size,
        machine={"processor": processor(), "threads": threads, **versions()},
        unavailable=unavailable,
        models=sorted(results, key=lambda result: -np.nan_to_num(result.scores.miou, nan=-1)),
    )


class Scene(NamedTuple):
    """An image, its truth, and the prediction of each model."""

    sample: Sample
    mious: NDArray[np.float64]  # (models,), of this image
    predictions: Sequence[Labels]  # (H, W) each


def scenes(
    comparison: Comparison, predict: Mapping[str, Predict], samples: Sequence[Sample]
) -> Iterator[Scene]:
    """Label the images in which the models differ most again, one at a time, by `predict[name]`."""
    for index in comparison.most_different:
        sample = samples[index]
        labels = [predict[result.name](sample.image) for result in comparison.models]
        yield Scene(sample, comparison.mious[:, index], labels)


def _named(track: Track, name: str) -> Track:
    return lambda step: track(f"{step}, {name}")
