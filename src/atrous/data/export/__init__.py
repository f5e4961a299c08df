"""Label maps as files that annotation tools read."""
