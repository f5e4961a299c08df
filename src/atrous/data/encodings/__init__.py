"""Label encodings: from files to dataset ids, then to train ids."""
