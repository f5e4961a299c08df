"""The run folder: run.json, log.jsonl, last.pt (for a resume), best.safetensors, scores.json.

Every random draw of a training follows from the seed and the step (see `loader` and `loop`), so a
checkpoint holds weights, optimiser, average and step, and no random state. Each file is replaced
whole, so a kill at any moment leaves the one before.
"""

import importlib.metadata
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from atrous.errors import InputError
from atrous.files import replacing

PACKAGES = ("atrous", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result hangs on."""
    found = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str | None:
    """The git commit of the source that runs, with "+" if changed since; None outside of git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not somebody else's repository
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, so this is not a run folder") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); take a copy of the run") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; take a copy of the run")
    return value


def save_weights(path: Path, network: nn.Module) -> None:
    """Write the network's parameters and buffers as safetensors."""
    content = save({k: v.contiguous() for k, v in network.state_dict().items()})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def start_from(network: nn.Module, run: Path) -> int:
    """Copy the best weights of a run into `network` where name and shape agree; return how many.

    Raises:
        InputError: the run has no weights, or none of them fits.
    """
    path = run / "best.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: no such file; --init takes a run folder that has been validated")
    try:
        theirs = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error}); take a copy of the run") from None
    mine = network.state_dict()
    fitting = {
        name: tensor
        for name, tensor in theirs.items()
        if name in mine and mine[name].shape == tensor.shape
    }
    if not fitting:
        raise InputError(f"{path}: no weight fits this network; use the same model and backbone")
    network.load_state_dict(fitting, strict=False)
    return len(fitting)


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write last.pt."""
    content = io.BytesIO()  # torch.save to a full disk raises no OSError, writing bytes does
    torch.save(dict(state), content)
    with replacing(folder / "last.pt") as temporary:
        temporary.write_bytes(content.getbuffer())


def load_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Read last.pt, or None if the run was stopped before its first checkpoint.

    Raises:
        InputError: the file is damaged, or holds what is not a checkpoint.
    """
    path = folder / "last.pt"
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds on a file that is not its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a checkpoint ({reason}); start again without it") from None
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise InputError(f"{path}: not a checkpoint of atrous; start again without it")
    return state


class Log:
    """log.jsonl: one JSON object a line; a resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path, step: int) -> None:
        """Open for appending what comes after `step` steps."""
        self.path = path
        if path.exists():
            with replacing(path) as temporary:
                temporary.write_text("".join(_lines_until(path, step)), "utf-8")

    def write(self, values: Mapping[str, float | int | str | Mapping[str, Any] | None]) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(values)) + "\n")


def _lines_until(path: Path, step: int) -> list[str]:
    kept = []
    for line in path.read_text("utf-8", "replace").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # cut off by a kill, or damaged
    return kept
