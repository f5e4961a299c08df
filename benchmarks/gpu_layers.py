"""Row of `gpu.py`: the layers of the training step's network, beside torch's."""

from collections import Counter
from copy import deepcopy
from functools import partial

import torch
from gpu_bench import short, times_faster
from gpu_steps import network_of, recipe_of
from torch import nn
from torch.nn import functional as F

from atrous.models.convolution import StaticSameConv, is_depthwise
from atrous.models.layers import resize

REPEATS = 10
"""Calls in a graph, so that launches do not count."""


def layers(bench):
    """Each depthwise convolution, and each norm with its activation, once per shape."""
    sums = {}
    for name, (module, shape, count) in found(bench).items():
        with bench.surviving(name):
            times = layer_times(bench, name, module, shape)
            kind = name.partition(" ")[0]
            bench.report(name, count=count, **rounded(times))
            for part, milliseconds in times.items():
                total = sums.setdefault((kind, part), Counter())
                total.update({who: count * ms for who, ms in milliseconds.items()})
    for (kind, part), total in sums.items():
        faster = times_faster(total, ("atrous", "torch"))
        bench.report(f"all {kind}, {part}", **rounded({"ms": total}), times_faster=faster)
    with bench.surviving("resize"):
        resizing(bench)


def found(bench):
    """Return module, shape of the input and count of the network's layers, by name."""
    recipe = recipe_of(bench, 1 if bench.dry else 32)
    network, seen = network_of(bench, recipe), {}

    def note(place, module, arguments):
        shape = tuple(arguments[0].shape)
        name = name_of(network.get_submodule(place), shape)
        kept, _, count = seen.get(name, (network.get_submodule(place), shape, 0))
        seen[name] = kept, shape, count + 1

    shapes_only = deepcopy(network).to("meta").train()
    for place, module in shapes_only.named_modules():
        if is_norm(module) or (isinstance(module, nn.Conv2d) and is_depthwise(module)):
            module.register_forward_pre_hook(partial(note, place))
    shapes_only(torch.zeros(recipe.batch_size, 3, *recipe.crop_size, device="meta"))
    return seen


def is_norm(module):
    """Return whether a module is timm's norm with an activation of its own."""
    return isinstance(module, nn.BatchNorm2d) and hasattr(module, "act")


def name_of(module, shape):
    _, channels, height, width = shape
    size = f"{channels}@{height}x{width}"
    if is_norm(module):
        return f"norm {size} {type(module.act).__name__}"
    k, s, d = module.kernel_size[0], module.stride[0], module.dilation[0]
    return f"depthwise {size} k{k} s{s} d{d}"


def layer_times(bench, name, module, shape):
    """Return milliseconds by the pass and the contender."""
    module = deepcopy(module).to(bench.device).train()
    x = bench.normal(*shape, dtype=torch.bfloat16).requires_grad_()
    if is_norm(module):
        plain, passes = plain_norm, {"backward": (x, module.weight, module.bias)}
    else:
        module = module.to(torch.bfloat16)
        plain, passes = plain_conv, {"by_input": (x,), "by_weight": (module.weight,)}
    functions = {"atrous": module, "torch": partial(plain, module)}
    builders = {
        (who, part): partial(in_graph, bench, function, x, wanted)
        for who, function in functions.items()
        for part, wanted in {"forward": (), **passes}.items()
    }
    times = bench.in_turn(bench.built(name, builders), rounds=5, burst=0.01)
    each = {key: ms / (1 if bench.dry else REPEATS) for key, (ms, _) in times.items()}
    forward = {who: each[who, "forward"] for who in functions if (who, "forward") in each}
    both = {
        part: {who: each[who, part] - ms for who, ms in forward.items() if (who, part) in each}
        for part in passes
    }
    return {"forward": forward, **both}


def in_graph(bench, function, x, wanted):
    """Return the forward pass, with the gradients of `wanted`, as a graph."""
    grad = torch.ones_like(function(x))

    def call():
        y = function(x)
        if wanted:
            torch.autograd.grad(y, wanted, grad)

    return bench.captured(call, REPEATS)


def plain_conv(conv, x):
    """Convolve as a network does without our layers."""
    padding, (k, s, d) = conv.padding, (conv.kernel_size[0], conv.stride[0], conv.dilation[0])
    if isinstance(conv, StaticSameConv):
        whole = max(0, (k - 1) * d + 1 - s)
        x, padding = F.pad(x, [whole // 2, whole - whole // 2] * 2), 0
    return F.conv2d(x, conv.weight, None, s, padding, d, conv.groups)


def plain_norm(norm, x):
    statistics = norm.running_mean, norm.running_var, norm.weight, norm.bias
    return norm.act(F.batch_norm(x, *statistics, True, norm.momentum, norm.eps))


def resizing(bench):
    """Bilinear enlargement with its backward pass, as in the decoder."""
    shape = (1, 3, 2, 3) if bench.dry else (32, 128, 22, 30)
    x = bench.normal(*shape, dtype=torch.bfloat16).requires_grad_()
    enlarge = partial(F.interpolate, scale_factor=4.0, mode="bilinear")
    builders = {
        "atrous": partial(in_graph, bench, lambda x: resize(x, 4), x, (x,)),
        "torch": partial(in_graph, bench, enlarge, x, (x,)),
    }
    case = f"resize {shape[1]}@{shape[2]}x{shape[3]} x4, forward and backward"
    bench.compare(f"{case}, {REPEATS} times", builders)
    bench.compare(f"{case}, once", {"torch, deterministic": lambda: partial(in_order, enlarge, x)})


def in_order(enlarge, x):
    """The passes of `enlarge` as a deterministic training takes them; not in a graph."""
    torch.use_deterministic_algorithms(True)
    try:
        enlarge(x).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def rounded(tables):
    return {key: {who: short(ms) for who, ms in table.items()} for key, table in tables.items()}
