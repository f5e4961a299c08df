"""Archives of built-in data sets: downloaded, checked, unpacked safely."""
