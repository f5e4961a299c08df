"""Networks with one output that is read by a sigmoid: with a background, they have two classes."""

import math
from typing import Any

import torch
from torch import nn

from atrous.models.catalogue import build


def with_background(
    network: nn.Module, options: dict[str, Any], threshold: float
) -> tuple[nn.Module, dict[str, Any]]:
    """Put a first class before the one output z of a network.

    The logit b of the first class is the same everywhere, so that argmax(b, z) is
    sigmoid(z) > threshold, enlarged or not: an interpolation of equal values changes nothing.

    Returns:
        The network of two classes, and the arguments of `build` for it.
    """
    options = {**options, "num_classes": 2}
    with torch.device("meta"):
        wider = build(**options)
    shapes = {name: tensor.shape for name, tensor in wider.state_dict().items()}
    tensors = {
        name: tensor
        if tensor.shape == shapes[name]
        else torch.cat([torch.zeros_like(tensor), tensor])
        for name, tensor in network.state_dict().items()
    }
    if threshold != 0.5:
        tensors["head.1.bias"][0] = math.log(threshold / (1 - threshold))
    wider.load_state_dict(tensors, assign=True)
    return wider.eval(), options
