"""A training of seconds, and what its run folder holds, for several test modules."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atrous.models.create import config_from_options, create_model
from atrous.models.normalization import ADDING_VARIANCE
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


def only_add(network: nn.Module) -> None:
    """Give all norms what a file without norms is converted to."""
    state = network.state_dict()
    for name, tensor in state.items():
        module, _, last = name.rpartition(".")
        if f"{module}.running_var" in state and tensor.is_floating_point():
            tensor.fill_({"running_var": ADDING_VARIANCE, "weight": 1}.get(last, 0))
    network.load_state_dict(state)


def write_run(
    folder: Path, recipe: Recipe, taxonomy: Taxonomy, seed: int, *, norms: bool = True
) -> str:
    """Write the run folder of a network of random weights; return its path."""
    torch.manual_seed(seed)
    options = recipe.model_options(taxonomy.num_classes)
    network = create_model(config_from_options(options), taxonomy.num_classes)
    if not norms:
        only_add(network)
    save_weights(folder, network)
    statistics = Normalization(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    Run(model=options, normalization=statistics, taxonomy=taxonomy).write(folder)
    return str(folder)
