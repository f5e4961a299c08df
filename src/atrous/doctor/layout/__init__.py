"""Which mask belongs to which image, and in which split: found by names, lists and COCO JSONs."""
