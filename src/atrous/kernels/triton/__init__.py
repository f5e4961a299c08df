"""Kernels for GPUs in Triton, which is part of torch for CUDA on Linux.

Each module has its kernels and the functions that start them; a reference in torch or NumPy stands
elsewhere, and a test of parity runs both.
"""

import os
import warnings
from functools import cache
from subprocess import CalledProcessError

# Multiplications and additions as one instruction: the default up to Triton 3.9, which warns.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")


@cache
def is_usable(device: str) -> bool:
    """Return whether these kernels run on tensors of a type of device, such as "cuda".

    They need Triton and a C compiler; a GPU without these gets a warning, since torch's operations
    are slower. On the CPU they run in Triton's interpreter, for tests: only where
    TRITON_INTERPRET=1 was set before the start.
    """
    if device != "cuda" and (device != "cpu" or os.environ.get("TRITON_INTERPRET") != "1"):
        return False
    try:
        import torch

        from atrous.kernels.triton.upsample import gpu_labels

        gpu_labels(torch.zeros(1, 1, 1, 1, device=device), 1, (1, 1))
    except (ImportError, OSError, RuntimeError, CalledProcessError) as error:
        reason = str(error).partition("\n")[0]
        warnings.warn(f"no kernels in Triton ({reason}): slower ones are taken", stacklevel=2)
        return False
    return True
