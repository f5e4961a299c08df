"""GeoTIFFs and TIFFs to label rasters."""
