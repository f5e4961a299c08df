"""Shards: webdataset tars, written and read at random."""
