"""Expected calibration error, over pixels: does a model that is 80 % sure hit 80 % of the time?

Guo et al., "On calibration of modern neural networks" (ICML 2017): pixels are binned by the
probability of their predicted class; in each bin, the mean probability is compared with the share
of correct pixels. Departure: a bin holds its lower end, not its upper one (the last holds both).

Probabilities are summed as whole multiples of 2^-24, the spacing of float32 just below 1, so parts
that are counted separately merge to the same sums in any order; the mean is off by less than 1e-7.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.metrics.protocols import Floats, Integers, divide
from atrous.taxonomy import IGNORE_INDEX

_UNIT = 1 << 24


class Reliability(NamedTuple):
    """One row per bin of confidence, (B,) each; NaN where a bin is empty."""

    pixels: NDArray[np.int64]
    confidence: Floats
    """Mean probability of the predicted class."""
    accuracy: Floats
    """Share of the pixels that are correct."""


class Calibration:
    """Exact counts of pixels by confidence, which merge in any order.

    >>> calibration = Calibration(num_bins=2)
    >>> prediction, label = np.array([1, 1, 1]), np.array([0, 1, 1])
    >>> calibration.update(np.array([0.75, 0.75, 0.75]), prediction, label)
    >>> round(calibration.ece(), 3)
    0.083
    """

    def __init__(self, num_bins: int = 15, ignore_index: int = IGNORE_INDEX) -> None:
        """Count in `num_bins` bins of one width; pixels labelled `ignore_index` are left out."""
        if num_bins < 1:
            raise InputError(f"num_bins is {num_bins}; calibration needs 1 or more")
        self.num_bins = num_bins
        self.ignore_index = ignore_index
        self.counts: NDArray[np.int64] = np.zeros((3, num_bins), np.int64)
        """(3, B): pixels, correct pixels, sum of confidence in units of 2^-24."""

    def update(
        self, confidence: NDArray[np.floating[Any]], prediction: Integers, label: Integers
    ) -> None:
        """Count the pixels of one image; nothing is counted if an array is refused.

        Args:
            confidence: (H, W) probability of the predicted class, 0 to 1.
            prediction: (H, W) predicted classes.
            label: (H, W) true classes, or `ignore_index`.
        """
        if not confidence.shape == prediction.shape == label.shape:
            raise InputError(
                f"the confidence is {confidence.shape}, the prediction {prediction.shape}, the"
                f" label {label.shape}; they must be of one shape"
            )
        labelled = label != self.ignore_index
        sure = confidence[labelled].astype(np.float64)  # (N,)
        wrong = sure[~((sure >= 0) & (sure <= 1))]  # NaN too
        if wrong.size:
            raise InputError(f"the confidence holds {wrong[0]:g}, where 0 to 1 can be")
        correct = (prediction == label)[labelled]
        bins = np.minimum((sure * self.num_bins).astype(np.int64), self.num_bins - 1)
        weights = (np.ones(len(sure)), correct, np.rint(sure * _UNIT))
        # Whole numbers below 2^53 are exact in bincount's float64.
        self.counts += np.stack(
            [np.bincount(bins, w, self.num_bins).astype(np.int64) for w in weights]
        )

    def merge(self, other: "Calibration") -> None:
        """Add the counts of `other`, which has the same bins."""
        if (other.num_bins, other.ignore_index) != (self.num_bins, self.ignore_index):
            raise InputError(
                f"a calibration of {other.num_bins} bins (ignoring {other.ignore_index})"
                f" cannot be merged into one of {self.num_bins} (ignoring {self.ignore_index})"
            )
        self.counts += other.counts

    def reliability(self) -> Reliability:
        """Return confidence beside accuracy, bin by bin."""
        pixels, correct, sure = self.counts.astype(np.float64)  # (B,) each
        return Reliability(
            self.counts[0].copy(), divide(sure / _UNIT, pixels), divide(correct, pixels)
        )

    def ece(self) -> float:
        """Return the mean |confidence - accuracy| of the bins, weighted by pixels, 0 to 1.

        NaN if nothing was counted.
        """
        pixels, correct, sure = self.counts.astype(np.float64)  # (B,) each
        total = pixels.sum()
        return float(np.abs(sure / _UNIT - correct).sum() / total) if total else np.nan
