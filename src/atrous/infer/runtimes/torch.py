"""A run folder in torch: on the CPU or a GPU, eager or compiled."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.infer.bundle import BundleMetadata
from atrous.infer.runtimes.base import Labelled, Runtime
from atrous.infer.runtimes.torch_network import TorchNetwork
from atrous.kernels import usable_cores
from atrous.run import Run, load_run


@dataclass(frozen=True)
class Mode:
    """Device and arithmetic of torch."""

    device: str = "cpu"
    bf16: bool = False
    compiled: bool = False


MODES = {
    "torch": Mode(),
    "torch:bf16": Mode(bf16=True),
    "torch:compile": Mode(compiled=True),
    "torch:compile-bf16": Mode(compiled=True, bf16=True),
    "torch:cuda": Mode("cuda"),
    "torch:cuda-bf16": Mode("cuda", bf16=True),
    "torch:cuda-compile-bf16": Mode("cuda", bf16=True, compiled=True),
    "torch:mps": Mode("mps"),
}
"""Modes by the name of the runtime."""


class TorchRuntime(Runtime):
    """The best weights of a run folder in torch; channels last, as convolutions are fastest."""

    def __init__(
        self,
        run_folder: Path | str,
        threads: int | None = None,
        calls: int = 1,
        *,
        mode: Mode = MODES["torch"],
    ):
        """Load the run; see `atrous.infer.runtimes.open.open_runtime`."""
        Run.read(run_folder)  # refuses other folders, even where torch is not installed
        import torch

        if not has_device(mode.device):
            raise InputError(f"torch finds no {mode.device} device here; take the runtime torch")
        run = load_run(Path(run_folder))
        self.model_name = Path(run_folder).resolve().name
        device = "" if mode.device == "cpu" else f" {mode.device}"
        self.name = "torch" + device + " compiled" * mode.compiled
        self.precision = "bf16" if mode.bf16 else "fp32"
        self.threads = threads or usable_cores()
        torch.set_num_threads(max(1, self.threads // calls))  # of each thread that calls
        self.metadata = BundleMetadata.from_run(
            run.run, stride=run.network.stride, aligned=run.network.aligned
        )
        self.network = run.network.to(mode.device).to(memory_format=torch.channels_last)
        forward: torch.nn.Module = self.network
        on_cuda = mode.device == "cuda"
        if mode.bf16 and on_cuda:
            from atrous.models.bf16 import Bf16

            forward = Bf16(self.network)
        if mode.compiled:
            forward = torch.compile(forward, dynamic=True)  # type: ignore[assignment]
        self._on_device = TorchNetwork(
            forward,
            self.network.stride,
            torch.device(mode.device),
            aligned=self.network.aligned,
            autocast=mode.bf16 and not on_cuda,
            graphs=on_cuda and not mode.compiled,
        )
        if mode.compiled:
            self._compile()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images (B, H, W, C) to logits (B, K, ceil(H / stride), ceil(W / stride))."""
        return self._on_device.logits(images)

    def label(
        self,
        images: NDArray[np.uint8],
        threads: int | None = None,
        *,
        with_confidence: bool = False,
    ) -> Labelled:
        """Return the labels of images (B, H, W, C); on CUDA they are computed there by Triton."""
        return self._on_device.label(images, threads, with_confidence=with_confidence)

    def batch_size(self, size: tuple[int, int]) -> int:
        """Return how many images of `size` (H, W) to label at a time: up to 16 on CUDA."""
        return self._on_device.batch_size(size)

    def _compile(self) -> None:
        """Compile for all sizes by running once, so that errors are raised now.

        The usual error is a missing C++ compiler.
        """
        try:
            self(np.zeros((1, 70, 101, self.metadata.channels), np.uint8))
        except Exception as error:  # of many kinds
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"torch cannot compile the network ({reason}); take the runtime torch"
            ) from None


def has_device(kind: str) -> bool:
    """Return whether torch finds a device of this kind: "cpu", "cuda" or "mps"."""
    import torch

    backend = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(kind)
    return backend is None or bool(backend.is_available())
