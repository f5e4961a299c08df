"""Which mask belongs to which image, and in which split: told by names, lists and COCO JSONs."""
