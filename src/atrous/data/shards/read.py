"""Read shards: the samples of a split in a few large tar files, as webdataset lays them out.

A sample is two members of one tar: KEY.jpg (or another image) and KEY.label.png, which holds train
ids. Nothing is unpacked: the headers are walked once, and from then on a sample is two reads at
known places, so that any order and any resume is exact. The tar may be a stranger's: each header is
checked, nothing in it names a file that is opened, and no more is read than is there.
"""

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from atrous.data.lists import is_listable
from atrous.data.sample import Samples
from atrous.data.tar import tar_members
from atrous.errors import InputError
from atrous.images.bands import COLORS, Bands
from atrous.images.label_maps import read_label
from atrous.images.photos import IMAGE_SUFFIXES
from atrous.taxonomy import IGNORE_INDEX

WINDOW = 4
"""Number of shards whose samples training mixes."""

MAX_MEMBER_BYTES = 1 << 28
"""Larger images are refused, in packing and in reading."""

_MAX_KEY = 1000
# A dot would end the key and a slash would be a folder, to webdataset and tar.
_ESCAPES = str.maketrans({"%": "%25", ".": "%2E", "/": "%2F"})


@dataclass(frozen=True, eq=False)
class Shards(Samples):
    """The samples of a packed split; each is read on access.

    It holds no open file, so threads, forked and spawned processes may share it.
    """

    paths: tuple[Path, ...]
    keys: tuple[str, ...]
    """In the order of the tars."""
    shards: NDArray[np.int32]
    """(N,) index in `paths` of each sample."""
    spans: NDArray[np.int64]
    """(N, 2, 2) start and size in bytes of the image and of the label."""
    num_classes: int
    bands: Bands = COLORS
    """How the images are read."""
    missing: ClassVar[int] = 0

    def _image(self, index: int) -> tuple[Path, bytes]:
        return self._content(index, 0, self.keys[index])

    def _label(self, index: int) -> tuple[str, NDArray[np.uint8]]:
        path, content = self._content(index, 1, f"{self.keys[index]}.label.png")
        label = read_label(path, content)
        strays = label[((label < 0) | (label >= self.num_classes)) & (label != IGNORE_INDEX)]
        if strays.size:
            raise InputError(
                f"{path}: id {strays[0]}, where 0 to {self.num_classes - 1} and {IGNORE_INDEX} "
                "can be; shards hold train ids: pack the data set again"
            )
        return f"{self.paths[self.shards[index]]}: the label of {self.keys[index]}", label.astype(
            np.uint8
        )

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return a random order that suits a disk: shards at random, samples mixed among a few.

        Samples are drawn from all shards of a `WINDOW`, one window after the other.
        """
        window = rng.permutation(len(self.paths))[self.shards] // WINDOW  # (N,)
        samples = rng.permutation(len(self))
        return samples[np.argsort(window[samples], kind="stable")]

    def _content(self, index: int, half: int, name: str) -> tuple[Path, bytes]:
        """Return name, for messages, and content of an image (half 0) or a label (half 1)."""
        path = self.paths[self.shards[index]]
        start, size = self.spans[index, half].tolist()
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                content = file.read(size)
        except OSError as error:  # raised in a worker process, it would be a page of text
            raise InputError(f"{path}: {error.strerror}; check its folder and its disk") from None
        if len(content) < size:
            raise InputError(f"{path}: was cut short after it was opened; pack it again")
        return path / name, content


def open_shards(
    folder: Path, pattern: str, split: str, num_classes: int, bands: Bands = COLORS
) -> Shards:
    """Open the tars in `folder` whose names match `pattern`, as in train-*.tar.

    Args:
        folder: the folder of the tars.
        pattern: a file name with * and ?.
        split: name of the split, for messages.
        num_classes: K of the train ids in the labels.
        bands: how the images are read.
    """
    try:
        paths = tuple(sorted(path for path in folder.glob(pattern) if path.is_file()))
    except (ValueError, NotImplementedError) as error:
        raise InputError(
            f"{folder}: shards = {pattern!r} cannot be searched for: {error}"
        ) from None
    shards: dict[str, int] = {}
    spans = []
    for shard, path in enumerate(paths):
        for key, halves in _scan(path).items():
            if key in shards:
                raise InputError(f"{path}: {key} is in {paths[shards[key]].name}, too")
            shards[key] = shard
            spans.append((halves["image"], halves["label"]))
    if not shards:
        found = "no samples in them" if paths else "no file matches"
        raise InputError(f"{folder / pattern}: {found}, so split {split!r} is empty")
    numbers = np.array(list(shards.values()), np.int32)
    return Shards(paths, tuple(shards), numbers, np.array(spans, np.int64), num_classes, bands)


def member_stem(key: str) -> str:
    """Return the name of a key's members without suffix; no two keys share one.

    >>> member_stem("bonn/a.b")
    'bonn%2Fa%2Eb'
    """
    return key.translate(_ESCAPES)


def check_key(key: str, source: Path) -> None:
    """Refuse a key that would lead out of a folder or garble a terminal."""
    outside = key.startswith("/") or ".." in key.split("/")
    if outside or not is_listable(key) or len(key) > _MAX_KEY:
        raise InputError(f"{source}: {key[:80]!r} cannot be a sample's key; rename its files")


def _scan(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Return start and size of "image" and "label" of each key in a tar; skip other members."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with path.open("rb", buffering=tarfile.BLOCKSIZE) as file:  # bodies are not read
            for member in tar_members(file):
                _add(samples, member, path)
    except tarfile.TarError as error:
        raise InputError(f"{path}: {error}; pack it again, and do not compress it") from None
    for key, halves in samples.items():
        if len(halves) < 2:
            needed = "image" if "label" in halves else "label (KEY.label.png)"
            raise InputError(f"{path}: {key} has no {needed}; pack it again")
    return samples


def _add(
    samples: dict[str, dict[str, tuple[int, int]]], member: tarfile.TarInfo, path: Path
) -> None:
    if not member.isreg() and not member.isdir():
        raise InputError(f"{path}: {member.name!r} is a link or a device; pack plain files")
    folder, slash, base = member.name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.lower().partition(".")
    if not stem or not (suffix == "label.png" or f".{suffix}" in IMAGE_SUFFIXES):
        return
    half = "label" if suffix == "label.png" else "image"
    escaped = folder + slash + base[: len(stem)]
    key = re.sub("%(25|2E|2F)", lambda code: chr(int(code[1], 16)), escaped)
    check_key(key, path)
    halves = samples.setdefault(key, {})
    if half in halves:
        raise InputError(f"{path}: {key} has two {half}s; pack it again")
    if not 0 < member.size <= MAX_MEMBER_BYTES:
        raise InputError(
            f"{path}: {member.size} bytes for the {half} of {key}, "
            f"where 1 to {MAX_MEMBER_BYTES} can be; scale it down, and pack it again"
        )
    halves[half] = member.offset_data, member.size
