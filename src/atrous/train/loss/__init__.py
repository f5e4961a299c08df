"""The loss from low-resolution logits, and its references."""
