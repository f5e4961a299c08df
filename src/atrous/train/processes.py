"""What the processes of one training share: sums and batch normalisation over the global batch.

Each process has a part of the batch. Its gradients are averaged with those of the others
(DistributedDataParallel), so a loss that is a sum over the global batch counts its own part times
the number of processes.
"""

import atexit
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from atrous.errors import InputError
from atrous.models.layers import Norm
from atrous.models.normalization import FusedNorm, FusedNormAct

T = TypeVar("T")


def share_cpu() -> bool:
    """Return whether this is one of several processes that torchrun started, and there is no CUDA.

    accelerate must be told to train on the CPU then: by itself it takes each for a training alone.
    """
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.cuda.is_available()


def num_processes() -> int:
    """Return the number of processes of the training that this one belongs to."""
    started = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if started else 1


def by_main(accelerator: Accelerator, do: Callable[[], T]) -> T:
    """Return in all processes what `do` returns in the main one; all raise its InputError."""
    found: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            found = [do()]
        except InputError as error:
            found = [error]
    broadcast_object_list(found)
    if isinstance(found[0], InputError):
        raise found[0]
    return cast(T, found[0])


def end_training(accelerator: Accelerator) -> None:
    """Wait for all processes, and close the trackers.

    The processes stay connected for another training, until Python ends.
    """
    accelerator.wait_for_everyone()
    for tracker in accelerator.trackers:
        tracker.finish()
    if num_processes() > 1:
        atexit.register(accelerator.state.destroy_process_group)  # nothing, after the first time


def summed(values: Tensor) -> Tensor:
    """Return the sum of the processes' `values`; gradients are summed as well."""
    return cast(Tensor, _Sum.apply(values)) if num_processes() > 1 else values


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        distributed.all_reduce(total)
        return total


class SyncNorm(nn.BatchNorm2d):
    """Batch normalisation over the global batch on a CPU, for which torch has none."""

    def forward(self, input: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h, w)
        """Normalise `input`."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        x = input.float()
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)  # (C,) each, of this process
        variance, mean = variance.double(), mean.double()
        count = torch.full_like(mean, x.numel() / x.shape[1])
        count, mean, square = summed(
            torch.stack((count, count * mean, count * (variance + mean.square())))
        )
        mean, square = mean / count, square / count
        variance = square - mean.square()
        with torch.no_grad():
            self.running_mean.lerp_(mean.float(), self.momentum)
            unbiased = variance * count / (count - 1)
            self.running_var.lerp_(unbiased.float(), self.momentum)
        scale = self.weight / (variance + self.eps).sqrt()
        shift = self.bias - mean * scale
        scale, shift = (part.float().reshape(-1, 1, 1) for part in (scale, shift))
        normal: Tensor = x * scale + shift
        return normal.to(input.dtype)


class SyncNormAct(SyncNorm):
    """The same with the activation that timm's networks have within it."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h, w)
        """Normalise `input`, and apply the activation."""
        return cast(Tensor, self.act(self.drop(super().forward(input))))


def synchronize_norms(network: nn.Module, device: torch.device) -> None:
    """Let the batch normalisations of a network see the global batch; parameters stay."""
    module: Any
    on_cpu = device.type == "cpu"
    for module in network.modules():
        if type(module) in (nn.BatchNorm2d, FusedNorm, Norm):
            module.__class__ = SyncNorm if on_cpu else nn.SyncBatchNorm
        elif type(module) in (BatchNormAct2d, FusedNormAct):
            module.__class__ = SyncNormAct if on_cpu else SyncBatchNormAct
        else:
            continue
        module.process_group = None  # of torch's norms: all processes
