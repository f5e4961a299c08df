"""Pack a dataset into shards: tars that `atrous.data.shards.read` and webdataset read.

Images are stored as the bytes of their files, masks as PNGs of train ids. The same files make the
same shards, byte for byte. The folder is written as NAME.part, and renamed when it is complete.
"""

import io
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from PIL import Image

from atrous.data.dataset import Dataset
from atrous.data.schema import Description, Labels, SplitFiles, to_toml
from atrous.data.shards.read import MAX_MEMBER_BYTES, Shards, check_key, member_stem
from atrous.data.split import Split
from atrous.errors import InputError
from atrous.files import new_folder, replacing
from atrous.images.photos import IMAGE_SUFFIXES
from atrous.progress import Progress, silent
from atrous.taxonomy import Taxonomy

_THREADS = 4
_AHEAD = 16  # samples that are prepared at a time


class Packed(NamedTuple):
    """Counts of one split that `pack` wrote."""

    split: str
    samples: int
    shards: int
    missing: int
    """Entries of the split's list whose image is missing."""


Members = list[tuple[str, bytes]]
"""Names and contents of the two files of a sample."""


def pack(
    dataset: Dataset,
    splits: Sequence[str],
    out: Path,
    shard_bytes: int,
    progress: Progress = silent,
) -> list[Packed]:
    """Write `splits` of `dataset` into the new folder `out`, each in random order.

    Args:
        dataset: the data set to pack.
        splits: names of its splits.
        out: the folder; it must be empty if it exists.
        shard_bytes: the size of a shard; only a sample that is larger by itself exceeds it.
        progress: called after each sample.
    """
    chosen = {name: _packable(dataset, name) for name in splits}
    total, done, packed = sum(map(len, chosen.values())), count(1), []
    with new_folder(out) as part:
        for name, split in chosen.items():
            samples = _samples(split, dataset.taxonomy, lambda: progress(next(done), total))
            shards = _write_shards(samples, part, name, shard_bytes)
            packed.append(Packed(name, len(split), shards, split.missing))
        with replacing(part / "dataset.toml") as path:
            path.write_text(to_toml(_description(dataset, splits)), "utf-8")
    return packed


def _packable(dataset: Dataset, name: str) -> Split:
    """Return a split, after all checks that need no image."""
    split = dataset.split(name)
    if isinstance(split, Shards):
        raise InputError(f"{dataset.folder}: split {name!r} is packed already; copy its shards")
    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise InputError(f"{dataset.name}: split {name!r} cannot name files; use letters and -")
    for key in split.keys:
        path = split.image_path(key)
        check_key(key, path)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise InputError(f"{path}: {path.suffix!r} is no image suffix, which shards need")
        if (size := path.stat().st_size) > MAX_MEMBER_BYTES:
            raise InputError(f"{path}: {size} bytes, {MAX_MEMBER_BYTES} at most; scale it down")
    return split


def _samples(split: Split, taxonomy: Taxonomy, tick: Callable[[], None]) -> Iterator[Members]:
    """Yield every sample in random order, so that reading in sequence is mixed."""
    order = np.random.default_rng(0).permutation(len(split)).tolist()
    palette = taxonomy.palette().tobytes()

    def members(index: int) -> Members:
        sample = split[index]  # decoded for its checks
        path, label = split.image_path(sample.key), io.BytesIO()
        image = Image.fromarray(sample.label)
        image.putpalette(palette)
        image.save(label, format="PNG", compress_level=4)
        stem = member_stem(sample.key)
        return [
            (f"{stem}{path.suffix.lower()}", path.read_bytes()),
            (f"{stem}.label.png", label.getvalue()),
        ]

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(order), _AHEAD):
            for sample in pool.map(members, order[start : start + _AHEAD]):
                tick()
                yield sample


def _write_shards(samples: Iterator[Members], folder: Path, split: str, shard_bytes: int) -> int:
    """Write samples into SPLIT-000000.tar and so on; return the number of tars."""
    number, pending = 0, next(samples, None)
    while pending:
        with (
            replacing(folder / f"{split}-{number:06}.tar") as path,
            tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar,
        ):
            while pending:
                needed = sum(len(content) for _, content in pending) + 4096  # headers and padding
                if tar.offset and tar.offset + needed > shard_bytes:
                    break
                for name, content in pending:
                    header = tarfile.TarInfo(name)  # of time 0 and user 0
                    header.size = len(content)
                    tar.addfile(header, io.BytesIO(content))
                pending = next(samples, None)
        number += 1
    return number


def _description(dataset: Dataset, splits: Sequence[str]) -> Description:
    """Describe the shards, whose labels hold train ids."""
    entries = dataset.description.labels.entries()
    classes = tuple(
        msgspec.structs.replace(entry, color=color)
        for entry, color in zip(entries, dataset.taxonomy.colors, strict=True)
    )
    return Description(
        name=dataset.name,
        licence=dataset.licence,
        source=dataset.source,
        bands=dataset.description.bands,
        range=dataset.description.range,
        alpha=None if dataset.bands.alpha else False,
        labels=Labels(encoding="index", classes=classes),
        splits={split: SplitFiles(shards=f"{split}-??????.tar") for split in splits},
    )
