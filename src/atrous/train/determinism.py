"""The same bits from each run on a GPU, which a resume needs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.backends import cudnn

_DEBUG: Any = torch.utils.deterministic


@contextmanager
def algorithms(*, deterministic: bool) -> Iterator[None]:
    """Choose CUDA's algorithms: those that give the same bits each time, or the fastest.

    An operation without a deterministic form warns, and runs. Without CUDA nothing is changed: a
    CPU gives the same bits anyway.
    """
    if not torch.cuda.is_available():
        yield
        return
    if deterministic:  # read once, when cuBLAS is first used; it stays set
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = _DEBUG.fill_uninitialized_memory
    before = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    _DEBUG.fill_uninitialized_memory = False  # it costs time, and hides no error
    cudnn.deterministic, cudnn.benchmark = deterministic, not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=only_warned)
        _DEBUG.fill_uninitialized_memory = filled
        cudnn.deterministic, cudnn.benchmark = before
