"""Training crops of a whole batch on a GPU, in Triton, from decoded images of any sizes.

As `atrous.train.augment.augment`, from the same random numbers and with its rounding to whole grey
levels after each step, so that crops agree with the CPU's to rounding: torch's weights have 16
bits, those of this module are float32. Sums over a crop are of integers, so crops have the same
bits each time.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

CROP = np.dtype(
    [
        ("image", "i8"),  # where pixel (0, 0) lies in the bytes, which may hold but a part of it
        ("label", "i8"),
        ("row", "i8"),  # pixels from one row to the next
        ("source", "i8", 2),  # height and width of the image, and of the resized image
        ("resized", "i8", 2),
        ("corner", "i8", 2),  # top and left of the crop in the resized image
        ("flip", "i8"),
        ("operations", "i8", 4),  # numbers of OPERATIONS in their order, then -1
        ("scale", "f4", 2),  # source / resized
        ("factors", "f4", 4),  # one for each of OPERATIONS
        ("gamma", "f4"),  # 0 for none
        ("unused", "f4"),
    ]
)
"""How one crop is made: 14 integers, then 8 floats."""

OPERATIONS = ("brightness", "contrast", "saturation", "hue")
"""What may be done to colours; other bands than RGB have contrast, then brightness."""

_WORDS = tl.constexpr(CROP.itemsize // 8)
_SLOTS = tl.constexpr(10)  # the first operation
_SCALE = tl.constexpr(28)  # the first float, counted in floats
_FACTORS = tl.constexpr(30)
_GAMMA = tl.constexpr(34)
_CONTRAST = tl.constexpr(1)
_PADDING = tl.constexpr(127)
_IGNORED = tl.constexpr(255)
_BLOCK = 512
_CUT_WARPS = 8
_MOST_PARTS = 32
"""Most programs that add up the grey levels of one crop."""


def gpu_crops(
    pixels: Tensor, table: Tensor, size: tuple[int, int], channels: int, *, jitter: bool
) -> tuple[Tensor, Tensor]:
    """Cut a batch of crops.

    Args:
        pixels: (bytes,) uint8, which holds images (H, W, C) and their labels (H, W).
        table: (B, words) int64 on the device of `pixels`: an array of `CROP`, one for each crop.
        size: (height, width) of a crop.
        channels: C of all images.
        jitter: whether any crop has operations or gamma.

    Returns:
        image (B, h, w, C) uint8 and target (B, h, w) uint8 with 255 = ignored.
    """
    batch, (rows, columns) = len(table), size
    image = torch.empty(batch, *size, channels, dtype=torch.uint8, device=pixels.device)
    target = torch.empty(batch, *size, dtype=torch.uint8, device=pixels.device)
    floats = table.view(torch.float32)
    grid = triton.cdiv(rows * columns * channels, _BLOCK), batch
    _cut[grid](
        pixels, table, floats, image, target, rows, columns, channels=channels, block=_BLOCK,
        num_warps=_CUT_WARPS,
    )  # fmt: skip
    if jitter:
        area = rows * columns
        blocks = triton.cdiv(area, _BLOCK)
        parts = min(triton.next_power_of_2(blocks), _MOST_PARTS)
        sums = torch.empty(batch, parts, dtype=torch.int64, device=pixels.device)
        sizes = {"channels": channels, "parts": parts, "block": _BLOCK}
        _add_up[parts, batch](image, table, floats, sums, area, **sizes)
        _jitter[blocks, batch](image, table, floats, sums, area, **sizes)
    return image, target


@triton.jit
def _whole(level):  # type: ignore[no-untyped-def]
    """Round half up to a grey level."""
    return tl.minimum(tl.maximum(tl.floor(level + 0.5), 0.0), 255.0)


@triton.jit
def _cut_short(level):  # type: ignore[no-untyped-def]
    """Round down to a grey level."""
    return tl.floor(tl.minimum(tl.maximum(level, 0.0), 255.0))


@triton.jit
def _window(pixel, scale, length):  # type: ignore[no-untyped-def]
    """Return the first source pixel of a resized one, the one after the last, and their centre."""
    center, reach = (pixel + 0.5) * scale, tl.maximum(scale, 1.0)
    first = tl.maximum((center - reach + 0.5).to(tl.int32), 0)
    return first, tl.minimum((center + reach + 0.5).to(tl.int32), length), center


@triton.jit
def _weight(source, center, scale):  # type: ignore[no-untyped-def]
    """Return the triangle filter of a source pixel; its width grows with the reduction."""
    distance = tl.abs(source + 0.5 - center) / tl.maximum(scale, 1.0)
    return tl.maximum(1.0 - distance, 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _cut(  # type: ignore[no-untyped-def]
    pixels, table, floats, image, target, rows, columns,
    channels: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Resize, crop, pad and flip `block` values of a crop."""
    index = tl.program_id(1).to(tl.int64)
    crop, numbers = table + index * _WORDS, floats + index * (2 * _WORDS)
    value = tl.program_id(0) * block + tl.arange(0, block)
    place, channel = value // channels, value % channels
    y, x = place // columns, place % columns
    row_length = tl.load(crop + 2)
    height, width = tl.load(crop + 3).to(tl.int32), tl.load(crop + 4).to(tl.int32)
    tall, wide = tl.load(crop + 5).to(tl.int32), tl.load(crop + 6).to(tl.int32)
    down, across = tl.load(numbers + _SCALE), tl.load(numbers + _SCALE + 1)
    resized_y = y + tl.load(crop + 7).to(tl.int32)
    resized_x = tl.where(tl.load(crop + 9) != 0, columns - 1 - x, x)
    resized_x += tl.load(crop + 8).to(tl.int32)
    inside = (resized_y >= 0) & (resized_y < tall) & (resized_x >= 0) & (resized_x < wide)
    inside &= y < rows

    first_y, end_y, center_y = _window(resized_y, down, height)
    first_x, end_x, center_x = _window(resized_x, across, width)
    taps_y = tl.max(tl.where(inside, end_y - first_y, 0), 0)
    taps_x = tl.max(tl.where(inside, end_x - first_x, 0), 0)
    level, total_y = tl.zeros([block], tl.float32), tl.zeros([block], tl.float32)
    for tap_y in range(taps_y):
        source_y = first_y + tap_y
        row = pixels + tl.load(crop) + row_length * source_y * channels + channel
        sum_x, total_x = tl.zeros([block], tl.float32), tl.zeros([block], tl.float32)
        for tap_x in range(taps_x):
            source_x = first_x + tap_x
            read = inside & (source_y < end_y) & (source_x < end_x)
            here = tl.load(row + source_x * channels, mask=read, other=0).to(tl.float32)
            weight = tl.where(read, _weight(source_x, center_x, across), 0.0)
            sum_x += here * weight
            total_x += weight
        weight = tl.where(total_x > 0, _weight(source_y, center_y, down), 0.0)
        level += _whole(sum_x / tl.where(total_x > 0, total_x, 1.0)) * weight
        total_y += weight
    level = _whole(level / tl.where(total_y > 0, total_y, 1.0))
    level = tl.where(inside, level, _PADDING)
    tl.store(image + index * rows * columns * channels + value, level.to(tl.uint8), mask=y < rows)

    nearest_y = tl.minimum((resized_y * down).to(tl.int32), height - 1)
    nearest_x = tl.minimum((resized_x * across).to(tl.int32), width - 1)
    at = tl.load(crop + 1) + row_length * nearest_y + nearest_x
    label = tl.load(pixels + at, mask=inside & (channel == 0), other=_IGNORED)
    tl.store(target + index * rows * columns + place, label, mask=(y < rows) & (channel == 0))


@triton.jit
def _grey(red, green, blue):  # type: ignore[no-untyped-def]
    return tl.floor(red * 0.2989 + green * 0.587 + blue * 0.114)


@triton.jit
def _with_hue(red, green, blue, turn):  # type: ignore[no-untyped-def]
    """Turn the hue by a share of the circle, as torchvision does."""
    red, green, blue = red / 255, green / 255, blue / 255
    most = tl.maximum(tl.maximum(red, green), blue)
    least = tl.minimum(tl.minimum(red, green), blue)
    is_grey, span = most == least, most - least
    saturation = span / tl.where(is_grey, 1.0, most)
    span = tl.where(is_grey, 1.0, span)
    to_red, to_green, to_blue = (most - red) / span, (most - green) / span, (most - blue) / span
    sector = tl.where(most == green, to_red + 2 - to_blue, to_green + 4 - to_red)
    sector = tl.where(most == red, to_blue - to_green, sector)
    hue = sector / 6 + 1 + turn
    hue = 6 * (hue - tl.floor(hue))
    below = tl.floor(hue)
    part = hue - below
    falling = (1 - saturation * part) * most
    rising = (saturation * part + 1 - saturation) * most
    low = (1 - saturation) * most
    below = tl.where(below >= 6, 0.0, below)
    red = tl.where((below == 0) | (below == 5), most, tl.where(below == 1, falling, low))
    red = tl.where(below == 4, rising, red)
    green = tl.where((below == 1) | (below == 2), most, tl.where(below == 0, rising, low))
    green = tl.where(below == 3, falling, green)
    blue = tl.where((below == 3) | (below == 4), most, tl.where(below == 2, rising, low))
    blue = tl.where(below == 5, falling, blue)
    return tl.floor(red * 255.999), tl.floor(green * 255.999), tl.floor(blue * 255.999)


@triton.jit
def _with_operation(red, green, blue, operation, factor, mean):  # type: ignore[no-untyped-def]
    """Apply one of OPERATIONS to whole grey levels; `mean` is that of the greys of the crop."""
    if operation == 3:
        red, green, blue = _with_hue(red, green, blue, factor)
    else:
        other = tl.where(operation == 2, _grey(red, green, blue), mean)
        other = tl.where(operation == 0, 0.0, other) * (1 - factor)
        red = _cut_short(red * factor + other)
        green = _cut_short(green * factor + other)
        blue = _cut_short(blue * factor + other)
    return red, green, blue


@triton.jit  # type: ignore[untyped-decorator]
def _add_up(  # type: ignore[no-untyped-def]
    image, table, floats, sums, area,
    channels: tl.constexpr, parts: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Add up what contrast takes the mean of: greys of RGB before it, all values of other bands."""
    part, index = tl.program_id(0), tl.program_id(1).to(tl.int64)
    crop, numbers = table + index * _WORDS, floats + index * (2 * _WORDS)
    pixel = image + index * area * channels
    before, has_contrast = 0, 0
    for slot in tl.static_range(4):
        has_contrast |= (tl.load(crop + _SLOTS + slot) == _CONTRAST).to(tl.int32)
        before += 1 - has_contrast
    total = tl.zeros([block], tl.int64)
    for start in range(part * block, area * has_contrast, parts * block):
        at = start + tl.arange(0, block)
        used = at < area
        if channels == 3:
            red = tl.load(pixel + at * 3, mask=used, other=0).to(tl.float32)
            green = tl.load(pixel + at * 3 + 1, mask=used, other=0).to(tl.float32)
            blue = tl.load(pixel + at * 3 + 2, mask=used, other=0).to(tl.float32)
            for earlier in range(before):
                operation = tl.load(crop + _SLOTS + earlier)
                factor = tl.load(numbers + _FACTORS + operation)
                red, green, blue = _with_operation(red, green, blue, operation, factor, 0.0)
            total += tl.where(used, _grey(red, green, blue), 0.0).to(tl.int64)
        else:
            for band in tl.static_range(channels):
                level = tl.load(pixel + at * channels + band, mask=used, other=0)
                total += level.to(tl.int64)
    tl.store(sums + index * parts + part, tl.sum(total, 0))


@triton.jit
def _with_gamma(level, gamma):  # type: ignore[no-untyped-def]
    """Raise whole grey levels to a power."""
    power = tl.exp2(gamma * tl.log2(tl.maximum(level, 1.0) / 255))
    return tl.where(level > 0, tl.floor(power * 255.999), 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _jitter(  # type: ignore[no-untyped-def]
    image, table, floats, sums, area,
    channels: tl.constexpr, parts: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Change the colours of `block` pixels of one crop, in place."""
    index = tl.program_id(1).to(tl.int64)
    crop, numbers = table + index * _WORDS, floats + index * (2 * _WORDS)
    at = tl.program_id(0) * block + tl.arange(0, block)
    used, pixel = at < area, image + index * area * channels
    gamma = tl.load(numbers + _GAMMA)
    total = tl.sum(tl.load(sums + index * parts + tl.arange(0, parts)), 0).to(tl.float32)
    if channels == 3:
        mean = total / area
        red = tl.load(pixel + at * 3, mask=used, other=0).to(tl.float32)
        green = tl.load(pixel + at * 3 + 1, mask=used, other=0).to(tl.float32)
        blue = tl.load(pixel + at * 3 + 2, mask=used, other=0).to(tl.float32)
        for slot in range(4):
            operation = tl.load(crop + _SLOTS + slot)
            if operation >= 0:
                factor = tl.load(numbers + _FACTORS + operation)
                red, green, blue = _with_operation(red, green, blue, operation, factor, mean)
        if gamma > 0:
            red, green, blue = (
                _with_gamma(red, gamma), _with_gamma(green, gamma), _with_gamma(blue, gamma)
            )  # fmt: skip
        tl.store(pixel + at * 3, red.to(tl.uint8), mask=used)
        tl.store(pixel + at * 3 + 1, green.to(tl.uint8), mask=used)
        tl.store(pixel + at * 3 + 2, blue.to(tl.uint8), mask=used)
    else:
        mean = total / (area * channels)
        brightness, contrast = 1.0, 1.0
        for slot in tl.static_range(4):
            operation = tl.load(crop + _SLOTS + slot)
            brightness = tl.where(operation == 0, tl.load(numbers + _FACTORS), brightness)
            contrast = tl.where(operation == 1, tl.load(numbers + _FACTORS + 1), contrast)
        for channel in tl.static_range(channels):
            level = tl.load(pixel + at * channels + channel, mask=used, other=0).to(tl.float32)
            level = _whole((mean + (level - mean) * contrast) * brightness)
            if gamma > 0:
                level = _with_gamma(level, gamma)
            tl.store(pixel + at * channels + channel, level.to(tl.uint8), mask=used)
