"""The loss, from low-resolution logits: `upsampled.upsampled_loss`.

Its sums over the pixels are computed by one of three modules with the same functions: `kernel` (C),
`gpu` (Triton) and `strips` (torch, the reference).
"""
