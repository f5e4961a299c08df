"""The gradient of bilinear resizing on a GPU, in Triton, without atomics.

torch adds up the gradient of each cell by atomics, in any order; under deterministic algorithms it
replaces the operation by indexing, whose gradient sorts indices. Here each cell collects the
gradient of what it gave, down the columns first, then along the rows; sums are in float32 and in a
fixed order. The readable reference is the gradient of torch's F.interpolate.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor


def resize_gradient(
    grad: Tensor, size: tuple[int, int], scales: tuple[float, float], *, align_corners: bool
) -> Tensor:
    """Return the gradient (B, C, *size), channels-last, of what was resized bilinearly.

    Args:
        grad: (B, C, H, W), the gradient of the result, channels-last; float32, bfloat16, float16.
        size: (h, w) before.
        scales: vertical and horizontal, the step in cells from a pixel of the result to the next.
        align_corners: as of F.interpolate.
    """
    (batch, channels, rows, columns), (height, width) = grad.shape, size
    result = torch.empty(
        (batch, channels, height, width), dtype=grad.dtype, device=grad.device,
        memory_format=torch.channels_last,
    )  # fmt: skip
    partial = torch.empty(batch, height, columns, channels, device=grad.device)
    vertical, horizontal = scales
    _collect(grad, partial, batch, rows, height, columns * channels, vertical, align_corners)
    _collect(partial, result, batch * height, columns, width, channels, horizontal, align_corners)
    return result


def _collect(
    grad: Tensor, result: Tensor, outer: int, pixels: int, cells: int, inner: int,
    scale: float, aligned: bool,
) -> None:  # fmt: skip
    """Reduce (outer, pixels, inner) to (outer, cells, inner), both contiguous in this order."""
    inverse = 1 / scale if scale else 1e9  # at scale 0, the first cell gave to all pixels
    reach = min(pixels, math.ceil(2 * inverse) + 1)
    block = min(128, triton.next_power_of_2(inner))
    group = 1024 // block
    programs = triton.cdiv(outer * cells, group) * triton.cdiv(inner, block)
    _collect_cells[(programs,)](
        grad, result, outer * cells, pixels, cells, inner, reach, scale, inverse,
        aligned, group, block,
    )  # fmt: skip


@triton.jit(do_not_specialize=["all_cells", "pixels", "cells", "reach", "scale", "inverse"])  # type: ignore[untyped-decorator]
def _collect_cells(  # type: ignore[no-untyped-def]
    grad, result, all_cells, pixels, cells, inner, reach, scale, inverse,
    aligned: tl.constexpr, group: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Collect `block` values of `group` cells; pixels from one cell before to one behind count."""
    blocks = tl.cdiv(inner, block)
    item = tl.program_id(0) % blocks * block + tl.arange(0, block)
    place = tl.program_id(0) // blocks * group + tl.arange(0, group)
    cell, outer = place % cells, (place // cells).to(tl.int64)
    inside = (place < all_cells)[:, None] & (item < inner)[None, :]
    first = (cell - 1) * inverse if aligned else (cell - 0.5) * inverse - 0.5
    first = tl.minimum(tl.maximum(tl.floor(first) + 1, 0), pixels).to(tl.int32)
    line = grad + (outer * pixels * inner)[:, None] + item[None, :]
    total = tl.zeros([group, block], tl.float32)
    for step in range(reach):
        pixel = first + step
        position = pixel * scale if aligned else tl.maximum((pixel + 0.5) * scale - 0.5, 0)
        before = tl.minimum(position.to(tl.int32), cells - 1)
        share = position - before
        share = tl.where(before == cell, 1 - share, 0) + tl.where(
            tl.minimum(before + 1, cells - 1) == cell, share, 0
        )
        counts = (share > 0) & (pixel < pixels)
        value = tl.load(
            line + (pixel.to(tl.int64) * inner)[:, None], mask=counts[:, None] & inside, other=0
        )
        total += share[:, None] * value.to(tl.float32)
    at = (place.to(tl.int64) * inner)[:, None] + item[None, :]
    tl.store(result + at, total.to(result.dtype.element_ty), mask=inside)
