"""Rows of `gpu.py`: labels and the loss from logits, beside torch's."""

import sys
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F

from atrous.train.loss.upsampled import upsampled_loss
from atrous.train.recipe import Recipe

sys.path.append(str(Path(__file__).parent.parent / "tests/train"))
from plain_loss import dice_loss


def labels(bench):
    from atrous.kernels.triton.upsample import gpu_labels

    cases = [(8, 182, 65, 8), (8, 11, 90, 4), (1, 182, 65, 8), (1, 19, 256, 4)]
    for batch, classes, cells, stride in tiny(bench, cases, [(1, 3, 2, 4)]):
        side = cells * stride
        logits = bench.normal(batch, classes, cells, cells, scale=3.0)
        planes = logits.contiguous()
        enlarged = partial(F.interpolate, size=(side, side), mode="bilinear")
        name = f"{batch}x{classes}, {cells} -> {side}"
        builders = {
            "atrous": lambda a=(logits, stride, (side, side)): partial(gpu_labels, *a),
            "torch": lambda x=planes, up=enlarged: lambda: up(x).argmax(1),
            "torch nhwc": lambda x=logits, up=enlarged: lambda: up(x).argmax(1),
        }
        bench.compare(name, builders, memory=builders)
        with bench.surviving("confidence"):
            builders["atrous"] = confidence_builder(logits, stride, (side, side))
            builders["torch"] = lambda x=planes, up=enlarged: lambda: up(x).softmax(1).max(1)
            del builders["torch nhwc"]
            bench.compare(f"{name}, confidence", builders, memory=builders)


def confidence_builder(logits, stride, size):
    from atrous.kernels.triton.upsample import gpu_labels_confidence

    return lambda: partial(gpu_labels_confidence, logits, stride, size)


def loss(bench):
    cases = [(8, 182, 65, 8, False), (16, 171, 65, 8, False), (8, 11, 88, 4, True)]
    for batch, classes, cells, stride, dice in tiny(bench, cases, [(1, 3, 2, 4, True)]):
        side = cells * stride
        logits = bench.normal(batch, classes, cells, cells, scale=3.0).requires_grad_()
        planes = logits.detach().contiguous().requires_grad_()
        target = bench.integers(classes, batch, side, side)
        target[:, ::7, ::5] = 255
        ours = our_loss(logits, target, stride, Recipe(dice_weight=float(dice)))
        wide = target.long()
        plain, plain_nhwc = (plain_loss(x, wide, stride) for x in (planes, logits))
        builders = {
            "atrous": lambda call=ours: call,
            "torch": lambda call=plain: call,
            "atrous, graph": lambda call=ours: bench.captured(call),
            "torch, graph": lambda call=plain: bench.captured(call),
            "torch nhwc": lambda call=plain_nhwc: call,
        }
        if dice:
            builders["torch with Dice"] = partial(plain_loss, planes, wide, stride, 1.0)
        name = f"{batch}x{classes}, {cells} -> {side}{', Dice (torch without)' * dice}"
        bench.compare(name, builders, memory=[each for each in builders if "graph" not in each])


def our_loss(logits, target, stride, recipe):
    """Return a call that gives the loss and the gradient of the logits."""

    def call():
        value = upsampled_loss(logits, target, stride, recipe)
        return value.detach(), torch.autograd.grad(value, logits)[0]

    return call


def plain_loss(logits, target, stride, dice=0.0):
    """As `our_loss`, at full size; `target` is int64."""

    def call():
        full = F.interpolate(logits, scale_factor=float(stride), mode="bilinear")
        value = F.cross_entropy(full, target, ignore_index=255)
        if dice:
            value = value + dice * dice_loss(full, target)
        return value.detach(), torch.autograd.grad(value, logits)[0]

    return call


def tiny(bench, cases, dry_cases):
    """Return the cases of this run."""
    return dry_cases if bench.dry else cases
