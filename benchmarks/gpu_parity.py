"""Row of `gpu.py`: the kernels against their references, graph against eager, resume."""

import io
from dataclasses import replace
from functools import partial

import torch
from gpu_bench import distance
from torch.nn import functional as F

from atrous.train.recipe import Recipe


def parity(bench):
    for check in (labels, loss, depthwise, norm, resizing, augmentation, graph, resume):
        with bench.surviving(check.__name__):
            check(bench)
