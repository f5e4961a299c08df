"""Metrics: each keeps exact integer counts of predictions and labels, merges, and gives scores."""

from atrous.metrics.boundary import Boundary
from atrous.metrics.calibration import Calibration
from atrous.metrics.confusion import Confusion
from atrous.metrics.panoptic_quality import Panoptic, PanopticQuality
from atrous.metrics.protocols import Scores

__all__ = ["Boundary", "Calibration", "Confusion", "Panoptic", "PanopticQuality", "Scores"]
