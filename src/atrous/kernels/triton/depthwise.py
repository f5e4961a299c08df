"""Depthwise convolution of channels-last tensors on a GPU, in Triton, with both its gradients.

A depthwise convolution is bound by memory. These kernels read each tensor from it about once, since
neighbouring taps hit the caches, and pad nothing beforehand. Sums are in float32 and in a fixed
order, without atomics: the same input gives the same bits. The readable reference is torch's
F.conv2d with its gradients.
"""

from math import gcd
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 4096
"""Bytes that a program of `_filter` computes: two vectors of 16 bytes in each thread."""

_PROGRAMS = 660
"""Programs of `_weight_sums` at most: five for each of an H100's 132 multiprocessors.

It is the same on all GPUs, and so is the result.
"""


class Geometry(NamedTuple):
    """A square convolution, and the zeros above and left of its input.

    Those below and on the right follow from the size of the result.
    """

    kernel: int
    stride: int
    dilation: int
    top: int
    left: int


def convolve(x: Tensor, taps: Tensor, geometry: Geometry, size: tuple[int, int]) -> Tensor:
    """Return the convolution (B, C, *size) of `x`, of its type, channels-last.

    Args:
        x: (B, C, H, W), channels-last; float32, bfloat16 or float16.
        taps: (k * k, C), as from `taps_of`.
        geometry: of the convolution.
        size: (h, w) of the result.
    """
    return _filtered(x, taps, geometry, size, transposed=False)


def input_gradient(grad: Tensor, taps: Tensor, geometry: Geometry, size: tuple[int, int]) -> Tensor:
    """Return the gradient (B, C, *size) of `convolve`'s `x` from that of its result."""
    return _filtered(grad, taps, geometry, size, transposed=True)


def weight_gradient(x: Tensor, grad: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """Return the gradient (C, 1, k, k) of the weight, of type `dtype`.

    Args:
        x: (B, C, H, W), what was convolved.
        grad: (B, C, h, w), the gradient of the result; both are channels-last.
        geometry: of the convolution.
        dtype: float32, bfloat16 or float16.
    """
    (batch, channels, height, width), (rows, columns) = x.shape, grad.shape[2:]
    k = geometry.kernel
    block, lanes, vector = min(32, triton.next_power_of_2(channels)), 32, gcd(channels, 8)
    # Lanes beyond a multiple of the rows of taps are idle; each of `phases` groups has a row.
    phases, blocks = lanes // k, triton.cdiv(channels, block)
    steps = triton.cdiv(triton.cdiv(batch * rows, phases) * blocks, _PROGRAMS)
    chunks = triton.cdiv(batch * rows, phases * steps)
    sums = torch.empty(chunks * phases, k**2, channels, device=x.device)
    _weight_sums[(blocks * chunks,)](
        x, grad, sums, batch * rows, channels // vector, height, width, rows, columns, steps,
        geometry.top, geometry.left, geometry.dilation, geometry.stride, k, vector,
        phases, lanes, block, num_warps=max(1, lanes * block * x.itemsize // 512),
    )  # fmt: skip
    result = torch.empty(channels, 1, k, k, dtype=dtype, device=x.device)
    _add[(triton.cdiv(k**2 * channels, 16),)](
        sums, result, len(sums), channels, k**2, 512, 16, num_warps=8
    )
    return result


def taps_of(weight: Tensor) -> Tensor:
    """Return a weight (C, 1, k, k) as (k * k, C) in float32, whose reads are contiguous."""
    return weight.flatten(1).t().to(torch.float32, memory_format=torch.contiguous_format, copy=True)


def _filtered(
    source: Tensor, taps: Tensor, geometry: Geometry, size: tuple[int, int], *, transposed: bool
) -> Tensor:
    batch, channels, height, width = source.shape
    result = torch.empty(
        (batch, channels, *size), dtype=source.dtype, device=source.device,
        memory_format=torch.channels_last,
    )  # fmt: skip
    step = geometry.stride if transposed else 1
    block = 64 if 4 * (-channels % 64) <= channels else 32  # a quarter of idle lanes at most
    block, vector = min(block, triton.next_power_of_2(channels)), gcd(channels, 8)
    places = batch * triton.cdiv(size[0], step) * triton.cdiv(size[1], step)
    pixels = _TILE // (block * source.itemsize)
    programs = triton.cdiv(channels, block) * step**2 * triton.cdiv(places, pixels)
    _filter[(programs,)](
        source, taps, result, batch, channels // vector, height, width, *size,
        geometry.top, geometry.left, geometry.dilation, geometry.stride, geometry.kernel,
        transposed, vector, pixels, block,
    )  # fmt: skip
    return result


@triton.jit(
    do_not_specialize=[
        "batch", "units", "height", "width", "rows", "columns", "top", "left", "dilation",
    ]
)  # type: ignore[untyped-decorator]  # fmt: skip
def _filter(  # type: ignore[no-untyped-def]
    source, taps, result, batch, units, height, width, rows, columns, top, left, dilation,
    stride: tl.constexpr, kernel: tl.constexpr, transposed: tl.constexpr, vector: tl.constexpr,
    pixels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Compute `pixels` places of the result, (B, rows, columns, C), in `block` channels.

    Transposed, a program's places are `stride` apart, so that the same taps meet all of them.
    """
    step: tl.constexpr = stride if transposed else 1
    channels = units * vector
    blocks = tl.cdiv(channels, block)
    program = tl.program_id(0)
    channel = program % blocks * block + tl.arange(0, block)
    program = program // blocks
    shift_x = program % step
    shift_y = program // step % step
    place = program // (step * step) * pixels + tl.arange(0, pixels)
    across, down = tl.cdiv(columns, step), tl.cdiv(rows, step)
    x = place % across
    y = place // across % down
    image = place // across // down
    inside = channel < channels
    images = source + image.to(tl.int64) * (height * width * channels)
    values = images[:, None] + channel[None, :]
    total = tl.zeros([pixels, block], tl.float32)
    for i in range(kernel):
        if transposed:
            offset_y = shift_y + top - i * dilation
            from_y = y + offset_y // stride
        else:
            offset_y = 0
            from_y = y * stride + (i * dilation - top)
        if offset_y % stride == 0:
            row_lies_inside = (image < batch) & (from_y >= 0) & (from_y < height)
            for j in tl.static_range(kernel):
                if transposed:
                    offset_x = shift_x + left - j * dilation
                    from_x = x + offset_x // stride
                else:
                    offset_x = 0
                    from_x = x * stride + (j * dilation - left)
                if offset_x % stride == 0:
                    lies_inside = row_lies_inside & (from_x >= 0) & (from_x < width)
                    value = tl.load(
                        values + ((from_y * width + from_x) * channels)[:, None],
                        mask=lies_inside[:, None] & inside[None, :],
                        other=0,
                    )
                    tap = tl.load(
                        taps + (i * kernel + j) * channels + channel, mask=inside, other=0
                    )
                    total += value.to(tl.float32) * tap[None, :]
    to_y, to_x = y * step + shift_y, x * step + shift_x
    lies_inside = (image < batch) & (to_y < rows) & (to_x < columns)
    at = ((image.to(tl.int64) * rows + to_y) * columns + to_x) * channels
    tl.store(
        result + at[:, None] + channel[None, :],
        total.to(result.dtype.element_ty),
        mask=lies_inside[:, None] & inside[None, :],
    )


@triton.jit(
    do_not_specialize=[
        "all_rows", "units", "height", "width", "rows", "columns", "steps", "top", "left",
        "dilation",
    ]
)  # type: ignore[untyped-decorator]  # fmt: skip
def _weight_sums(  # type: ignore[no-untyped-def]
    source, grad, sums, all_rows, units, height, width, rows, columns, steps,
    top, left, dilation, stride: tl.constexpr, kernel: tl.constexpr, vector: tl.constexpr,
    phases: tl.constexpr, lanes: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Sum over `phases` * `steps` rows of the gradient, each phase by itself.

    A lane has one row of taps and one phase. It walks along its row of the gradient, `dilation`
    columns at a time, and keeps what its taps see, so that each value is loaded once in a lane, a
    place ahead, and no sum crosses threads. The sums rotate by one with each tap, and are in their
    places again after all.
    """
    channels = units * vector
    blocks = tl.cdiv(channels, block)
    chunk = tl.program_id(0) // blocks
    channel = tl.program_id(0) % blocks * block + tl.arange(0, block)
    inside = (channel < channels)[None, :]
    lane = tl.arange(0, lanes)
    phase = lane // kernel
    offset_y = lane % kernel * dilation - top
    none = tl.zeros([lanes, 1], tl.int32)  # the interpreter joins no scalar to a mask
    totals = (tl.zeros([lanes, block], tl.float32),) * kernel
    for step in range(steps):
        row = (chunk * steps + step) * phases + phase
        image = (row // rows).to(tl.int64)
        from_y = row % rows * stride + offset_y
        works = (phase < phases) & (row < all_rows) & (from_y >= 0) & (from_y < height)
        works = works[:, None] & inside
        flow = grad + (row.to(tl.int64) * columns * channels)[:, None] + channel[None, :]
        seen = source + ((image * height + from_y) * width * channels)[:, None] + channel[None, :]
        for first in range(tl.minimum(dilation, columns)):
            slope = tl.load(flow + first * channels, mask=works, other=0)
            from_x = none + (first * stride - left)
            window = ()
            for _tap in tl.static_range(kernel):
                meets = works & (from_x >= 0) & (from_x < width)
                window += (tl.load(seen + from_x * channels, mask=meets, other=0),)  # type: ignore[assignment]
                from_x += dilation
            for x in range(first + dilation, columns + dilation, dilation):
                next_slope = tl.load(
                    flow + x * channels, mask=works & (x + none < columns), other=0
                )
                for j in tl.static_range(kernel):
                    total = totals[0] + slope.to(tl.float32) * window[j].to(tl.float32)
                    totals = totals[1:] + (total,)  # noqa: RUF005
                for _new in tl.static_range(stride):
                    meets = works & (from_x >= 0) & (from_x < width)
                    value = tl.load(seen + from_x * channels, mask=meets, other=0)
                    window = window[1:] + (value,)  # type: ignore[assignment]  # noqa: RUF005
                    from_x += dilation
                slope = next_slope
    part = (chunk * phases + phase) * kernel + lane % kernel
    to = sums + (part * kernel * channels)[:, None] + channel[None, :]
    for j in tl.static_range(kernel):
        tl.store(to + j * channels, totals[j], mask=(phase < phases)[:, None] & inside)


@triton.jit(do_not_specialize=["count"])  # type: ignore[untyped-decorator]
def _add(  # type: ignore[no-untyped-def]
    sums, result, count, channels, taps: tl.constexpr, chunk: tl.constexpr, block: tl.constexpr
):
    """Add `count` partial sums (taps, C) to the result (C, taps)."""
    item = tl.program_id(0) * block + tl.arange(0, block)
    inside = item < taps * channels
    total = tl.zeros([block], tl.float32)
    for first in range(0, count, chunk):
        part = first + tl.arange(0, chunk)
        values = tl.load(
            sums + (part * taps * channels)[:, None] + item[None, :],
            mask=(part < count)[:, None] & inside[None, :],
            other=0,
        )
        total += tl.sum(values, 0)
    at = item % channels * taps + item // channels
    tl.store(result + at, total.to(result.dtype.element_ty), mask=inside)
