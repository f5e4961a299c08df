"""Predictions against truth: scores, comparisons, cost, timing."""
