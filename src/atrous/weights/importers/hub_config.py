"""Folders of segmentation_models.pytorch's save_pretrained: weights, and a config.json beside."""

from pathlib import Path
from typing import Any, NamedTuple

from atrous.decode import read_json
from atrous.errors import InputError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

_FIXED = {"decoder_atrous_rates": [12, 24, 36], "decoder_interpolation": "nearest"}
"""Options that change the output and that no tensor shows, with the values that atrous has."""


class Beside(NamedTuple):
    """Options that a config.json has and no tensor shows; None where it has none."""

    output_stride: int | None = None
    backbone: str | None = None


def file_of(path: Path) -> Path:
    """Return the file of weights in a folder of save_pretrained; a file is its own."""
    return next((path / name for name in _WEIGHTS if (path / name).is_file()), path)


def options_beside(path: Path) -> Beside:
    """Read the config.json beside the weights of such a folder, if there is one."""
    config = path.with_name("config.json")
    if path.name not in _WEIGHTS or not config.is_file():
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
