"""A run folder of format 1, of each network and option, is opened and gives the logits it gave.

networks.json.xz holds what `atrous train` and `atrous convert` wrote as "model" into run.json, and
names and shapes of the weights beside it. Their values follow from a formula.
"""

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import atrous
from atrous.models.catalogue import MODELS

NETWORKS = json.loads(
    lzma.decompress((Path(__file__).parent / "files/networks.json.xz").read_bytes())
)
"""By name: "model", "weights" as [name, shape] in their order, and the "logits" that are expected:
first, last, mean and standard deviation."""


def value_of(index: int, name: str, shape: list[int]) -> np.ndarray:
    """Weights that keep the features at a size, and that differ from tensor to tensor."""
    if name.endswith("num_batches_tracked"):
        return np.array(1)
    waves = np.sin(np.arange(np.prod(shape, dtype=int)) * 12.9898 + index).reshape(shape)
    if name.endswith("running_var"):
        waves = 1 + 0.5 * waves
    elif len(shape) > 1:
        waves = waves * 2 / np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight"):
        waves = 1 + 0.5 * waves
    else:
        waves = 0.3 * waves
    return waves.astype(np.float32)


def write_run(folder: Path, model: dict[str, Any], weights: list[tuple[str, list[int]]]) -> None:
    folder.mkdir()
    arrays = {name: value_of(i, name, shape) for i, (name, shape) in enumerate(weights)}
    save_file(arrays, folder / "best.safetensors")
    channels, classes = model["in_channels"], model["num_classes"]
    run = {
        "format": 1,
        "model": model,
        "normalization": {"mean": [0.4] * channels, "std": [0.3] * channels},
        "taxonomy": {
            "name": "numbers",
            "classes": [str(i) for i in range(classes)],
            "colors": [[i, i, i] for i in range(classes)],
            "things": [],
        },
        "data": {"bands": [*range(1, 1 + channels)]} if channels != 3 else {},
    }
    (folder / "run.json").write_text(json.dumps(run))


def logits_of(folder: Path) -> list[float]:
    segmenter = atrous.load(folder, threads=1, runtime="torch")
    rows, columns = np.indices((48, 80))
    waves = [np.sin(rows / (3 + c) + columns / (7 - c)) + np.cos(columns / 20) for c in range(4)]
    image = 128 + 60 * np.stack(waves[: segmenter.metadata.channels], -1)
    logits = segmenter.runtime(image[None].astype(np.uint8))[0].astype(np.float64)
    numbers = logits[0, 0, 0], logits[-1, -1, -1], logits.mean(), logits.std()
    return [round(float(number), 5) for number in numbers]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_of_this_network_gives_the_logits_it_gave(tmp_path: Path, name: str) -> None:
    network = NETWORKS[name]
    write_run(tmp_path / "run", network["model"], network["weights"])
    *_, deviation = expected = network["logits"]
    assert logits_of(tmp_path / "run") == pytest.approx(expected, rel=1e-3, abs=1e-3 * deviation)


def test_each_network_is_here() -> None:
    assert {network["model"]["name"] for network in NETWORKS.values()} == set(MODELS)
