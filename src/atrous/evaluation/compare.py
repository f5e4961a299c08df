"""What a comparison has found: each model's scores and costs, and which differences are real.

Models are compared in pairs, on the same images, as `atrous.metrics.interval` does it. Of several
pairs some differ by chance alone, so each p-value is adjusted for their number (Holm 1979).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.data.sample import Sample
from atrous.evaluation.cost import Cost
from atrous.evaluation.score import Labels, Predict, Tally
from atrous.evaluation.speed import Speed
from atrous.metrics import Scores
from atrous.metrics.boundary import BoundaryScores
from atrous.metrics.interval import SIGNIFICANT, Comparison, Interval, compare, holm, intervals
from atrous.metrics.protocols import number, rates
from atrous.taxonomy import Taxonomy

SHOWN_IMAGES = 6
"""Those in which the models differ most."""

_APART = 5
"""Places in the split's order: frames of a video that follow each other look alike."""

_RESAMPLES = 1000
_RESAMPLES_OF_A_PAIR = 100
"""So many for each pair, or adjusted for many pairs no p-value could be small."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighed:
    """One model of a comparison."""

    name: str
    model: str
    """What labelled the images: "camvid (int8, onnxruntime, 2 threads)"."""
    tally: Tally
    protocol: str
    cost: Cost
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    """By runtime."""

    @cached_property
    def scores(self) -> Scores:
        """Of the classes, and their means."""
        return self.tally.confusion.scores(self.protocol)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Of the means."""
        return intervals(self.tally.confusion.counts(), self.protocol)

    @cached_property
    def boundary(self) -> BoundaryScores:
        """Of the classes, and their means."""
        assert self.tally.boundary is not None
        return self.tally.boundary.scores()

    def to_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """A JSON-ready form; docs/comparison.md describes it."""
        ends = self.intervals.items()
        return {
            "name": self.name,
            "model": self.model,
            **self.cost._asdict(),
            "runtimes": {runtime: speed._asdict() for runtime, speed in self.speeds.items()},
            **self.scores.to_dict(classes),
            "intervals": {name: [number(end) for end in interval] for name, interval in ends},
            **self.boundary.to_dict(classes),
        }


class Difference(NamedTuple):
    """Two models of a comparison."""

    first: str
    second: str
    comparison: Comparison
    p_adjusted: float
    """The p-value, adjusted for the number of pairs."""

    @property
    def real(self) -> bool:
        """Whether it is more than chance."""
        return self.p_adjusted < SIGNIFICANT

    def __str__(self) -> str:
        """Say in two lines who is better, and whether it is real."""
        points, low, high, _ = self.comparison
        if np.isnan(points):
            return f"{self.first} and {self.second}: one of the two mIoU is undefined"
        better = f"{self.first} {100 * points:.1f} better than {self.second}"
        if np.isnan(self.p_adjusted):
            return f"{better}\n  too few images to tell them apart"
        told = "told apart" if self.real else "not told apart"
        ends = f"95 %: {100 * low:+.1f} to {100 * high:+.1f}"
        return f"{better}\n  ({ends}, p = {self.p_adjusted:.2g}): {told}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighing:
    """All that one comparison has found out."""

    data: str
    split: str
    missing: int
    """Images of the split's list that are not here."""
    taxonomy: Taxonomy
    protocol: str
    size: tuple[int, int]
    """(H, W) of the image that costs are counted and measured on."""
    machine: Mapping[str, Any]
    """Processor, threads, versions."""
    lacking: Mapping[str, str]
    """Why each runtime that was asked for cannot be had."""
    models: Sequence[Weighed]
    """Best mIoU first."""

    @property
    def keys(self) -> list[str]:
        """Of the images."""
        return self.models[0].tally.confusion.keys

    @cached_property
    def differences(self) -> list[Difference]:
        """Each pair of models, the better one first."""
        pairs = list(combinations(self.models, 2))
        resamples = max(_RESAMPLES, _RESAMPLES_OF_A_PAIR * len(pairs))
        found = [
            compare(
                a.tally.confusion.counts(), b.tally.confusion.counts(), self.protocol, resamples
            )
            for a, b in pairs
        ]
        adjusted = holm([comparison.p_value for comparison in found])
        return [
            Difference(a.name, b.name, comparison, p)
            for (a, b), comparison, p in zip(pairs, found, adjusted, strict=True)
        ]

    @cached_property
    def mious(self) -> NDArray[np.float64]:
        """The mIoU of each image by itself, over the classes in its truth, (models, N)."""
        counts = np.stack([model.tally.confusion.counts() for model in self.models])
        return rates(counts, "per-image").miou

    def most_different(self) -> list[int]:
        """The images in which the models' mIoU lie furthest apart, the furthest first.

        Of images that follow each other only one is taken.
        """
        spread = np.nan_to_num(np.ptp(self.mious, axis=0))  # (N,)
        chosen: list[int] = []
        for i in np.argsort(-spread, kind="stable").tolist():
            if len(chosen) < SHOWN_IMAGES and all(abs(i - other) >= _APART for other in chosen):
                chosen.append(i)
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; docs/comparison.md describes it."""
        names = [model.name for model in self.models]
        return {
            "data": self.data,
            "split": self.split,
            "images": len(self.keys),
            "missing": self.missing,
            "protocol": self.protocol,
            "size": list(self.size),
            "machine": dict(self.machine),
            "lacking": dict(self.lacking),
            "models": [model.to_dict(self.taxonomy.classes) for model in self.models],
            "pairs": [_pair(difference) for difference in self.differences],
            "most_different": [
                {
                    "key": self.keys[i],
                    "miou": dict(zip(names, map(number, self.mious[:, i]), strict=True)),
                }
                for i in self.most_different()
            ],
        }


def _pair(difference: Difference) -> dict[str, Any]:
    values = difference.comparison._asdict() | {"p_adjusted": difference.p_adjusted}
    return {
        "first": difference.first,
        "second": difference.second,
        **{name: number(value) for name, value in values.items()},
    }


class Scene(NamedTuple):
    """An image, its truth, and what each model made of it."""

    sample: Sample
    mious: NDArray[np.float64]  # (models,), of this image
    predictions: list[Labels]  # (H, W) each


def scenes(
    weighing: Weighing, predict: Mapping[str, Predict], samples: Sequence[Sample]
) -> Iterator[Scene]:
    """Label the images in which the models differ most again, one image at a time."""
    for index in weighing.most_different():
        sample = samples[index]
        labels = [predict[model.name](sample.image) for model in weighing.models]
        yield Scene(sample, weighing.mious[:, index], labels)
