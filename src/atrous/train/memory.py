"""How much memory a training step takes, and how much it may take."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from atrous.models.create import config_from_options, create_model
from atrous.train.recipe import Recipe

_FILES = (  # of cgroups version 2 and 1: limit, use, and what of it is files that can be dropped
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(root: Path = Path("/")) -> int:
    """Return how many bytes this process may still take; more, and a container would be killed.

    Args:
        root: where /proc and /sys lie.
    """
    free: list[int] = [psutil.virtual_memory().available]
    for folder in _cgroups(root):
        for limit, use, droppable in _FILES:
            with suppress(OSError, ValueError, KeyError):  # not there, or "max": no limit
                used = int((folder / use).read_text())
                lines = (folder / "memory.stat").read_text().splitlines()
                files = int(dict(line.split() for line in lines)[droppable])
                free.append(int((folder / limit).read_text()) - used + files)
    return max(min(free), 0)


def total_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory of this machine, or of the container around this process.

    Args:
        root: where /proc and /sys lie.
    """
    limits: list[int] = [psutil.virtual_memory().total]
    for folder in _cgroups(root):
        for limit, _, _ in _FILES:
            with suppress(OSError, ValueError):
                limits.append(int((folder / limit).read_text()))
    return min(limits)


def bytes_per_pixel(recipe: Recipe, num_classes: int) -> float:
    """Return the bytes of activations that a training step keeps for each pixel of a crop.

    Counted by a forward pass on torch's meta device, which computes nothing, in fp32; 16 bits take
    half. The loss works from low-resolution logits and keeps little.
    """
    size = (256, 256)
    with torch.device("meta"):
        config = config_from_options(recipe.model_options(num_classes))
        network = create_model(config, num_classes).train()
        images = torch.empty(2, 3, *size)
    kept: dict[int, torch.UntypedStorage] = {}  # by id; holding them keeps the ids apart

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images)
    total = sum(storage.nbytes() for storage in kept.values())
    return total / images[:, 0].numel() / (1 if recipe.precision == "fp32" else 2)


def _cgroups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's memory cgroup and of those around it, on Linux."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "memory" in controllers.split(","):
                top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
                folder = top / path.lstrip("/")
                yield from (f for f in (folder, *folder.parents) if f.is_relative_to(top))
