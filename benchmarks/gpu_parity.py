"""Row of `gpu.py`: the kernels against their references, graph against eager, resume."""

import io
from collections import Counter
from copy import deepcopy
from dataclasses import replace

import torch
from gpu_bench import distance
from gpu_layers import found, is_norm, plain_conv, plain_norm
from gpu_logits import our_loss
from gpu_steps import batches_of, deterministic, recipe_of, training_of
from gpu_training import data
from plain_loss import segmentation_loss
from torch.nn import functional as F

from atrous.data.dataset import Dataset
from atrous.models.layers import resize
from atrous.train.recipe import Recipe

ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Largest relative distance from float64, over a whole tensor."""


def parity_kernels(bench):
    for check in (labels, losses, resizing, augmentation):
        with bench.surviving(check.__name__):
            check(bench)


def parity_fp32(bench):
    layers(bench, torch.float32)


def parity_bf16(bench):
    layers(bench, torch.bfloat16)


def labels(bench):
    """Ties within rounding may differ."""
    from atrous.kernels.triton.upsample import gpu_labels_confidence

    for dtype in (torch.float32, torch.bfloat16):
        for classes, cells, stride in [(3, 3, 4)] if bench.dry else [(182, 65, 8), (11, 90, 4)]:
            logits = bench.normal(2, classes, cells, cells, dtype=dtype, scale=3.0)
            size = cells * stride - 3, cells * stride - 1
            found_labels, confidence = gpu_labels_confidence(logits, stride, size)
            full = F.interpolate(logits.double(), scale_factor=float(stride), mode="bilinear")
            best, expected = full.softmax(1)[..., : size[0], : size[1]].max(1)
            unequal = (found_labels != expected).double().mean()
            bench.check(
                f"labels, {classes} classes, {dtype}",
                1e-4,
                unequal=unequal,
                confidence=(confidence - best).abs().max(),
            )


def losses(bench):
    """The hardest pixels may be others where losses are equal but for rounding."""
    dice = Recipe(dice_weight=1.0)
    weights = (0.0, 2.0, *[1.0] * 9)
    everything = Recipe(dice_weight=0.5, label_smoothing=0.1, class_weights=weights)
    cases = [("plain", Recipe(), 182, 65, 8), ("plain", Recipe(), 171, 33, 16)]
    cases += [("Dice", dice, 11, 88, 4), ("weights, smoothing, Dice", everything, 11, 33, 8)]
    cases += [("hard pixels", Recipe(ohem_fraction=0.3), 11, 33, 8)]
    for name, recipe, classes, cells, stride in cases[3:] if bench.dry else cases:
        cells, classes = (2, min(classes, 11)) if bench.dry else (cells, classes)
        side = cells * stride - 1
        logits = bench.normal(2, classes, cells, cells, scale=3.0).requires_grad_()
        target = bench.integers(classes, 2, side, side)
        target[:, ::7, ::5] = 255
        loss, gradient = our_loss(logits, target, stride, recipe)()
        wide = logits.detach().double().requires_grad_()
        full = F.interpolate(wide, scale_factor=float(stride), mode="bilinear")
        expected = segmentation_loss(full[..., :side, :side], target, recipe)
        (slope,) = torch.autograd.grad(expected, wide)
        bench.check(
            f"loss, {name}, {classes} classes",
            1e-2 if recipe.ohem_fraction < 1 else 1e-5,
            loss=distance(loss, expected),
            gradient=distance(gradient, slope),
        )


def layers(bench, dtype):
    """Each depthwise convolution and norm at its size in the network: the largest distances."""
    bound, worst = ROUNDING[dtype], {"depthwise": Counter(), "norm": Counter()}
    for name, (module, shape, _) in found(bench).items():
        with bench.surviving(name):
            kind = name.partition(" ")[0]
            for part, far in layer_distances(bench, module, shape, dtype).items():
                worst[kind][part] = max(worst[kind][part], far)
    # Rounding moves single values across the edges of a norm's activation.
    for kind, most in {"depthwise": bound, "norm": max(3 * bound, 3e-3)}.items():
        if worst[kind]:
            bench.check(f"{kind}, {dtype}, the worst of its sizes", most, **worst[kind])


def layer_distances(bench, module, shape, dtype):
    module = deepcopy(module).to(bench.device).train()
    module = module if is_norm(module) else module.to(dtype)
    plain = plain_norm if is_norm(module) else plain_conv
    x = (bench.normal(2, *shape[1:], dtype=dtype) + 1).requires_grad_()
    reference, wide = deepcopy(module).double(), x.detach().double().requires_grad_()
    y, expected = module(x), plain(reference, wide)
    grad = bench.normal(*y.shape, dtype=dtype)
    parameters = list(module.parameters()), list(reference.parameters())
    found_grads = torch.autograd.grad(y, [x, *parameters[0]], grad)
    slopes = torch.autograd.grad(expected, [wide, *parameters[1]], grad.double())
    far = {"forward": distance(y, expected), "input": distance(found_grads[0], slopes[0])}
    far["parameters"] = max(map(distance, found_grads[1:], slopes[1:]))
    if is_norm(module):
        pairs = [(norm.running_mean, norm.running_var) for norm in (module, reference)]
        far["statistics"] = max(map(distance, *pairs))
    return far


def resizing(bench):
    for dtype, bound in ROUNDING.items():
        for shape, factor in [((2, 3, 3, 2), 2)] if bench.dry else [((4, 128, 22, 30), 4)]:
            x = bench.normal(*shape, dtype=dtype).requires_grad_()
            wide = x.detach().double().requires_grad_()
            y = resize(x, factor)
            expected = F.interpolate(wide, scale_factor=float(factor), mode="bilinear")
            grad = bench.normal(*y.shape, dtype=dtype)
            (slope,) = torch.autograd.grad(y, x, grad)
            (wanted,) = torch.autograd.grad(expected, wide, grad.double())
            far = {"forward": distance(y, expected), "backward": distance(slope, wanted)}
            bench.check(f"resize x{factor}, {dtype}", bound, **far)


def augmentation(bench):
    """Crops of the same random numbers: levels of grey on average, and the share of labels."""
    from atrous.train.augment import augment, draw
    from atrous.train.packed import Packed, cut_packed, pack

    with data(bench) as folder:
        samples = list(Dataset.open(str(folder)).split("train"))[:8]
    plain = replace(recipe_of(bench, 1), brightness=0.0, contrast=0.0, saturation=0.0, gamma=0.0)
    kinds = {"geometry": plain, "all": replace(recipe_of(bench, 1), hue=0.1)}
    kinds |= {name: replace(plain, **{name: 0.4}) for name in ("brightness", "contrast", "gamma")}
    for kind, recipe in list(kinds.items())[: 2 if bench.dry else None]:
        crops = [draw(sample.label.shape, recipe, seed) for seed, sample in enumerate(samples)]
        pairs = list(zip(samples, crops, strict=True))
        pixels, table, channels = pack(pairs, recipe.crop_size)
        packed = Packed(pixels.to(bench.device), table.to(bench.device), channels)
        image, target = (part.cpu() for part in cut_packed(packed, recipe))
        cut = [augment(*pair, recipe.crop_size) for pair in pairs]
        wanted, truth = map(torch.stack, zip(*cut, strict=True))
        levels = (image.double() - wanted.double()).abs().mean()
        bench.check(f"augmentation, {kind}", 0.5, grey_levels=levels)
        differ = (target != truth).double().mean()
        bench.check(f"augmentation, {kind}, labels", 1e-3, unequal=differ)


def parity_steps(bench):
    """The share of tensors that differ: without a graph, in a second training, after a resume."""
    count, recipe = 2 if bench.dry else 10, recipe_of(bench, 1 if bench.dry else 8)
    recipe = replace(recipe, dropout=0.1)
    batches = batches_of(bench, recipe, count)
    whole = after(bench, recipe, batches)
    eager = after(bench, replace(recipe, cuda_graph=False), batches)
    far = {"again": unequal(after(bench, recipe, batches), whole), "eager": unequal(eager, whole)}
    cut, checkpoint = count * 6 // 10, io.BytesIO()
    torch.save(after(bench, recipe, batches[:cut]), checkpoint)
    checkpoint.seek(0)
    state = torch.load(checkpoint, map_location=bench.device, weights_only=True)
    far["resumed"] = unequal(after(bench, recipe, batches[cut:], state), whole)
    bench.check(f"{count} steps, resumed after {cut}", 0, **far)


def after(bench, recipe, batches, state=None):
    """Return a copy of the state of a training after a step on each batch."""
    training = training_of(bench, recipe)
    if state is not None:
        training.restore(state, bench.path)
    loader = iter(batches)
    with deterministic(recipe):
        for _ in batches:
            training.advance(loader)
    return deepcopy(training.state())


def unequal(first, second):
    """Return the share of tensors that are not equal to the bit."""
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    return sum(not torch.equal(a, b) for a, b in pairs) / len(pairs)


def tensors(state):
    """Yield the tensors of nested dicts and lists, in order."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from tensors(value)
