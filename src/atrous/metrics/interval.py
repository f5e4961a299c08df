"""Intervals of scores, and the paired comparison of two models: is a difference significant?

Images, not pixels, are the random sample: the pixels of an image depend on each other. So the
images of a data set are drawn again, with replacement, and each draw is scored (Efron, "Bootstrap
methods", 1979; percentile interval). Two models on the same images are compared by drawing the
images for both together, and by swapping the models at random per image (paired permutation test).

A result depends on the images and the seed alone, not on the order of the images. It does not cover
chance in training, nor images from elsewhere; and frames of a video carry less evidence than their
number suggests.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from atrous.errors import InputError
from atrous.metrics.boundary import boundary_rates
from atrous.metrics.protocols import Floats, Integers, check_protocol, divide, rates

__all__ = [
    "BOUNDARY_MEANS",
    "MEANS",
    "SIGNIFICANT",
    "Interval",
    "PairedTest",
    "boundary_intervals",
    "compare",
    "compare_boundaries",
    "holm",
    "intervals",
]

MEANS = ("miou", "fwiou", "macc", "pacc")
"""Scores of regions that have intervals."""

BOUNDARY_MEANS = ("boundary_miou", "boundary_mf")
"""Scores of boundaries that have intervals."""

_Means = Callable[[Floats], Floats]
"""Values summed over the images of R draws, (R, M), to S scores of each draw, (R, S)."""

SIGNIFICANT = 0.05
"""Significance level."""

_DRAWS = 64
"""Draws that are computed at once, to bound the memory."""


class Interval(NamedTuple):
    """Ends of an interval of a score, as fractions; NaN for fewer than two images."""

    low: float
    high: float


class PairedTest(NamedTuple):
    """A score of one model less that of another, as a fraction."""

    difference: float
    low: float
    high: float
    """Ends of the interval of `difference`."""
    p_value: float
    """Probability of a difference at least as large if models differed by chance alone, 0 to 1."""


def intervals(
    counts: Integers,
    protocol: str = "pooled",
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the bootstrap interval of each of `MEANS`.

    Draws whose score is undefined ("torchvision", if a class is in no drawn image) are left out.

    Args:
        counts: (N, 3, K), as `Confusion.counts` returns them.
        protocol: one of `PROTOCOLS`.
        resamples: number of draws of N images.
        level: share of the draws between the interval's ends, 0 to 1.
        seed: of the draws.
    """
    check_protocol(protocol)
    values = _values(counts[_order(counts)], protocol)
    means = partial(_means, protocol=protocol)
    return _bootstrap(values, means, MEANS, resamples, level, seed)


def boundary_intervals(
    counts: Integers, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Return the bootstrap interval of each of `BOUNDARY_MEANS`.

    Args:
        counts: (N, 7, K), as `Boundary.counts` returns them.
        resamples: number of draws of N images.
        level: share of the draws between the interval's ends, 0 to 1.
        seed: of the draws.
    """
    values = _flat(counts[_order(counts)])
    return _bootstrap(values, _boundary_means, BOUNDARY_MEANS, resamples, level, seed)


def compare(
    counts_a: Integers,
    counts_b: Integers,
    protocol: str = "pooled",
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedTest:
    """Compare two models on the same images: mIoU of the first less that of the second.

    Args:
        counts_a: (N, 3, K) of the first model.
        counts_b: (N, 3, K) of the second, of the same images in the same order.
        protocol: one of `PROTOCOLS`.
        resamples: number of draws of N images, and number of random swaps of the two models.
        level: share of the draws between the interval's ends, 0 to 1.
        seed: of the draws and swaps.
    """
    check_protocol(protocol)
    a, b = (_values(counts, protocol) for counts in _same_images(counts_a, counts_b, [1]))

    def miou(sums: Floats) -> Floats:  # (R, M) -> (R, 1)
        return _means(sums, protocol)[:, :1]

    return _paired(a, b, miou, resamples, level, seed)[0]


def compare_boundaries(
    counts_a: Integers,
    counts_b: Integers,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, PairedTest]:
    """Compare the boundaries of two models on the same images, by each of `BOUNDARY_MEANS`.

    Args:
        counts_a: (N, 7, K) of the first model, as `Boundary.counts` returns them.
        counts_b: (N, 7, K) of the second, of the same images in the same order.
        resamples: number of draws of N images, and number of random swaps of the two models.
        level: share of the draws between the interval's ends, 0 to 1.
        seed: of the draws and swaps.
    """
    a, b = map(_flat, _same_images(counts_a, counts_b, [1, 3]))
    tests = _paired(a, b, _boundary_means, resamples, level, seed)
    return dict(zip(BOUNDARY_MEANS, tests, strict=True))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple tests, to control the family-wise error rate.

    Holm, "A simple sequentially rejective multiple test procedure" (1979). NaN stays NaN and does
    not count as a test.

    >>> holm([0.01, 0.04, 0.03, 0.005])
    [0.03, 0.06, 0.06, 0.02]
    """
    adjusted = list(p_values)
    known = sorted((p, i) for i, p in enumerate(p_values) if not np.isnan(p))
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted


def _bootstrap(
    values: Floats, means: _Means, names: Sequence[str], resamples: int, level: float, seed: int
) -> dict[str, Interval]:
    """Return the interval of each of S scores; `values` are (N, M), in the order of `_order`."""
    if len(values) < 2:
        return dict.fromkeys(names, Interval(np.nan, np.nan))
    draws = _draws(len(values), resamples, np.random.default_rng(seed))
    drawn = np.concatenate([means(times @ values) for times in draws])  # (R, S)
    return {name: _interval(column, level) for name, column in zip(names, drawn.T, strict=True)}


def _paired(
    a: Floats, b: Floats, means: _Means, resamples: int, level: float, seed: int
) -> list[PairedTest]:
    """Test the difference of each of S scores; `a` and `b` are (N, M), in the order of `_order`."""
    total_a, total_b = a.sum(0, keepdims=True), b.sum(0, keepdims=True)

    def differences(sums_a: Floats, sums_b: Floats) -> Floats:  # (R, M) each -> (R, S)
        return means(sums_a) - means(sums_b)

    measured: list[float] = differences(total_a, total_b)[0].tolist()
    if len(a) < 2:
        return [PairedTest(difference, np.nan, np.nan, np.nan) for difference in measured]
    random = np.random.default_rng(seed)
    drawn = np.concatenate(
        [differences(times @ a, times @ b) for times in _draws(len(a), resamples, random)]
    )
    moves = (swap @ (b - a) for swap in _swaps(len(a), resamples, random))
    swapped = np.concatenate([differences(total_a + moved, total_b - moved) for moved in moves])
    columns = zip(measured, drawn.T, swapped.T, strict=True)
    return [_paired_test(*column, level) for column in columns]


def _paired_test(difference: float, drawn: Floats, swapped: Floats, level: float) -> PairedTest:
    """Return the test of one score from its differences in R draws and R swaps, (R,) each."""
    if np.isnan(difference):
        return PairedTest(difference, np.nan, np.nan, np.nan)
    return PairedTest(difference, *_interval(drawn, level), _p_value(difference, swapped))


def _same_images(a: Integers, b: Integers, truth: list[int]) -> tuple[Integers, Integers]:
    """Return the counts of two models in one order of the images; `truth` are rows of the truth."""
    if not np.array_equal(a[:, truth], b[:, truth]):
        raise InputError("two models can be compared on the same images only, in the same order")
    order = _order(a, b)
    return a[order], b[order]


def _order(*models: Integers) -> list[int]:
    """Return an order of the images by their counts alone, whichever model comes first."""
    digests = [
        sorted(hashlib.sha256(counts.tobytes()).digest() for counts in image)
        for image in zip(*models, strict=True)
    ]
    return sorted(range(len(digests)), key=digests.__getitem__)


def _values(counts: Integers, protocol: str) -> Floats:
    """Return values to be summed over images, (N, M): counts, or "per-image" means and numbers."""
    if protocol != "per-image":
        return _flat(counts)
    means = np.stack(rates(counts, protocol)[: len(MEANS)], axis=1)  # (N, 4)
    return np.concatenate([np.nan_to_num(means), ~np.isnan(means)], axis=1)


def _means(sums: Floats, protocol: str) -> Floats:
    """Return each of `MEANS` of each of R sums: (R, M) to (R, 4)."""
    if protocol == "per-image":
        total, images = np.split(sums, 2, axis=1)
        return divide(total, images)
    return np.stack(rates(sums.reshape(len(sums), 3, -1), protocol)[: len(MEANS)], axis=1)


def _flat(counts: Integers) -> Floats:
    """Return the counts of each image, (N, C, K), as values (N, M); sums are exact below 2^53."""
    return counts.reshape(len(counts), counts.shape[1] * counts.shape[2]).astype(np.float64)


def _boundary_means(sums: Floats) -> Floats:
    """Return each of `BOUNDARY_MEANS` of each of R sums: (R, M) to (R, 2)."""
    return np.stack(boundary_rates(sums.reshape(len(sums), 7, -1))[:2], axis=1)


def _draws(num_images: int, resamples: int, random: np.random.Generator) -> Iterator[Floats]:
    """Yield how often each image is drawn, (R, N) at a time; each row adds up to N."""
    for start in range(0, resamples, _DRAWS):
        rows = min(_DRAWS, resamples - start)
        drawn = random.integers(0, num_images, (rows, num_images))
        drawn += num_images * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * num_images)
        yield times.reshape(rows, num_images).astype(np.float64)


def _swaps(num_images: int, resamples: int, random: np.random.Generator) -> Iterator[Floats]:
    """Yield which images are swapped, (R, N) of 0 and 1 at a time."""
    for start in range(0, resamples, _DRAWS):
        rows = min(_DRAWS, resamples - start)
        yield random.integers(0, 2, (rows, num_images)).astype(np.float64)


def _interval(values: Floats, level: float) -> Interval:
    """Return the ends of the middle `level` of the values, without NaN."""
    known = values[~np.isnan(values)]
    if not known.size:
        return Interval(np.nan, np.nan)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _p_value(difference: float, swapped: Floats) -> float:
    """Return the share of swaps with at least the measured difference, which counts as one."""
    known = swapped[~np.isnan(swapped)]
    as_much = np.abs(known) >= abs(difference) - 1e-12  # floats of the same fractions
    return float((1 + np.count_nonzero(as_much)) / (1 + known.size))
