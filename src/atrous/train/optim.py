"""Optimisers and learning-rate schedules."""

import math

import torch
from torch import nn

from atrous.train.recipe import Recipe


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimiser; each group's `lr_factor` scales the scheduled learning rate.

    Norms and biases, tensors of one dimension, have no weight decay.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            key = name.startswith("backbone."), parameter.ndim > 1
            groups.setdefault(key, []).append(parameter)
    tables = [
        {
            "params": parameters,
            "lr_factor": recipe.backbone_lr_factor if in_backbone else 1.0,
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), parameters in groups.items()
    ]
    lr, momentum = recipe.base_lr, recipe.momentum
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(tables, lr, momentum=momentum)
        case "adam":
            return torch.optim.Adam(tables, lr, betas=(momentum, 0.999))
        case "adamw":
            return torch.optim.AdamW(tables, lr, betas=(momentum, 0.999))
        case "rmsprop":
            return torch.optim.RMSprop(tables, lr, momentum=momentum)


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
