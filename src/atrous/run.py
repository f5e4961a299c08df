"""Finished runs, read back from their folder. Nothing is unpickled."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file

from atrous.errors import InputError
from atrous.models.catalogue import build
from atrous.models.photo import PhotoNetwork
from atrous.taxonomy import Taxonomy


class LoadedRun(NamedTuple):
    """A finished run, ready to be used."""

    network: PhotoNetwork  # in eval mode: uint8 (B, H, W, C) -> logits float32 (B, K, h, w)
    taxonomy: Taxonomy
    run: dict[str, Any]  # the whole of run.json


def load_run(folder: Path | str) -> LoadedRun:
    """Read run.json and best.safetensors of a run folder.

    Raises:
        InputError: the folder holds no run, or its files are damaged or do not belong together.
    """
    folder = Path(folder)
    run = _read_run(folder / "run.json")
    weights = folder / "best.safetensors"
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; train until the first validation")
    try:
        network = build(**run["model"] | {"pretrained": False})
        mean, std = run["normalization"]["mean"], run["normalization"]["std"]
        if not len(mean) == len(std) == run["model"].get("in_channels", 3):
            raise ValueError(f"{len(mean)} means and {len(std)} deviations")
        photo = PhotoNetwork(network, mean, std)
        taxonomy = Taxonomy.from_dict(run["taxonomy"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{folder / 'run.json'}: damaged, or of another version ({error})"
        ) from error
    try:
        network.load_state_dict(load_file(weights), strict=True)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{weights}: damaged, or not of this run ({reason})") from error
    numbers = [photo.scale, photo.shift, *network.state_dict().values()]
    if not all(tensor.isfinite().all() for tensor in numbers):
        raise InputError(f"{folder}: its weights or its normalization are not finite; train again")
    return LoadedRun(photo.eval(), taxonomy, run)


def _read_run(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path.parent}: no run folder: it has no run.json") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(run, dict) or run.get("format") != 1:
        raise InputError(f"{path}: not a run of this version; format 1 is read")
    return run
