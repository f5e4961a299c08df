"""The loss, from low-resolution logits: `upsampled.upsampled_loss`."""
