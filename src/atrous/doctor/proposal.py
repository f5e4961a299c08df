"""A dataset.toml for a folder that has none, and the lists of its splits."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import Dataset
from atrous.data.schema import Description, Labels, SplitFiles
from atrous.data.shards.read import Shards
from atrous.data.split import Split
from atrous.doctor.layout.files import Files
from atrous.errors import InputError
from atrous.files import replacing
from atrous.images.bands import COLORS

VAL_SHARE = 0.2
"""Share of a training set that is proposed for validation where there is none."""

_SEEDS = 32


def describe(folder: Path, labels: Labels, splits: Mapping[str, Files]) -> Description:
    """The description of a folder, by its name; each split is read from `dataset.SPLIT.txt`."""
    name = "".join(letter for letter in folder.resolve().name if letter.isprintable())
    bands = next((files.bands for files in splits.values()), COLORS)
    return Description(
        name=name.strip() or "data",
        licence="not stated",
        source="not stated",
        bands=bands.numbers,
        range=bands.value_range,
        alpha=None if bands.alpha else False,
        labels=labels,
        splits={
            split: SplitFiles(
                images=files.images,
                labels=files.labels,
                annotations=files.annotations,
                list_file=list_name(split),
                valid=files.valid,
            )
            for split, files in splits.items()
        },
    )


def list_name(split: str) -> str:
    """The name of the list file of a split."""
    return f"dataset.{split}.txt"


def write_lists(folder: Path, splits: Mapping[str, Files]) -> list[Path]:
    """Write the images of each split, one path a line, and return the files."""
    written = []
    for split, files in splits.items():
        with replacing(folder / list_name(split)) as path:
            path.write_text("".join(f"{files.image(key)}\n" for key in files.keys), "utf-8")
        written.append(folder / list_name(split))
    return written


def open_unwritten(
    folder: Path, labels: Labels, splits: Mapping[str, Files]
) -> dict[str, Split | Shards]:
    """Open the splits of a folder as its dataset.toml would describe them, without writing it."""
    with tempfile.TemporaryDirectory() as place:
        write_lists(Path(place), splits)
        description = describe(folder, labels, splits)
        # A path that is absolute stays as it is where the reader joins it to the folder.
        elsewhere = {
            split: msgspec.structs.replace(files, list_file=f"{Path(place) / files.list_file}")
            for split, files in description.splits.items()
        }
        description = msgspec.structs.replace(description, splits=elsewhere)
        dataset = Dataset.of(description, folder, folder / "dataset.toml")
        return {split: dataset.split(split) for split in splits}


def write(folder: Path, text: str, splits: Mapping[str, Files]) -> list[Path]:
    """Write the dataset.toml `text` and the lists of its splits; return the files."""
    refuse_to_overwrite(folder)
    target = folder / "dataset.toml"
    try:
        lists = write_lists(folder, splits)
        with replacing(target) as path:
            path.write_text(text, "utf-8")
    except OSError as error:
        with suppress(OSError):
            for file in (folder / list_name(split) for split in splits):
                file.unlink(missing_ok=True)
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    return [target, *lists]


def refuse_to_overwrite(folder: Path) -> None:
    """Refuse where there is a dataset.toml."""
    if (folder / "dataset.toml").exists():
        raise InputError(f"{folder}/dataset.toml: exists already; remove it to write a new one")


def divide(keys: Sequence[str], present: NDArray[np.bool_]) -> tuple[list[str], list[str], int]:
    """Divide a set into train and val, by the seed that leaves fewest classes out of a part.

    Args:
        keys: of the samples, N.
        present: (N, K), whether a class occurs in a sample.

    Returns:
        The keys to train on, those to validate on, and the seed.
    """
    count = max(1, round(VAL_SHARE * len(keys))) if len(keys) > 1 else 0

    def chosen(seed: int) -> NDArray[np.intp]:
        return np.sort(np.random.default_rng(seed).permutation(len(keys))[:count])

    def missing(seed: int) -> int:
        in_val = np.isin(np.arange(len(keys)), chosen(seed))
        return int((~present[in_val].any(0)).sum() + (~present[~in_val].any(0)).sum())

    seed = min(range(_SEEDS), key=missing)
    val = set(chosen(seed).tolist())
    sides = [[key for i, key in enumerate(keys) if (i in val) == side] for side in (False, True)]
    return sides[0], sides[1], seed
