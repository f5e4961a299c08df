"""Diagnosis: what a folder holds, what is wrong with it, and the description that it should have.

The folder needs no description. If it has a dataset.toml, this is believed and checked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.schema import to_toml
from atrous.doctor.bands import with_bands
from atrous.doctor.checks import CHECKS, values
from atrous.doctor.findings import Finding
from atrous.doctor.labels.class_names import NO_NAMES, find_class_names
from atrous.doctor.labels.known import as_known
from atrous.doctor.labels.readers import read_described, read_folder
from atrous.doctor.layout.coco import find_coco
from atrous.doctor.layout.files import UNDIVIDED, Files, Pair
from atrous.doctor.layout.foreign import foreign_labels
from atrous.doctor.layout.lists import with_lists
from atrous.doctor.layout.pairing import NothingPairedError, find_layout
from atrous.doctor.proposal import VAL_SHARE, describe, divide, write
from atrous.doctor.scan.scan import Scan
from atrous.errors import InputError
from atrous.files import walk
from atrous.progress import Progress, silent

ENCODINGS = {
    "index": "a pixel's value is the id of its class",
    "palette": "palette PNGs, whose index is the id of the class",
    "rgb": "RGB colours",
    "mat": "MATLAB files",
    "coco-json": "COCO JSON, outlines and runs",
    "coco-panoptic": "COCO panoptic, PNGs of segments with a JSON",
    "polygons": "polygons, one file for each image",
    "binary-masks": "a binary mask for each class",
}
"""What masks of each encoding hold, in words."""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `examine` found, and what it proposes."""

    scan: Scan
    findings: Sequence[Finding]
    splits: Mapping[str, Files]
    """The splits, without the pairs that are left out."""
    pixels: Mapping[str, NDArray[np.int64]]
    """(K + 1,) of each split: pixels of each class, and last of none."""
    names_file: str
    """The file that names the classes; empty where names are made up."""
    seed: int | None
    """Seed of the proposed division into train and val; None where the folder has a division."""
    toml: str
    """The dataset.toml that is there, or is proposed."""

    @property
    def folder(self) -> Path:
        """The folder."""
        return self.scan.folder

    @property
    def described(self) -> bool:
        """Return whether the folder has a dataset.toml."""
        return self.scan.described

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their train ids."""
        return self.scan.classes

    @property
    def encoding(self) -> str:
        """What the masks hold, in words."""
        return ENCODINGS[self.scan.labels.encoding]

    @property
    def left_out(self) -> int:
        """Pairs that are in no proposed split, because they are faulty."""
        return len(self.scan.pairs) - sum(len(files.keys) for files in self.splits.values())

    def write(self) -> list[Path]:
        """Write the proposed dataset.toml and the lists of its splits; return the files."""
        if not self.splits:
            raise InputError(f"{self.folder}: no pair can be used, so nothing is written")
        return write(self.folder, self.toml, self.splits)

    def to_dict(self) -> dict[str, Any]:
        """The form that docs/doctor.md describes."""
        return {
            "folder": str(self.folder),
            "pairs": len(self.scan.pairs),
            "encoding": self.scan.labels.encoding,
            "classes": list(self.classes),
            "splits": {split: len(files.keys) for split, files in self.splits.items()},
            "proposed_seed": self.seed,
            "left_out": self.left_out,
            "findings": [finding.to_dict() for finding in self.findings],
            "toml": self.toml,
        }


def examine(folder: Path, progress: Progress = silent) -> Diagnosis:
    """Find out what a folder holds and what is wrong with it.

    Args:
        folder: of images and masks, in any of the usual layouts, or with a dataset.toml.
        progress: is called with the number of pairs that are read, and of all.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds images and masks")
    if (folder / "dataset.toml").is_file():
        scan = read_described(folder, progress)
        toml = (folder / "dataset.toml").read_text("utf-8", errors="replace")
        return _diagnose(scan, toml)
    return _diagnose(_read_undescribed(folder, progress))


def _read_undescribed(folder: Path, progress: Progress) -> Scan:
    """Pair the files of a folder, read them, and find what the masks mean."""
    paths = list(walk(folder))
    labels, notes, names = None, list[Finding](), NO_NAMES
    if coco := find_coco(folder, paths):
        layout, labels, notes = coco
        layout = with_lists(layout, paths)
    else:
        try:
            layout = find_layout(folder, paths)
        except NothingPairedError as error:
            raise foreign_labels(folder, paths) or error from None
        first = next(iter(layout.splits.values()))
        names = find_class_names(folder, paths, first.mask(first.keys[0]))
    scan = read_folder(with_bands(layout), labels, names.entries, progress)
    scan = replace(scan, findings=[*notes, *scan.findings], names=names)
    return as_known(scan.with_checked_fields_of_view())


def _diagnose(scan: Scan, toml: str = "") -> Diagnosis:
    """Judge a scan and propose splits; `toml` is the dataset.toml, if there is one."""
    findings = [*scan.findings, *(finding for check in CHECKS for finding in check(scan))]
    bad = {pair for finding in findings if finding.leaves_out for pair in finding.pairs}
    given = scan.layout.splits if toml else _without(scan.layout.splits, bad)
    splits, seed = (dict(given), None) if toml else _divided(given, scan)
    pixels = {name: _pixels(scan, given, name, files) for name, files in splits.items()}
    findings += values.of_splits(scan, pixels, proposed=seed is not None)
    names = {entry.name for entry in scan.names.entries}
    if not toml:
        description = describe(scan.folder, scan.labels, splits)
        toml = "".join(f"# {line}\n" for line in _remarks(len(bad), seed)) + to_toml(description)
    return Diagnosis(
        scan=scan,
        findings=sorted(
            (f for f in findings if f.count or f.examples), key=lambda f: f.severity == "note"
        ),
        splits=splits,
        pixels=pixels,
        names_file=scan.names.file if names & {*scan.classes} else "",
        seed=seed,
        toml=toml,
    )


def _without(splits: Mapping[str, Files], bad: set[Pair]) -> dict[str, Files]:
    """Return the splits without the bad pairs, and without splits that this empties."""
    out = {(pair.split, pair.key) for pair in bad}
    kept = {
        name: replace(files, keys=tuple(key for key in files.keys if (name, key) not in out))
        for name, files in splits.items()
    }
    return {name: files for name, files in kept.items() if files.keys}


def _divided(splits: Mapping[str, Files], scan: Scan) -> tuple[dict[str, Files], int | None]:
    """Propose train and val where there are no splits, or no val; return the seed if so."""
    whole = UNDIVIDED if UNDIVIDED in splits else "train"
    if whole not in splits or "val" in splits:
        return dict(splits), None
    files = splits[whole]
    present = {p.key: own[:-1] > 0 for p, own in scan.class_pixels.items() if p.split == whole}
    train, val, seed = divide(files.keys, np.stack([present[key] for key in files.keys]))
    sides = {"train": replace(files, keys=tuple(train)), "val": replace(files, keys=tuple(val))}
    others = {name: kept for name, kept in splits.items() if name != whole}
    return {name: kept for name, kept in {**sides, **others}.items() if kept.keys}, seed


def _pixels(scan: Scan, given: Mapping[str, Files], name: str, files: Files) -> NDArray[np.int64]:
    """Return a split's pixels of each class, (K + 1,); a proposed split is part of a given one."""
    sources, keys = [name] if name in given else [UNDIVIDED, "train"], {*files.keys}
    chosen = [own for p, own in scan.class_pixels.items() if p.split in sources and p.key in keys]
    return np.asarray(np.sum(chosen, axis=0), np.int64)


def _remarks(num_bad: int, seed: int | None) -> list[str]:
    """The comments at the top of the proposed dataset.toml."""
    remarks = ["Written by `atrous data doctor`; docs/datasets.md describes this file."]
    if num_bad:
        remarks.append(
            f"The lists leave out {num_bad} faulty pairs: `atrous data doctor` says why."
        )
    if seed is not None:
        share = round(100 * VAL_SHARE)
        remarks.append(f"{share} % of the images were set aside as val, by chance (seed {seed}).")
    return remarks
