"""The moving average of a network's weights, which is validated and kept."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of weights and buffers; its decay rises from 0 to `decay`."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start from a copy of `network`, whose tensors must stay where they are."""
        self.network, self.decay = deepcopy(network).eval(), decay
        self.numbers: tuple[list[Tensor], list[Tensor]] = [], []
        self.counts: tuple[list[Tensor], list[Tensor]] = [], []  # integers, of batch norms
        ours, theirs = self.network.state_dict().values(), network.state_dict().values()
        for kept, latest in zip(ours, theirs, strict=True):
            lists = self.numbers if kept.is_floating_point() else self.counts
            lists[0].append(kept)
            lists[1].append(latest)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the network's tensors after a step, 1 to num_steps."""
        warm_up = 1 - step ** (-2 / 3)  # timm's, by Katherine Crowson
        torch._foreach_lerp_(*self.numbers, weight=1 - min(warm_up, self.decay))
        if self.counts[0]:
            torch._foreach_copy_(*self.counts)
