"""A network's logits to a photo's labels, where the logits are: on a GPU in Triton, else in C."""

from collections.abc import Callable
from functools import cache
from subprocess import CalledProcessError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.infer.upsample import logits_to_labels


def labels_of(logits: Tensor, stride: int, size: tuple[int, int]) -> NDArray[np.integer[Any]]:
    """Return the labels (H, W) of the photo of `size` whose logits (K, h, w) a network gave."""
    in_triton = None if logits.device.type == "cpu" else triton_labels(logits.device.type)
    if in_triton is None:
        return logits_to_labels(logits.float().cpu().numpy(), stride, size)
    return in_triton(logits[None], stride, size)[0].cpu().numpy()


@cache
def triton_labels(device: str) -> Callable[[Tensor, int, tuple[int, int]], Tensor] | None:
    """Return `gpu_labels` if it works on `device`: there is Triton and the C compiler it wants."""
    try:
        from atrous.kernels.triton.upsample import gpu_labels

        gpu_labels(torch.zeros(1, 1, 1, 1, device=device), 1, (1, 1))
    except (ImportError, RuntimeError, CalledProcessError):
        return None
    return gpu_labels
