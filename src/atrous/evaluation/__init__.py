"""Predictions against truth: `evaluate`, `compare`, cost and timing."""
