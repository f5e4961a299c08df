"""Optimisers and learning-rate schedules."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from atrous.train.recipe import Recipe


def build_optimizer(
    network: nn.Module, recipe: Recipe, *, capturable: bool = False
) -> torch.optim.Optimizer:
    """Return the optimiser; each group's `lr_factor` scales the scheduled learning rate.

    Norms and biases, tensors of one dimension, have no weight decay.

    Args:
        network: the parameters.
        recipe: names the optimiser.
        capturable: for a GPU: fused into few kernels, which read the learning rate from the device
            and can be captured in a CUDA graph.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            key = name.startswith("backbone."), parameter.ndim > 1
            groups.setdefault(key, []).append(parameter)
    tables: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr_factor": recipe.backbone_lr_factor if in_backbone else 1.0,
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), parameters in groups.items()
    ]
    if capturable:
        for table in tables:
            table["lr"] = torch.zeros((), device=table["params"][0].device)
    lr, momentum, betas = recipe.base_lr, recipe.momentum, (recipe.momentum, 0.999)
    fused = capturable or None  # None: torch's default
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(tables, lr, momentum=momentum, fused=fused)
        case "adam":
            return torch.optim.Adam(tables, lr, betas, fused=fused, capturable=capturable)
        case "adamw":
            return torch.optim.AdamW(tables, lr, betas, fused=fused, capturable=capturable)
        case "rmsprop":  # has no fused form
            return torch.optim.RMSprop(
                tables, lr, momentum=momentum, capturable=capturable, foreach=capturable or None
            )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the scheduled learning rate; a group's tensor stays where it is."""
    for group in optimizer.param_groups:
        scaled = lr * group["lr_factor"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(scaled)
        else:
            group["lr"] = scaled


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the moments of `state`; the options stay, which may be of another device."""
    options = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group |= own


def learning_rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step, 0 to num_steps - 1.

    >>> learning_rate(50, Recipe(base_lr=0.1, warmup_steps=0, num_steps=100, poly_power=1.0))
    0.05
    """
    if step < recipe.warmup_steps:
        return recipe.base_lr * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.num_steps - recipe.warmup_steps)
    match recipe.schedule:
        case "poly":  # ParseNet (Liu et al. 2015); DeepLabV2, section 4.1
            return float(recipe.base_lr * (1 - done) ** recipe.poly_power)
        case "cosine":
            return recipe.base_lr * (1 + math.cos(math.pi * done)) / 2
        case "constant":
            return recipe.base_lr
