"""The run folder: result of a training or of imported weights, and input of other commands.

    run.json            the network, its classes, the data and the recipe: `Run`
    best.safetensors    the weights of the best validation
    scores.json, log.jsonl, events/, last.pt    written by a training, see `atrous.train`

The weights are written first, so that a folder with a run.json from an import is whole. Nothing is
unpickled. torch is imported only where weights are read or written.
"""

import json
import shutil
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from atrous import decode
from atrous.errors import InputError
from atrous.files import replacing, write_json
from atrous.taxonomy import Taxonomy
from atrous.text import typed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atrous.models.photo import PhotoNetwork

__all__ = ["LoadedRun", "Run", "RunData", "copy_run", "has_run", "last_step", "load_run"]

_DESCRIPTION, _WEIGHTS = "run.json", "best.safetensors"
SCHEDULE = "schedule.json"
"""How many steps a training of so many minutes has: the decisions, the latest last."""
_DAMAGED = "the run is damaged: take a copy of it"


class Normalization(Struct, kw_only=True, frozen=True):
    """Statistics of the images that a network expects."""

    mean: tuple[float, ...]
    """(C,), of values in 0..1."""
    std: tuple[float, ...]
    """(C,), of values in 0..1."""


class PublishedScore(Struct, kw_only=True, frozen=True):
    """The score that the authors of imported weights state."""

    miou: float
    protocol: str


class RunData(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The data that the weights were trained on."""

    name: str = "unknown"
    named: bool | UnsetType = UNSET
    """Whether dataset.toml names the set; otherwise `name` is that of the folder."""
    samples: int | UnsetType = UNSET
    keys_sha256: str | UnsetType = UNSET
    """Digest of the keys of the split train, in order."""
    val_keys_sha256: str | UnsetType | None = UNSET
    """Digest of the keys of the split val; None if there is none."""
    bands: list[int] | UnsetType = UNSET
    range: tuple[float, float] | UnsetType = UNSET
    licence: str = "unknown"
    source: str = ""
    data: str | UnsetType = UNSET
    """Name of a built-in set, folder or dataset.toml, as it was given."""
    root: str | UnsetType | None = UNSET
    bands_of: int | UnsetType | None = UNSET
    """Bands of the files, where `bands` chooses among them."""
    published: PublishedScore | UnsetType = UNSET

    def bands_text(self) -> str:
        """Return which bands of the files are read, and in which range, for messages."""
        bands, ends = typed(self.bands or ()), typed(self.range or ())
        return f"bands {bands or 'none'} and range {ends or 'none'}"


class ImportReport(Struct, kw_only=True, frozen=True):
    """The tensors of another project's checkpoint that became the run."""

    taken: str
    """In words: which tensors of the file are used."""
    left_over: tuple[str, ...]
    """The other project's names of tensors that the network does not use."""
    others: tuple[str, ...]
    """Places in the file of other weights, which are not used."""
    threshold: float | None
    """Of the sigmoid that reads a single output; None for a network of several."""


class Run(Struct, kw_only=True, frozen=True, omit_defaults=True, tag_field="format", tag=1):
    """run.json of format 1. Unknown keys are ignored."""

    model: dict[str, Any]
    """Name and options of the network, as `atrous.models.create.config_from_options` takes them."""
    normalization: Normalization
    taxonomy: Taxonomy
    data: RunData = RunData()
    recipe: dict[str, Any] = {}
    """Result of `Recipe.to_dict`; empty for imported weights."""
    plan: list[tuple[str, str]] = []
    """Options that were planned, each with its reason (`atrous.train.plan`); empty otherwise."""
    versions: dict[str, str] = {}
    commit: str | UnsetType | None = UNSET
    left_over: list[str] | UnsetType = UNSET
    """Tensors of a given backbone checkpoint that were not used."""
    teachers: list[str] = []
    """SHA-256 of the weights of each of the recipe's teachers."""
    unlabelled: list[str] = []
    """Digest of the keys of each of the recipe's folders or splits without masks."""
    labels: dict[str, Any] = {}
    """Counts of the training masks, as `LabelCounts` holds them."""
    layout: str = ""
    """Project whose checkpoint was imported."""
    imported: ImportReport | UnsetType = UNSET

    def __post_init__(self) -> None:
        if missing := {"name", "backbone", "output_stride"} - self.model.keys():
            raise ValueError(f"model: {min(missing)} is missing")
        for name, kind in (("name", str), ("backbone", str), ("in_channels", int)):
            if type(value := self.model.get(name, 3)) is not kind:
                raise ValueError(f"model: {name} is {short(value)}")
        means, deviations = len(self.normalization.mean), len(self.normalization.std)
        if not means == deviations == self.in_channels:
            raise ValueError(
                f"{means} means and {deviations} deviations for {self.in_channels} channels"
            )

    @property
    def in_channels(self) -> int:
        """C of the images that the network takes."""
        return int(self.model.get("in_channels", 3))

    @classmethod
    def read(cls, folder: Path | str) -> "Run":
        """Read the run.json of a run folder."""
        path = Path(folder) / _DESCRIPTION
        if not path.is_file():
            raise InputError(f"{folder}: no run folder: it holds no {_DESCRIPTION}")
        table = decode.read_json(path, dict[str, Any], _DAMAGED)
        if table.get("format") != 1:
            raise InputError(f"{path}: not a run of this version, which reads format 1; {_DAMAGED}")
        return decode.convert(table, cls, path, _DAMAGED)

    def write(self, folder: Path) -> None:
        """Write run.json."""
        table = msgspec.to_builtins(self) | {"taxonomy": self.taxonomy.to_dict()}
        write_json(folder / _DESCRIPTION, table)

    def is_finished(self, folder: Path) -> bool:
        """Return whether the training in `folder` has reached its last step."""
        num_steps = self.recipe.get("num_steps")
        if self.recipe.get("minutes"):
            try:
                num_steps = json.loads((folder / SCHEDULE).read_bytes())[-1]["num_steps"]
            except (OSError, ValueError, LookupError, TypeError):  # no decision
                return False
        step = last_step(folder)
        return (folder / _WEIGHTS).is_file() and step is not None and bool(step == num_steps)


class LoadedRun(NamedTuple):
    """The network of a run, ready for use."""

    network: "PhotoNetwork"
    """In eval mode: uint8 (B, H, W, C) -> logits float32 (B, K, h, w)."""
    taxonomy: Taxonomy
    run: Run


def has_run(folder: Path | str) -> bool:
    """Return whether a folder holds a run, finished or not."""
    return (Path(folder) / _DESCRIPTION).is_file()


def check_free(folder: Path, fix: str = "add --resume, or give another --out") -> None:
    """Refuse to begin a run in a folder that holds one."""
    if has_run(folder):
        raise InputError(f"{folder}: holds a run already; {fix}")


def last_step(folder: Path) -> Any:
    """Return the step of the last line in a training's log; None if there is no complete line."""
    try:
        return json.loads((folder / "log.jsonl").read_text("utf-8").splitlines()[-1])["step"]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def load_run(folder: Path | str) -> LoadedRun:
    """Build the network of a run folder with its best weights."""
    from atrous.models.create import config_from_options, create_model
    from atrous.models.photo import PhotoNetwork

    folder = Path(folder)
    run, weights = Run.read(folder), load_weights(folder)
    try:
        network = create_model(config_from_options(run.model), run.model["num_classes"])
        photo = PhotoNetwork(network, run.normalization.mean, run.normalization.std)
        network.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{folder}: damaged, or its weights are not of this run or this version ({reason}); "
            "take a copy of the run"
        ) from error
    numbers = [photo.scale, photo.shift, *network.state_dict().values()]
    if not all(tensor.isfinite().all() for tensor in numbers):
        raise InputError(f"{folder}: its weights or its normalization are not finite; train again")
    return LoadedRun(photo.eval(), run.taxonomy, run)


def load_weights(folder: Path) -> "dict[str, Tensor]":
    """Read best.safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = weights_file(folder)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: damaged ({error}); take a copy of the run") from None


def weights_file(folder: Path) -> Path:
    """Return the path of best.safetensors, which is there."""
    path = folder / _WEIGHTS
    if not path.is_file():
        raise InputError(f"{path}: no such file; train until the first validation")
    return path


def save_weights(folder: Path, network: "nn.Module") -> None:
    """Write the parameters and buffers of `network` as best.safetensors."""
    from safetensors.torch import save

    content = save({k: v.contiguous() for k, v in network.state_dict().items()})
    with replacing(folder / _WEIGHTS) as temporary:
        temporary.write_bytes(content)


def copy_run(folder: Path, out: Path) -> None:
    """Copy the weights, then run.json, so that a folder with a run.json has weights."""
    for name in (_WEIGHTS, _DESCRIPTION):
        with replacing(out / name) as temporary:
            shutil.copyfile(folder / name, temporary)
