"""Model names to files; weights that other projects publish."""
