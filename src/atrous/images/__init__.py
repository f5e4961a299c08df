"""Images in, from files: photos, label maps, bands, rasters."""
