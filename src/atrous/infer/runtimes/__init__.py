"""Runtimes: image to low-resolution logits."""
