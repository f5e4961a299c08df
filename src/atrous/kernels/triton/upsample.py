"""Low-resolution logits to full-size labels on a GPU, in Triton, never the full tensor.

As `atrous.kernels.upsample`, but each thread of the GPU looks at all classes of its pixel: the
logits are in the GPU's cache, so looking for the few candidates would not pay. Sums may be rounded
otherwise than in torch: labels equal those of F.interpolate and argmax but for ties within
rounding. Triton is part of torch for CUDA on Linux; elsewhere this module cannot be imported.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 128


def gpu_labels(
    logits: Tensor, stride: int, size: tuple[int, int], *, aligned: bool = False
) -> Tensor:
    """Return the labels (B, H, W) of images of `size` from a network's `logits`.

    Args:
        logits: (B, K, h, w), float16, bfloat16 or float32, of any layout; B and H up to 65535.
        stride: of the network, whose logits are upsampled by it and cropped to `size`.
        size: (H, W).
        aligned: cells lie on pixels.

    Returns:
        uint8 for up to 256 classes and int32 above. The lower class wins a tie.
    """
    labels = _empty_labels(logits, stride, size)
    center = 0.0 if aligned else 0.5
    _start(logits, labels, labels, stride, center, with_confidence=False)  # writes no confidence
    return labels


def gpu_labels_confidence(
    logits: Tensor, stride: int, size: tuple[int, int], *, aligned: bool = False
) -> tuple[Tensor, Tensor]:
    """Return `gpu_labels`, and the largest value of each pixel's softmax, float32 (B, H, W)."""
    labels = _empty_labels(logits, stride, size)
    confidence = torch.empty(labels.shape, dtype=torch.float32, device=logits.device)
    center = 0.0 if aligned else 0.5
    _start(logits, labels, confidence, stride, center, with_confidence=True)
    return labels, confidence


def _empty_labels(logits: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    batch, classes, height, width = logits.shape
    assert size[0] <= height * stride and size[1] <= width * stride
    dtype = torch.uint8 if classes <= 256 else torch.int32
    return torch.empty(batch, *size, dtype=dtype, device=logits.device)


def _start(
    logits: Tensor,
    labels: Tensor,
    confidence: Tensor,
    stride: int,
    center: float,
    *,
    with_confidence: bool,
) -> None:
    batch, rows, columns = labels.shape
    grid = triton.cdiv(columns, _BLOCK), rows, batch
    _upsample[grid](
        logits, labels, confidence, *logits.stride(), *logits.shape[1:], rows, columns, 1 / stride,
        center=center, with_confidence=with_confidence, block=_BLOCK,
    )  # fmt: skip


@triton.jit
def _source(pixel, scale, length, center):  # type: ignore[no-untyped-def]
    """Return the logit before an output pixel, the one after it, and the latter's share."""
    position = tl.maximum((pixel + center) * scale - center, 0)
    before = tl.minimum(position.to(tl.int32), length - 1)
    return before, tl.minimum(before + 1, length - 1), position - before


# Sizes are not specialised: images of another size need no other kernel.
@triton.jit(do_not_specialize=["classes", "height", "width", "rows", "columns"])  # type: ignore[untyped-decorator]
def _upsample(  # type: ignore[no-untyped-def]
    logits, labels, confidence, stride_b, stride_k, stride_y, stride_x, classes, height, width,
    rows, columns, scale,
    center: tl.constexpr, with_confidence: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Compute `block` pixels of one row of one photo."""
    x = tl.program_id(0) * block + tl.arange(0, block)
    y, photo = tl.program_id(1), tl.program_id(2).to(tl.int64)
    top, bottom, down = _source(y, scale, height, center)
    left, right, across = _source(x, scale, width, center)
    best = tl.full([block], float("-inf"), tl.float32)
    winner = tl.zeros([block], tl.int32)
    total = tl.zeros([block], tl.float32)  # of exp(value - best), over the classes so far
    plane = logits + photo * stride_b
    for k in range(classes):
        upper, lower = plane + top * stride_y, plane + bottom * stride_y
        upper_left = tl.load(upper + left * stride_x).to(tl.float32)
        upper_right = tl.load(upper + right * stride_x).to(tl.float32)
        lower_left = tl.load(lower + left * stride_x).to(tl.float32)
        lower_right = tl.load(lower + right * stride_x).to(tl.float32)
        above = upper_left * (1 - across) + upper_right * across
        below = lower_left * (1 - across) + lower_right * across
        value = above * (1 - down) + below * down
        if with_confidence:
            power = tl.exp(-tl.abs(value - best))
            total = tl.where(value > best, total * power + 1, total + power)
        winner = tl.where(value > best, k, winner)
        best = tl.maximum(value, best)
        plane += stride_k
    at = (photo * rows + y) * columns + x
    tl.store(labels + at, winner.to(labels.dtype.element_ty), mask=x < columns)
    if with_confidence:
        tl.store(confidence + at, 1 / total, mask=x < columns)
