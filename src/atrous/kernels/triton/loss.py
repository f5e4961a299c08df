"""Losses and gradients of upsampled logits on a GPU, in Triton, with no tensor of pixels x classes.

The pixels between the same four cells of logits form a square of stride x stride pixels; at the
border of the image it has fewer. Square (i, j) lies between rows i - 1 and i and columns j - 1 and
j of the cells, so there are (h + 1) x (w + 1). A program is one warp. It takes a few neighbouring
squares, and goes over them by tiles [squares, pixels of a row, classes], which it holds in
registers: train ids are bytes, so classes are at most 255. It writes the gradient of each square's
four cells as four shares, which are added in a fixed order, so the bits are the same each time.

The reference, with the formulas, is `atrous.train.loss.strips`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_COUNTED = 1024
"""Pixels that one program counts."""
_LOG2_E = tl.constexpr(1.4426950408889634)


def count_classes(target: Tensor, classes: int) -> Tensor:
    """Return the pixels of each class in `target`, uint8 of any shape: (classes,) float64."""
    programs, block = triton.cdiv(target.numel(), _COUNTED), triton.next_power_of_2(classes)
    counts = torch.empty(programs, classes, dtype=torch.int32, device=target.device)
    _count[(programs,)](
        target.contiguous(), counts, target.numel(), classes,
        pixels=_COUNTED, step=min(_COUNTED, 2048 // block), block=block, num_warps=1,
    )  # fmt: skip
    return counts.sum(0, dtype=torch.float64)


def measure(
    logits: Tensor,
    target: Tensor,
    stride: int,
    own: Tensor,
    every: Tensor,
    *,
    aligned: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return each pixel's cross-entropy, and each class's sums of probabilities.

    Args:
        logits: (B, K, h, w), float16, bfloat16 or float32, of any layout; B and h below 65535.
        target: (B, H, W) uint8; K and above is ignored.
        stride: pixels per cell, in both directions.
        own: (K,) float32, as in `atrous.train.loss.strips.Factors`.
        every: (K,) float32.
        aligned: cells lie on pixels.

    Returns:
        (B, H, W) float32, 0 where ignored; (2, K) float64, over the labelled pixels, and over the
        pixels of the class.
    """
    grid, sizes = _launch(logits, target, stride, aligned=aligned)
    losses = torch.empty(target.shape, device=logits.device)
    sums = torch.empty(grid[0] * grid[1] * grid[2], 2, logits.shape[1], device=logits.device)
    _measure[grid](logits, target.contiguous(), own, every, losses, sums, **sizes, num_warps=1)
    return losses, sums.sum(0, dtype=torch.float64)


def differentiate(
    logits: Tensor,
    target: Tensor,
    stride: int,
    own: Tensor,
    every: Tensor,
    dice_own: Tensor | None,
    dice_every: Tensor | None,
    kept: Tensor | None,
    *,
    aligned: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the sum of the cross-entropy, and the gradient of that and of Dice's sums.

    Args:
        logits: as in `measure`, as are target, stride, own and every.
        target: (B, H, W).
        stride: pixels per cell.
        own: (K,).
        every: (K,).
        dice_own: (K,) float32; None without the Dice loss.
        dice_every: (K,) float32; None without the Dice loss.
        kept: (B, H, W) bool, the pixels whose cross-entropy counts; None for all.
        aligned: cells lie on pixels.

    Returns:
        A scalar, float64; (B, K, h, w) float32, channels-last.
    """
    images, classes, height, width = logits.shape
    grid, sizes = _launch(logits, target, stride, aligned=aligned)
    losses = torch.empty(grid, device=logits.device)
    shares = torch.empty(images, height + 1, 4, width + 1, classes, device=logits.device)
    tables = own, every, dice_own, dice_every
    _differentiate[grid](
        logits, target.contiguous(), kept, *tables, losses, shares, **sizes, num_warps=1
    )
    gradient = shares[:, 1:, 0, 1:] + shares[:, 1:, 1, :-1]  # (B, h, w, K)
    gradient += shares[:, :-1, 2, 1:]
    gradient += shares[:, :-1, 3, :-1]
    return losses.sum(dtype=torch.float64), gradient.permute(0, 3, 1, 2)


def _launch(
    logits: Tensor, target: Tensor, stride: int, *, aligned: bool
) -> tuple[tuple[int, ...], dict[str, int]]:
    """Return the grid of programs, and the sizes that `_measure` and `_differentiate` take."""
    images, classes, height, width = logits.shape
    rows, columns = target.shape[1:]
    assert height == triton.cdiv(rows, stride) and width == triton.cdiv(columns, stride)
    tile = tile_sizes(classes, stride)
    sizes = {f"stride_{axis}": n for axis, n in zip("bkyx", logits.stride(), strict=True)}
    sizes |= {"classes": classes, "height": height, "width": width}
    sizes |= {"rows": rows, "columns": columns, "stride": stride, "aligned": aligned}
    sizes |= tile
    return (triton.cdiv(width + 1, tile["squares"]), height + 1, images), sizes


def tile_sizes(classes: int, stride: int) -> dict[str, int]:
    """Return the sides of a tile, powers of two, so that it fits the registers of a warp."""
    block = triton.next_power_of_2(classes)
    values = min(max(256, 8 * block), 1024)
    pixels = min(triton.next_power_of_2(stride), values // block)
    squares = max(1, min(256, values // pixels) // block)
    return {"squares": squares, "pixels": pixels, "block": block}


@triton.jit  # type: ignore[untyped-decorator]
def _count(  # type: ignore[no-untyped-def]
    target, counts, total, classes,
    pixels: tl.constexpr, step: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Count the classes of `pixels` pixels."""
    program, k = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    found = tl.zeros([block], tl.int32)
    for first in range(0, pixels, step):
        at = program * pixels + first + tl.arange(0, step)
        label = tl.load(target + at, mask=at < total, other=classes).to(tl.int32)
        found += tl.sum((label[:, None] == k[None, :]).to(tl.int32), 0)
    tl.store(counts + program * classes + k, found, mask=k < classes)


@triton.jit  # type: ignore[untyped-decorator]
def _squares(squares: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return columns [squares, 1, 1], row and image of a program's squares, and the classes."""
    j = tl.program_id(0) * squares + tl.arange(0, squares)[:, None, None]
    return j, tl.program_id(1), tl.program_id(2).to(tl.int64), tl.arange(0, block)[None, None, :]


@triton.jit
def _surface(  # type: ignore[no-untyped-def]
    logits, image, i, j, k, stride_b, stride_k, stride_y, stride_x, classes, height, width
):
    """Return a, b, c, d, [squares, 1, classes]: logits are a + b down + across (c + d down).

    Beyond the border, a cell equals its neighbour. What is no class never wins.
    """
    above, below = tl.maximum(i - 1, 0), tl.minimum(i, height - 1)
    left = tl.minimum(tl.maximum(j - 1, 0), width - 1) * stride_x
    right = tl.minimum(j, width - 1) * stride_x
    plane = logits + image * stride_b + k * stride_k
    upper, lower, is_class = plane + above * stride_y, plane + below * stride_y, k < classes
    top_left = tl.load(upper + left, mask=is_class, other=0).to(tl.float32)
    top_right = tl.load(upper + right, mask=is_class, other=0).to(tl.float32)
    bottom_left = tl.load(lower + left, mask=is_class, other=0).to(tl.float32)
    bottom_right = tl.load(lower + right, mask=is_class, other=0).to(tl.float32)
    change = top_right - top_left
    a = tl.where(is_class, top_left, -1e30)
    return a, bottom_left - top_left, change, bottom_right - bottom_left - change


@triton.jit  # type: ignore[untyped-decorator]
def _place(  # type: ignore[no-untyped-def]
    index, offset, length, stride: tl.constexpr, aligned: tl.constexpr
):
    """Return where a square's pixel is in the image, and the share of the cell after it."""
    start = 0 if aligned else stride // 2
    share = (offset + (0 if aligned else 0.5 - 0.5 * (stride % 2))) / stride
    share = tl.where(index == 0, 1.0, tl.where(index == length, 0.0, share))
    return (index - 1) * stride + start + offset, share


@triton.jit  # type: ignore[untyped-decorator]
def _pixels(  # type: ignore[no-untyped-def]
    target, j, y, first, classes, width, rows, columns,
    stride: tl.constexpr, pixels: tl.constexpr, aligned: tl.constexpr,
):  # fmt: skip
    """Return of pixels [squares, pixels, 1]: place, presence, label, and share of the right."""
    offset = first + tl.arange(0, pixels)[None, :, None]
    x, across = _place(j, offset, width, stride, aligned)
    end = tl.where((y >= 0) & (y < rows), columns, 0)  # rows beyond the image have no pixel
    inside = (offset < stride) & (x >= 0) & (x < end)
    at = y * columns + x
    return at, inside, tl.load(target + at, mask=inside, other=classes).to(tl.int32), across


@triton.jit
def _powers(left, change, across):  # type: ignore[no-untyped-def]
    """Return logits less the pixel's largest, their exponentials, and the sum of these."""
    z = left + change * across  # [squares, pixels, classes]
    z -= tl.max(z, 2, keep_dims=True)
    power = tl.exp2(z * _LOG2_E)  # one instruction, where exp() takes care of subnormal results
    return z, power, tl.sum(power, 2, keep_dims=True)


@triton.jit  # type: ignore[untyped-decorator]
def _measure(  # type: ignore[no-untyped-def]
    logits, target, own, every, losses, sums,
    stride_b, stride_k, stride_y, stride_x, classes, height, width, rows, columns,
    stride: tl.constexpr, aligned: tl.constexpr, squares: tl.constexpr, pixels: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """Compute the losses of neighbouring squares, and their sums of probabilities."""
    j, i, image, k = _squares(squares, block)
    a, b, c, d = _surface(
        logits, image, i, j, k, stride_b, stride_k, stride_y, stride_x, classes, height, width
    )
    every_k = tl.load(every + k, mask=k < classes, other=0)
    all_every = tl.sum(every_k, 2, keep_dims=True)
    seen = tl.zeros([squares, 1, block], tl.float32)
    common = tl.zeros([squares, 1, block], tl.float32)
    target += image * rows * columns
    losses += image * rows * columns
    for row in range(stride):
        y, down = _place(i, row, height, stride, aligned)
        for first in range(0, stride, pixels):
            at, inside, label, across = _pixels(
                target, j, y, first, classes, width, rows, columns, stride, pixels, aligned
            )
            labelled = label < classes
            z, power, total = _powers(a + b * down, c + d * down, across)
            own_y = tl.load(own + label, mask=labelled, other=0)
            factor = every_k + tl.where(k == label, own_y, 0)
            p = power * tl.where(labelled, 1 / total, 0)
            seen += tl.sum(p, 1, keep_dims=True)
            common += tl.sum(tl.where(k == label, p, 0), 1, keep_dims=True)
            loss = (own_y + all_every) * tl.log(total) - tl.sum(factor * z, 2, keep_dims=True)
            tl.store(losses + at, tl.where(labelled, loss, 0), mask=inside)
    program = (image * (height + 1) + i) * tl.num_programs(0) + tl.program_id(0)
    to = sums + program * 2 * classes + k
    tl.store(to, tl.sum(seen, 0, keep_dims=True), mask=k < classes)
    tl.store(to + classes, tl.sum(common, 0, keep_dims=True), mask=k < classes)


@triton.jit  # type: ignore[untyped-decorator]
def _differentiate(  # type: ignore[no-untyped-def]
    logits, target, kept, own, every, dice_own, dice_every, losses, shares,
    stride_b, stride_k, stride_y, stride_x, classes, height, width, rows, columns,
    stride: tl.constexpr, aligned: tl.constexpr, squares: tl.constexpr, pixels: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """Compute the cross-entropy of neighbouring squares, and their shares of the gradient."""
    j, i, image, k = _squares(squares, block)
    a, b, c, d = _surface(
        logits, image, i, j, k, stride_b, stride_k, stride_y, stride_x, classes, height, width
    )
    every_k = tl.load(every + k, mask=k < classes, other=0)
    all_every = tl.sum(every_k, 2, keep_dims=True)
    if dice_every is not None:
        dice_every_k = tl.load(dice_every + k, mask=k < classes, other=0)
    top_left = tl.zeros([squares, 1, block], tl.float32)
    top_right = tl.zeros([squares, 1, block], tl.float32)
    bottom_left = tl.zeros([squares, 1, block], tl.float32)
    bottom_right = tl.zeros([squares, 1, block], tl.float32)
    loss = 0.0
    target += image * rows * columns
    if kept is not None:
        kept += image * rows * columns
    for row in range(stride):
        y, down = _place(i, row, height, stride, aligned)
        for first in range(0, stride, pixels):
            at, inside, label, across = _pixels(
                target, j, y, first, classes, width, rows, columns, stride, pixels, aligned
            )
            labelled = label < classes
            counted = labelled
            if kept is not None:
                counted = labelled & (tl.load(kept + at, mask=inside, other=0) != 0)
            z, power, total = _powers(a + b * down, c + d * down, across)
            own_y = tl.load(own + label, mask=counted, other=0)
            factor = every_k * counted.to(tl.float32) + tl.where(k == label, own_y, 0)
            weight = tl.where(counted, own_y + all_every, 0)
            loss += tl.sum(weight * tl.log(total)) - tl.sum(factor * z)
            if dice_every is not None:
                dice_own_y = tl.load(dice_own + label, mask=labelled, other=0)
                dice = dice_every_k + tl.where(k == label, dice_own_y, 0)
                p = power * tl.where(labelled, 1 / total, 0)
                slope = p * (dice + (weight - tl.sum(p * dice, 2, keep_dims=True))) - factor
            else:
                slope = power * (weight / total) - factor
            left = tl.sum(slope * (1 - across), 1, keep_dims=True)
            right = tl.sum(slope * across, 1, keep_dims=True)
            top_left += left * (1 - down)
            top_right += right * (1 - down)
            bottom_left += left * down
            bottom_right += right * down
    program = (image * (height + 1) + i) * tl.num_programs(0) + tl.program_id(0)
    tl.store(losses + program, loss)
    corner = (width + 1) * classes  # from a share to that of the square's next corner
    to = shares + (image * (height + 1) + i) * 4 * corner + j * classes + k
    is_share = (j <= width) & (k < classes)
    tl.store(to, top_left, mask=is_share)
    tl.store(to + corner, top_right, mask=is_share)
    tl.store(to + 2 * corner, bottom_left, mask=is_share)
    tl.store(to + 3 * corner, bottom_right, mask=is_share)
