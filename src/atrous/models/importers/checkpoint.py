"""Checkpoint files of other projects: .pth and .pt of torch, .safetensors. No code in them runs."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from atrous.files import InputError
from atrous.images import no_such_file

WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
"""Keys under which training scripts keep the weights beside the optimiser's state."""

_HARMLESS: list[Any] = [  # numpy scalars: scores that training scripts keep beside the weights
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
]


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by their names, out of any wrapper, on the CPU.

    Raises:
        InputError: there is no such file, it is damaged or none of weights, or it holds code or
            numbers that are not finite.
    """
    if not path.is_file():
        raise no_such_file(path)
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds no weights by name; save the network's state_dict()")
    if odd := [k for k, v in content.items() if not (isinstance(k, str) and _is_plain(v))]:
        name = f"{odd[0]!r:.100}"
        raise InputError(
            f"{path}: {name} is no plain tensor; save the network's state_dict() alone"
        )
    if odd := [name for name, tensor in content.items() if not tensor.float().isfinite().all()]:
        name = f"{odd[0]!r:.100}"
        raise InputError(f"{path}: {name} holds NaN or infinity; take an earlier checkpoint")
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in content.items()}


def _is_plain(value: object) -> bool:
    """Whether it is a tensor with a number in memory for each of its elements, and has some.

    An expanded one can claim any size.
    """
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex())
        and 0 < value.nbytes <= value.untyped_storage().nbytes()
    )


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: no .safetensors file, or damaged ({reason})") from None


def _torch(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InputError(f"{path}: a web page, no weights; download the file itself")
    try:
        _check_is_stored(path)
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what the error tells better
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds on a file that is not its own
        raise InputError(
            f"{path}: not loaded: no checkpoint of torch, cut off, or it holds Python objects, "
            "whose code would run; fetch it again, or save the network's state_dict() alone"
        ) from None


def _check_is_stored(path: Path) -> None:
    """Refuse an archive that is larger when unpacked: torch does not compress, a bomb does.

    Raises:
        ValueError: it is.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("compressed")
