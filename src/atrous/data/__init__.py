"""Files in, samples out: a dataset is a TOML file, read by one reader."""
