"""Pages that explain themselves: one HTML file each, which needs no network."""
