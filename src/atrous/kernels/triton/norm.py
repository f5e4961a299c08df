"""Batch normalisation with the activation that follows it, on a GPU, in Triton.

The reference is F.batch_norm and the activation. Values lie channels-last: a batch (B, C, H, W) is
a matrix of B H W rows and C columns, cut into tiles. Three kernels make a forward pass, and three a
backward pass: one reads all values and writes the sums of each program, one adds these up, one
writes the result. The backward pass computes the activation's derivative anew from the input, so
that nothing else of full size is kept. Sums are in float32 and in a fixed order: the same input
gives the same bits.

The kernels that sum go over the matrix from top to bottom, all programs together; those that write
start at the bottom, whose values the GPU's cache still holds.
"""

from math import gcd
from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

Activation = Literal["none", "relu", "relu6", "hardswish", "silu"]

_TILE = 2048
"""Values of a tile: 32 bytes of each thread in bfloat16."""
_COLUMNS = 64
"""Columns of a tile, at most: 128 bytes of a row in bfloat16."""
_SUMMING = 1024
"""Programs that sum, at most; about as many as run at a time."""
_WRITING = 8192
"""Programs that write, at most; more than run at a time, so that they keep to an order."""
_SIZES = ["rows", "units", "steps"]
"""Integers that vary from layer to layer: not to be compiled for each."""


def batch_moments(
    x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Return each channel's mean and variance (C,), float32, and update the running ones.

    Args:
        x: (B, C, H, W), channels-last; float16, bfloat16 or float32. At least two rows.
        running_mean: (C,), changed in place.
        running_var: (C,), changed in place, by the unbiased variance.
        momentum: weight of this batch in both.
    """
    rows, channels = _matrix(x)
    grid, steps, sizes = _plan(rows, channels, _SUMMING)
    partial = torch.empty((2, grid[1], channels), dtype=torch.float32, device=x.device)
    _partial_moments[grid](x, partial, rows, steps=steps, **sizes)
    mean, variance = torch.empty((2, channels), dtype=torch.float32, device=x.device)
    _merge_moments[triton.cdiv(channels, 4),](
        partial, mean, variance, running_mean, running_var, momentum, rows,
        sizes["block_r"], grid[1], channels, block_n=_SUMMING, block_c=4,
    )  # fmt: skip
    return mean, variance


def normalize(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    activation: Activation,
) -> Tensor:
    """Return activation((x - mean) / sqrt(variance + eps) * weight + bias), of the type of `x`.

    Args:
        x: (B, C, H, W), channels-last; float16, bfloat16 or float32.
        mean: (C,), as `variance`, `weight` and `bias`; of any of these types.
        variance: biased, of the batch, or the running one.
        weight: of the affine map.
        bias: of the affine map.
        eps: added to the variance.
        activation: follows the affine map.
    """
    rows, channels = _matrix(x)
    grid, steps, sizes = _plan(rows, channels, _WRITING)
    y = torch.empty_like(x)
    _normalize[grid](
        x, y, mean, variance, weight, bias, eps, rows, steps=steps, activation=activation, **sizes
    )
    return y


def gradients(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    activation: Activation,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `x`, `weight` and `bias`, the latter two in float32.

    Args:
        grad: that of `normalize`'s result, channels-last.
        x: as the other arguments, what `normalize` took.
        mean: of `x`.
        variance: of `x`, biased.
        weight: of the affine map.
        bias: of the affine map.
        eps: added to the variance.
        activation: follows the affine map.
    """
    rows, channels = _matrix(x)
    assert grad.shape == x.shape
    values = (grad, x, mean, variance, weight, bias)
    grid, steps, sizes = _plan(rows, channels, _SUMMING)
    partial = torch.empty((2, grid[1], channels), dtype=torch.float32, device=x.device)
    _partial_slopes[grid](*values, partial, eps, rows, steps=steps, activation=activation, **sizes)
    of_weight, of_bias = torch.empty((2, channels), dtype=torch.float32, device=x.device)
    _merge_slopes[triton.cdiv(channels, 4),](
        partial, of_weight, of_bias, grid[1], channels, block_n=_SUMMING, block_c=4
    )
    grid, steps, sizes = _plan(rows, channels, _WRITING)
    of_x = torch.empty_like(x)
    _slopes[grid](
        *values, of_weight, of_bias, of_x, eps, rows, steps=steps, activation=activation, **sizes
    )
    return of_x, of_weight, of_bias


def _matrix(x: Tensor) -> tuple[int, int]:
    """Return the number of rows and columns of `x`."""
    assert x.is_contiguous(memory_format=torch.channels_last)
    return x.numel() // x.shape[1], x.shape[1]


def _plan(rows: int, channels: int, programs: int) -> tuple[tuple[int, int], int, dict[str, int]]:
    """Return the grid (tiles in a row, programs for each of them), a program's tiles, and sizes.

    A row is `units` x `vector` values long, so that the compiler knows that 16 bytes can be read
    at a time, whatever the number of channels is a multiple of.
    """
    block_c = min(_COLUMNS, max(16, triton.next_power_of_2(channels)))
    block_r = _TILE // block_c
    blocks, tiles = triton.cdiv(channels, block_c), triton.cdiv(rows, block_r)
    steps = triton.cdiv(tiles, max(1, programs // blocks))
    vector = gcd(channels, 8)
    sizes = {"units": channels // vector, "vector": vector, "block_r": block_r, "block_c": block_c}
    return (blocks, triton.cdiv(tiles, steps)), steps, sizes


@triton.jit  # type: ignore[untyped-decorator]
def _tile(channels, block_r: tl.constexpr, block_c: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return a tile's columns, its rows from 0, and the offset of each value from the first row."""
    channel = tl.program_id(0) * block_c + tl.arange(0, block_c)
    row = tl.arange(0, block_r)
    return channel, row, row[:, None] * channels + channel[None, :]


@triton.jit
def _rows_of(program, programs, rows, block_r):  # type: ignore[no-untyped-def]
    """Return how many rows a program sums, where each takes a tile in turn."""
    rounds = rows // (programs * block_r)
    rest = rows - rounds * (programs * block_r) - program * block_r
    return rounds * block_r + tl.minimum(tl.maximum(rest, 0), block_r)


@triton.jit
def _first_row_from_below(height):  # type: ignore[no-untyped-def]
    """Return the first row of a program that writes `height` rows; the last program has row 0."""
    return (tl.num_programs(1) - 1 - tl.program_id(1)).to(tl.int64) * height


@triton.jit
def _load_map(mean, variance, weight, bias, eps, channel, channels):  # type: ignore[no-untyped-def]
    """Return mean, 1 / standard deviation, weight and bias of `channel`, each (1, block_c)."""
    at, inside = channel[None, :], channel[None, :] < channels
    mean = tl.load(mean + at, mask=inside, other=0).to(tl.float32)
    variance = tl.load(variance + at, mask=inside, other=1).to(tl.float32)
    weight = tl.load(weight + at, mask=inside, other=0).to(tl.float32)
    bias = tl.load(bias + at, mask=inside, other=0).to(tl.float32)
    return mean, tl.rsqrt(variance + eps), weight, bias


@triton.jit  # type: ignore[untyped-decorator]
def _activate(y, activation: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the activation of `y`; where() passes NaN on, minimum and maximum do not."""
    if activation == "relu":
        y = tl.where(y < 0, 0.0, y)
    elif activation == "relu6":
        y = tl.where(y < 0, 0.0, tl.where(y > 6, 6.0, y))
    elif activation == "hardswish":
        y = tl.where(y < -3, 0.0, tl.where(y > 3, y, y * (y + 3) * (1 / 6)))
    elif activation == "silu":
        y = y / (1 + tl.exp(-y))
    return y


@triton.jit  # type: ignore[untyped-decorator]
def _through(grad, y, activation: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the gradient of `y` where `grad` is that of its activation."""
    if activation == "relu":
        grad = tl.where(y <= 0, 0.0, grad)
    elif activation == "relu6":
        grad = tl.where((y <= 0) | (y >= 6), 0.0, grad)
    elif activation == "hardswish":
        grad = tl.where(y <= -3, 0.0, tl.where(y >= 3, grad, grad * (y * (1 / 3) + 0.5)))
    elif activation == "silu":
        share = 1 / (1 + tl.exp(-y))
        grad = grad * share * (1 + y * (1 - share))
    return grad


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _partial_moments(  # type: ignore[no-untyped-def]
    x, partial, rows, units, steps,
    vector: tl.constexpr, block_r: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """Write each program's mean and its sum of squared deviations from it, (2, programs, C)."""
    channels = units * vector
    channel, row, inner = _tile(channels, block_r, block_c)
    within = channel[None, :] < channels
    program, programs = tl.program_id(1), tl.num_programs(1)
    left = rows - program * block_r
    x += program * block_r * channels
    # Loaded a step ahead: the compiler would wait for each part of a tile by itself.
    value = tl.load(x + inner, mask=(row < left)[:, None] & within, other=0)
    # Deviations from a value near the mean: squares of what is far from 0 would cancel.
    near = tl.sum(value.to(tl.float32), 0) / tl.minimum(left, block_r).to(tl.float32)
    total = tl.zeros([block_r, block_c], tl.float32)
    squares = tl.zeros([block_r, block_c], tl.float32)
    for _ in range(steps):
        inside = (row < left)[:, None] & within
        x += programs * block_r * channels
        left -= programs * block_r
        next_value = tl.load(x + inner, mask=(row < left)[:, None] & within, other=0)
        away = tl.where(inside, value.to(tl.float32) - near[None, :], 0.0)
        total += away
        squares += away * away
        value = next_value
    count = _rows_of(program, programs, rows, block_r).to(tl.float32)
    away = tl.sum(total, 0)
    spread = tl.sum(squares, 0) - away * away / count
    spread = tl.where(spread < 0, 0.0, spread)
    at = partial + program * channels + channel
    tl.store(at, near + away / count, mask=channel < channels)
    tl.store(at + programs * channels, spread, mask=channel < channels)


@triton.jit  # type: ignore[untyped-decorator]
def _load_partial(partial, programs, channels, block_n: tl.constexpr, block_c: tl.constexpr):  # type: ignore[no-untyped-def]
    """Load both kinds of sums (2, programs, C) of some columns, 0 beyond."""
    channel, program, inner = _tile(channels, block_n, block_c)
    inside = (program < programs)[:, None] & (channel < channels)[None, :]
    first = tl.load(partial + inner, mask=inside, other=0)
    second = tl.load(partial + programs * channels + inner, mask=inside, other=0)
    return channel, program, first, second


@triton.jit(do_not_specialize=["rows", "block_r", "programs", "channels"])  # type: ignore[untyped-decorator]
def _merge_moments(  # type: ignore[no-untyped-def]
    partial, mean, variance, running_mean, running_var, momentum, rows, block_r, programs,
    channels, block_n: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """Merge moments of parts, as Chan et al. (1979) do, and update the running ones."""
    channel, program, means, spreads = _load_partial(partial, programs, channels, block_n, block_c)
    count = tl.where(program < programs, _rows_of(program, programs, rows, block_r), 0)
    count = count.to(tl.float32)[:, None]
    inside = channel < channels
    near = tl.load(partial + channel, mask=inside, other=0)
    middle = near + tl.sum(count * (means - near[None, :]), 0) / rows
    away = means - middle[None, :]
    spread = tl.sum(spreads + count * away * away, 0)
    tl.store(mean + channel, middle, mask=inside)
    tl.store(variance + channel, spread / rows, mask=inside)
    before = tl.load(running_mean + channel, mask=inside, other=0).to(tl.float32)
    after = before * (1 - momentum) + middle * momentum
    tl.store(running_mean + channel, after.to(running_mean.dtype.element_ty), mask=inside)
    before = tl.load(running_var + channel, mask=inside, other=0).to(tl.float32)
    after = before * (1 - momentum) + spread / (rows - 1) * momentum
    tl.store(running_var + channel, after.to(running_var.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _normalize(  # type: ignore[no-untyped-def]
    x, y, mean, variance, weight, bias, eps, rows, units, steps, activation: tl.constexpr,
    vector: tl.constexpr, block_r: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """Write the result, `steps` tiles of it."""
    channels = units * vector
    channel, row, inner = _tile(channels, block_r, block_c)
    mean, scale, weight, bias = _load_map(mean, variance, weight, bias, eps, channel, channels)
    scale *= weight
    first = _first_row_from_below(steps * block_r)
    left = (rows - first).to(tl.int32)
    x += first * channels
    y += first * channels
    for _ in range(steps):
        inside = (row < left)[:, None] & (channel < channels)[None, :]
        value = tl.load(x + inner, mask=inside, other=0).to(tl.float32)
        value = _activate((value - mean) * scale + bias, activation)
        tl.store(y + inner, value.to(y.dtype.element_ty), mask=inside)
        x += block_r * channels
        y += block_r * channels
        left -= block_r


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _partial_slopes(  # type: ignore[no-untyped-def]
    grad, x, mean, variance, weight, bias, partial, eps, rows, units, steps,
    activation: tl.constexpr, vector: tl.constexpr, block_r: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """Write each program's share in the gradients of weight and bias, (2, programs, C)."""
    channels = units * vector
    channel, row, inner = _tile(channels, block_r, block_c)
    mean, scale, weight, bias = _load_map(mean, variance, weight, bias, eps, channel, channels)
    program, programs = tl.program_id(1), tl.num_programs(1)
    left = rows - program * block_r
    x += program * block_r * channels
    grad += program * block_r * channels
    of_weight = tl.zeros([block_r, block_c], tl.float32)
    of_bias = tl.zeros([block_r, block_c], tl.float32)
    within = channel[None, :] < channels
    inside = (row < left)[:, None] & within
    # Loaded a step ahead: the compiler would wait for each part of a tile by itself.
    value = tl.load(x + inner, mask=inside, other=0)
    slope = tl.load(grad + inner, mask=inside, other=0)
    for _ in range(steps):
        x += programs * block_r * channels
        grad += programs * block_r * channels
        left -= programs * block_r
        inside = (row < left)[:, None] & within
        next_value = tl.load(x + inner, mask=inside, other=0)
        next_slope = tl.load(grad + inner, mask=inside, other=0)
        away = value.to(tl.float32) - mean
        flow = _through(slope.to(tl.float32), away * (scale * weight) + bias, activation)
        of_weight += flow * away
        of_bias += flow
        value, slope = next_value, next_slope
    at = partial + program * channels + channel[None, :]
    tl.store(at, tl.sum(of_weight, 0)[None, :] * scale, mask=within)
    tl.store(at + programs * channels, tl.sum(of_bias, 0)[None, :], mask=within)


@triton.jit(do_not_specialize=["programs", "channels"])  # type: ignore[untyped-decorator]
def _merge_slopes(  # type: ignore[no-untyped-def]
    partial, of_weight, of_bias, programs, channels, block_n: tl.constexpr, block_c: tl.constexpr
):  # fmt: skip
    """Add up the shares of all programs."""
    channel, _, first, second = _load_partial(partial, programs, channels, block_n, block_c)
    tl.store(of_weight + channel, tl.sum(first, 0), mask=channel < channels)
    tl.store(of_bias + channel, tl.sum(second, 0), mask=channel < channels)


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _slopes(  # type: ignore[no-untyped-def]
    grad, x, mean, variance, weight, bias, of_weight, of_bias, of_x, eps, rows, units, steps,
    activation: tl.constexpr, vector: tl.constexpr, block_r: tl.constexpr, block_c: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the input, `steps` tiles of it."""
    channels = units * vector
    channel, row, inner = _tile(channels, block_r, block_c)
    mean, scale, weight, bias = _load_map(mean, variance, weight, bias, eps, channel, channels)
    at, within = channel[None, :], channel[None, :] < channels
    tilt = tl.load(of_weight + at, mask=within, other=0) * scale / rows
    offset = tl.load(of_bias + at, mask=within, other=0) / rows
    first = _first_row_from_below(steps * block_r)
    left = (rows - first).to(tl.int32)
    x += first * channels
    grad += first * channels
    of_x += first * channels
    for _ in range(steps):
        inside = (row < left)[:, None] & within
        away = tl.load(x + inner, mask=inside, other=0).to(tl.float32) - mean
        slope = tl.load(grad + inner, mask=inside, other=0).to(tl.float32)
        slope = _through(slope, away * (scale * weight) + bias, activation)
        slope = (slope - offset - away * tilt) * (scale * weight)
        tl.store(of_x + inner, slope.to(of_x.dtype.element_ty), mask=inside)
        x += block_r * channels
        grad += block_r * channels
        of_x += block_r * channels
        left -= block_r
