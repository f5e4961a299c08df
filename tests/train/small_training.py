"""A training of seconds, and what its run folder holds, for several test modules."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atrous.models.create import config_from_options, create_model
from atrous.run import Normalization, Run, save_weights
from atrous.taxonomy import Taxonomy
from atrous.train import Recipe
from atrous.train.checkpoint import load_state

SMALL = Recipe(
    backbone="mobilenetv3_small_050",
    pretrained=False,
    aspp_channels=16,
    decoder_channels=16,
    atrous_rates=(2,),
    crop_size=(64, 64),
    batch_size=2,
    num_steps=6,
    warmup_steps=2,
    num_workers=0,
    validate_every=3,
    checkpoint_every=2,
    log_every=2,
)


def state_of(run: Path) -> dict[str, Any]:
    """Return what last.pt holds."""
    state = load_state(run, torch.device("cpu"))
    assert state is not None
    return state


def weights(run: Path) -> dict[str, Tensor]:
    """Return the weights after the last checkpoint."""
    return state_of(run)["network"]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Return whether all tensors have the same names and bits."""
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def run_in_two_processes(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program by torchrun, as two processes on the CPU, since they find no GPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("ACCELERATE_USE_CPU", None)
    return subprocess.run(
        [*command, "2", *arguments], env=environment, capture_output=True, text=True
    )


def write_run(folder: Path, recipe: Recipe, taxonomy: Taxonomy, seed: int) -> str:
    """Write the run folder of a network of random weights; return its path."""
    torch.manual_seed(seed)
    options = recipe.model_options(taxonomy.num_classes)
    network = create_model(config_from_options(options), taxonomy.num_classes)
    save_weights(folder, network)
    statistics = Normalization(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    Run(model=options, normalization=statistics, taxonomy=taxonomy).write(folder)
    return str(folder)
