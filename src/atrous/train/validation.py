"""Scores of a network during training; upsampling and argmax run on the device of the logits."""

from collections.abc import Callable, Sequence
from functools import cache
from subprocess import CalledProcessError
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from atrous.data.sample import Sample
from atrous.evaluation.score import count_samples
from atrous.infer.upsample import logits_to_labels
from atrous.metrics import Confusion
from atrous.models.photo import PhotoNetwork


def validate(
    photo: PhotoNetwork, split: Sequence[Sample], num_classes: int, accelerator: Accelerator
) -> Confusion:
    """Count the confusions of a split at native size; each process labels its share of it."""
    photo.eval()
    mine = range(accelerator.process_index, len(split), accelerator.num_processes)

    @torch.inference_mode()
    def predict(image: NDArray[np.uint8]) -> NDArray[np.integer[Any]]:
        logits = photo(torch.tensor(image)[None].to(accelerator.device))[0]
        return labels_of(logits, photo.stride, image.shape[:2])

    confusion = count_samples(predict, split, num_classes, indices=mine)
    parts: list[Confusion] = gather_object([confusion])
    whole, *others = parts
    for part in others:
        whole.merge(part)
    return whole


def labels_of(logits: Tensor, stride: int, size: tuple[int, int]) -> NDArray[np.integer[Any]]:
    """Return the labels (H, W) of an image of `size` from its logits (K, h, w)."""
    in_triton = None if logits.device.type == "cpu" else triton_labels(logits.device.type)
    if in_triton is None:
        return logits_to_labels(logits.float().cpu().numpy(), stride, size)
    return in_triton(logits[None], stride, size)[0].cpu().numpy()


@cache
def triton_labels(device: str) -> Callable[[Tensor, int, tuple[int, int]], Tensor] | None:
    """Return `gpu_labels` if it works on `device`: it needs Triton and a C compiler."""
    try:
        from atrous.kernels.triton.upsample import gpu_labels

        gpu_labels(torch.zeros(1, 1, 1, 1, device=device), 1, (1, 1))
    except (ImportError, RuntimeError, CalledProcessError):
        return None
    return gpu_labels
