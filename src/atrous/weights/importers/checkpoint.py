"""Checkpoint files of other projects: .pth and .pt of torch, .safetensors. No code in them runs.

A folder of segmentation_models.pytorch's save_pretrained holds one, and a config.json.
"""

import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from atrous.decode import read_json
from atrous.errors import InputError
from atrous.files import no_such_file
from atrous.weights.importers.stand_ins import DTYPES, Held, load_with_stand_ins, state_of

PLAIN = ("state_dict", "model_state", "model_state_dict", "model")
"""Keys of the weights that are used, beside other weights; a file's only weights have any key."""

_AVERAGED = re.compile(r"(?<![a-z])(ema|swa|avg|averaged?|shadow|polyak)(?![a-z])")
_MAX_DEPTH = 5
"""Dictionaries around a network's that are searched."""

_NUMBERS = {*DTYPES.values(), torch.float8_e4m3fn, torch.float8_e5m2}
"""Types that torch converts to float32; it does not for two numbers in a byte, say."""

_HARMLESS: list[Any] = [  # numpy scalars: scores that training scripts keep beside the weights
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
]


WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names that timm and segmentation_models.pytorch publish weights under."""

_FIXED = {"decoder_atrous_rates": [12, 24, 36], "decoder_interpolation": "nearest"}
"""Options that change the output and that no tensor shows, with the values that atrous has."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """The weights of a file that are used."""

    state: dict[str, Tensor]
    """By their names in the file, on the CPU."""
    key: str
    """Their place, "ema.module" for file["ema"]["module"]; "" for the file itself."""
    averaged: bool
    """The place is named after averages."""
    others: tuple[str, ...]
    """Places of other weights of about as many tensors, or of averages without names."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the weights of a file, within any dictionaries; averaged ones first.

    Refused are damaged files, several networks, tensors that are not plain, and numbers that are
    not finite.
    """
    if not path.is_file():
        raise no_such_file(path)
    content = _safetensors(path) if path.suffix.lower() == ".safetensors" else _torch(path)
    groups = dict(_groups(content, "", set()))
    most = max(map(len, groups.values()), default=0)
    groups = {key: group for key, group in groups.items() if 2 * len(group) >= most}
    if not groups:
        raise InputError(f"{path}: holds no weights by name; save the network's state_dict()")
    is_swapped = "message_hub" in content and {"state_dict", "ema_state_dict"} <= groups.keys()
    key = "state_dict" if is_swapped else _main_key(groups)  # mmengine swaps them as it saves
    if key is None:
        names = ", ".join(map(short, list(groups)[:5]))
        raise InputError(f"{path}: holds several networks ({names}); save the state_dict() of one")
    state = _checked(groups.pop(key), path)
    named = {other.split(".")[0] for other in (key, *groups)}
    nameless = (
        name
        for name, value in content.items()
        if isinstance(name, str)
        and says_averaged(name)
        and isinstance(value, dict | list)
        and value
    )
    return Checkpoint(
        state=state,
        key=key,
        averaged=is_swapped or says_averaged(key),
        others=(*groups, *(name for name in nameless if name not in named)),
    )


def _checked(group: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Return the tensors of a network; refuse any that is not plain and finite."""
    state = {k: value.tensor if isinstance(value, Held) else value for k, value in group.items()}
    if odd := [k for k, v in state.items() if not (isinstance(k, str) and _is_plain(v))]:
        raise InputError(
            f"{path}: {short(odd[0])} is no plain tensor; save the network's state_dict() alone"
        )
    if odd := [name for name, tensor in state.items() if not tensor.float().isfinite().all()]:
        raise InputError(
            f"{path}: {short(odd[0])} holds NaN or infinity; take an earlier checkpoint"
        )
    return state


def says_averaged(name: str) -> bool:
    """Return whether a key or a part of a name stands for averaged weights.

    >>> [says_averaged(name) for name in ("model_ema", "swaModel", "n_averaged", "schema", "model")]
    [True, True, True, False, False]
    """
    return bool(_AVERAGED.search(re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()))


def few(names: Iterable[str]) -> str:
    """Return how many tensors these are, and the names of three at most.

    >>> few(["a", "b"]), few("abcde")
    ('2 tensors: a, b', '5 tensors: a, b, c, ...')
    """
    names = list(names)
    shown = ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
    return f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'}: {shown}"


def _groups(content: Any, key: str, seen: set[int]) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Each dictionary that holds tensors, and each whole network, with its place in the file."""
    if not isinstance(content, dict) or id(content) in seen or key.count(".") > _MAX_DEPTH:
        return
    seen.add(id(content))
    if state := state_of(content):
        yield key, state
        return
    inner = {n: v for n, v in content.items() if isinstance(v, dict) and isinstance(n, str | int)}
    if any(isinstance(value, Tensor | Held) for value in content.values()):
        yield key, {name: value for name, value in content.items() if name not in inner}
    for name, value in inner.items():
        yield from _groups(value, f"{key}.{name}" if key else str(name), seen)


def _main_key(groups: Mapping[str, Any]) -> str | None:
    """Return the key of the averaged weights, else of the only ones, else the usual one."""
    candidates = [key for key in groups if says_averaged(key)] or list(groups)
    if len(candidates) == 1:
        return candidates[0]
    return next((key for key in PLAIN if key in candidates), None)


def _is_plain(value: object) -> bool:
    """Return whether it is a tensor with a number in memory for each of its elements, and has some.

    An expanded one can claim any size.
    """
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.dtype in _NUMBERS
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
    except InputError:
        raise
    except Exception:  # torch raises many kinds on a file that is not its own
        try:
            return load_with_stand_ins(path)
        except Exception:  # so does a damaged pickle
            raise InputError(
                f"{path}: not loaded: no file of torch.save, or damaged; fetch it again, or save "
                "the network's state_dict() alone"
            ) from None


def _check_is_stored(path: Path) -> None:
    """Refuse TorchScript, and an archive that grows when unpacked: torch does not compress."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise InputError(
            f"{path}: a TorchScript program; save its weights: "
            "torch.save(torch.jit.load(FILE).state_dict(), ...)"
        )
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise InputError(f"{path}: a compressed archive, which torch.save does not write")


class Beside(NamedTuple):
    """Options that a config.json has and no tensor shows; None where it has none."""

    output_stride: int | None = None
    backbone: str | None = None


def is_graph(path: Path) -> bool:
    """Return whether a file is, or is named as, a TFLite file, which holds a graph."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == ".tflite" or file.read(8)[4:] == b"TFL3"


def file_of(path: Path) -> Path:
    """Return the file of weights in a folder of save_pretrained; a file is its own."""
    return next((path / name for name in WEIGHT_FILES if (path / name).is_file()), path)


def options_beside(path: Path) -> Beside:
    """Read the config.json beside the weights of that folder, if there is one."""
    config = path.with_name("config.json")
    if path.name not in WEIGHT_FILES or not config.is_file():
        return Beside()
    options = read_json(config, dict[str, Any])
    encoder = options.get("encoder_name")
    if not isinstance(encoder, str):  # of another library
        return Beside()
    for name, value in _FIXED.items():
        if options.get(name, value) != value:
            raise InputError(f"{config}: {name} is {options[name]}, where atrous has {value}")
    stride = options.get("encoder_output_stride")
    backbone = encoder.removeprefix("tu-") if encoder.startswith("tu-") else None
    if encoder.startswith("timm-mobilenetv3"):  # which it makes one of timm's
        backbone = encoder.replace("timm-", "tf_")
    return Beside(stride if isinstance(stride, int) else None, backbone)
