"""Networks of any number of input bands: their first convolution, and their normalisation.

ImageNet's weights are for red, green and blue. Bands that are known to be these keep theirs, any
other band gets the mean of the three, and all are scaled by 3 / C, which keeps the sums as large as
before. That is timm's rule for one band; for more, timm repeats red, green and blue, which would be
wrong for other bands.
"""

from collections.abc import Sequence

import torch
from torch import nn

Colors = Sequence[int | None]
"""Colour of each band: 0 red, 1 green, 2 blue; None: another or unknown."""


def take_bands(network: nn.Module, colors: Colors, *, keep_weights: bool) -> None:
    """Change the first convolution of three inputs to one input for each of `colors`.

    With `keep_weights` its weights are spread over the bands; otherwise they are drawn again, from
    the distribution that spread weights would have.
    """
    conv = next(
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3
    )
    weight = conv.weight.detach()  # (O, 3, k, k)
    if keep_weights:
        mean = weight.mean(1)
        planes = [mean if color is None else weight[:, color] for color in colors]
        spread = torch.stack(planes, 1) * (3 / len(colors))  # (O, C, k, k)
    else:
        shape = weight.shape[0], len(colors), *weight.shape[2:]
        spread = torch.randn(shape) * weight.std() * (3 / len(colors)) ** 0.5
    conv.in_channels, conv.weight = len(colors), nn.Parameter(spread)


def of_bands(values: Sequence[float], colors: Colors) -> tuple[float, ...]:
    """Return the mean or deviation of each band, from those of red, green and blue."""
    mean = sum(values) / len(values)
    return tuple(mean if color is None else values[color] for color in colors)
