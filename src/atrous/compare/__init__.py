"""Models weighed against each other on one data set: what they cost, and what they score."""
