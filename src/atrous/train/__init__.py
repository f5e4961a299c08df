"""A Recipe in, a run folder out."""
