"""Labels and predictions in, numbers out. Every metric keeps exact counts, and merges."""

from atrous.metrics.confusion import Confusion, Scores

__all__ = ["Confusion", "Scores"]
