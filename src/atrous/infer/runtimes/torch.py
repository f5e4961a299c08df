"""A run folder in torch: on the CPU or a GPU, eager or compiled."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.infer.bundle import BundleMetadata
from atrous.kernels import usable_cores


@dataclass(frozen=True)
class Way:
    """How torch computes."""

    device: str = "cpu"
    bf16: bool = False
    compiled: bool = False


WAYS = {
    "torch": Way(),
    "torch:bf16": Way(bf16=True),
    "torch:compile": Way(compiled=True),
    "torch:compile-bf16": Way(compiled=True, bf16=True),
    "torch:cuda": Way("cuda"),
    "torch:cuda-bf16": Way("cuda", bf16=True),
    "torch:cuda-compile-bf16": Way("cuda", bf16=True, compiled=True),
    "torch:mps": Way("mps"),
}
"""By the name of the runtime."""


class TorchRuntime:
    """The best weights of a run folder in torch, channels last, which convolutions like best."""

    def __init__(
        self,
        run_folder: Path | str,
        threads: int | None = None,
        calls: int = 1,
        *,
        way: Way = WAYS["torch"],
    ):
        """Load the run; see `atrous.infer.runtimes.open.open_runtime`.

        Raises:
            InputError: the folder holds no finished run, or torch cannot compute in that way here.
        """
        if not (Path(run_folder) / "run.json").is_file():
            raise InputError(f"{run_folder}: no run folder: it holds no run.json")
        # torch is not part of the core install
        import torch

        from atrous.run import load_run

        _check_device(way.device)
        run = load_run(Path(run_folder))
        self.model_name = Path(run_folder).resolve().name
        self.name = "torch" + f" {way.device}" * (way.device != "cpu") + " compiled" * way.compiled
        self.precision = "bf16" if way.bf16 else "fp32"
        self.threads = threads or usable_cores()
        torch.set_num_threads(max(1, self.threads // calls))  # of each thread that calls
        try:
            self.metadata = BundleMetadata.from_run(run.run, stride=run.network.stride)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{run_folder}/run.json: damaged ({error}); take a copy of the run"
            ) from None
        self._way = way
        self._network = run.network.to(way.device).to(memory_format=torch.channels_last)
        if way.compiled:
            self._compile()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images (B, H, W, C) to logits (B, K, ceil(H / stride), ceil(W / stride))."""
        import torch

        batch = torch.tensor(images).to(self._way.device)
        narrow = torch.autocast(self._way.device, torch.bfloat16) if self._way.bf16 else None
        with torch.inference_mode(), narrow or nullcontext():
            logits = self._network(batch)
        return np.ascontiguousarray(logits.cpu().numpy(), np.float32)

    def _compile(self) -> None:
        """Compile for all sizes, now, so that what cannot be compiled is known now.

        Raises:
            InputError: it cannot be compiled, mostly for want of a C++ compiler.
        """
        import torch

        self._network = torch.compile(self._network, dynamic=True)  # type: ignore[assignment]
        try:
            self(np.zeros((1, 70, 101, self.metadata.channels), np.uint8))
        except Exception as error:  # of many kinds
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"torch cannot compile the network ({reason}); take the runtime torch"
            ) from None


def _check_device(device: str) -> None:
    import torch

    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[device]:
        raise InputError(f"torch finds no {device} device here; take the runtime torch")
