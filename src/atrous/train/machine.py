"""What a plan knows of the machine that trains."""

import os
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from atrous.train.loader import default_workers
from atrous.train.memory import total_memory
from atrous.train.processes import share_cpu


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine that a plan is for."""

    device: str
    """Type of the device that trains: "cuda", "mps" or "cpu"; others are taken for a CPU."""
    memory: int
    """Bytes of memory that one process has on the device."""
    bf16: bool
    """Whether the device computes in bf16, and does not emulate it."""
    processes: int = 1
    """Number of processes that train together."""
    workers: int = 1
    """Number of processes that read images, beside each of those."""

    @classmethod
    def here(cls) -> "Machine":
        """Return this machine, with the device that `train` takes."""
        AcceleratorState._reset_state()  # an earlier training in this process may have set it
        state = Accelerator(cpu=share_cpu())  # heeds what `train` heeds, such as ACCELERATE_USE_CPU
        kind, neighbours = state.device.type, int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        if kind == "cuda":
            memory = torch.cuda.get_device_properties(state.device).total_memory
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            memory = total_memory() // neighbours
            bf16 = kind == "cpu" and _cpu_has_bf16()
        return cls(
            device=kind,
            memory=memory,
            bf16=bf16,
            processes=state.num_processes,
            workers=default_workers(state.device, neighbours),
        )


def _cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies in bf16; torch has no public name for all versions."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)
