"""Diagnosis: what a folder holds, what is wrong with it, and the description that it should have.

The folder needs no description. Where it has a dataset.toml, that is believed and checked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.doctor.bands import band_findings, with_bands
from atrous.doctor.class_faults import class_findings, class_name_findings
from atrous.doctor.class_names import NamedClass, find_class_names
from atrous.doctor.coco_folder import find_coco
from atrous.doctor.described import read_described
from atrous.doctor.file_faults import file_findings
from atrous.doctor.findings import Case, Finding, class_counts
from atrous.doctor.folder_faults import folder_findings
from atrous.doctor.foreign import foreign_labels
from atrous.doctor.known import as_known, names_of_layout
from atrous.doctor.layout import NothingPairedError, find_layout
from atrous.doctor.list_files import with_lists
from atrous.doctor.mask_faults import mask_findings
from atrous.doctor.places import place_findings
from atrous.doctor.proposal import VAL_SHARE, describe, divide, write
from atrous.doctor.reading import read_folder
from atrous.doctor.scheme import Scheme, with_nearest
from atrous.doctor.seen import Seen, census_of, with_views
from atrous.doctor.splits import UNDIVIDED, Files, Layout
from atrous.doctor.survey import Pair, Reading
from atrous.errors import InputError
from atrous.files import walk
from atrous.progress import Progress


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `examine` found, and what it proposes."""

    folder: Path
    layout: Layout
    scheme: Scheme
    readings: Sequence[Reading]
    findings: Sequence[Finding]
    splits: Mapping[str, Files]
    """Without the pairs that are left out."""
    pixels: Mapping[str, NDArray[np.int64]]
    """(K + 1,) of each split: of each class, and last of none."""
    names_file: str
    """Where the names of the classes are from; empty where they are made up."""
    seed: int | None
    """Of the proposed division into train and val; None where the folder has its own."""
    toml: str
    """The dataset.toml that is there, or is proposed."""

    @property
    def described(self) -> bool:
        """Whether the folder has a dataset.toml."""
        return self.layout.origin == "dataset.toml"

    @property
    def left_out(self) -> int:
        """Pairs that are in no proposed split, since they are faulty."""
        return len(self.readings) - sum(len(files.keys) for files in self.splits.values())

    def write(self) -> list[Path]:
        """Write the proposed dataset.toml and the lists of its splits; return the files.

        Raises:
            InputError: there is a dataset.toml already, nothing can be used, or the folder cannot
                be written.
        """
        if not self.splits:
            raise InputError(f"{self.folder}: no pair can be used, so nothing is written")
        return write(self.folder, self.toml, self.splits)

    def to_dict(self) -> dict[str, Any]:
        """The form that docs/doctor.md describes."""
        return {
            "folder": str(self.folder),
            "pairs": len(self.readings),
            "encoding": self.scheme.encoding,
            "classes": list(self.scheme.classes),
            "splits": {split: len(files.keys) for split, files in self.splits.items()},
            "proposed_seed": self.seed,
            "left_out": self.left_out,
            "findings": [finding.to_dict() for finding in self.findings],
            "toml": self.toml,
        }


def examine(folder: Path, progress: Progress = lambda done, total: None) -> Diagnosis:
    """Find out what a folder holds and what is wrong with it.

    Args:
        folder: of images and masks, in any of the usual layouts, or with a dataset.toml.
        progress: told how many pairs are read, and of how many.

    Raises:
        InputError: it is no folder, no mask in it belongs to an image, none can be read, or its
            dataset.toml is wrong.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds images and masks")
    if (folder / "dataset.toml").is_file():
        layout, seen, faults = read_described(folder, progress)
        toml = (folder / "dataset.toml").read_text("utf-8", errors="replace")
        return _diagnose(layout, seen, faults, "", toml)
    paths = list(walk(folder))
    coco = find_coco(folder, paths)
    try:
        layout, scheme, faults = coco or (find_layout(folder, paths), None, [])
    except NothingPairedError as error:
        raise foreign_labels(folder, paths) or error from None
    if coco:
        layout = with_lists(layout, paths)
    names_file: str = ""
    named: tuple[NamedClass, ...] = ()
    if scheme is None:
        names_file, named = names_of_layout(folder, paths, layout)
    if scheme is None and not named:
        names_file, named = find_class_names(folder, paths)
    layout = with_bands(layout)
    seen = with_views(layout, read_folder(layout, scheme, named, progress))
    seen, notes = as_known(layout, seen, named)
    return _diagnose(layout, seen, [*faults, *seen.findings, *notes], names_file, "", named)


def _diagnose(
    layout: Layout,
    seen: Seen,
    faults: Sequence[Finding],
    names_file: str,
    toml: str,
    named: Sequence[NamedClass] = (),
) -> Diagnosis:
    """Judge what was seen; `toml` is the dataset.toml, if there is one."""
    census = census_of(seen.readings, seen.blurred, seen.scheme.encoding)
    num_classes = len(seen.scheme.classes)
    places = with_nearest(seen.scheme, seen.places, census.values)
    counts = {r.pair: class_counts(r, places, num_classes) for r in seen.readings}
    case = Case(
        folder=layout.folder,
        layout=layout,
        scheme=seen.scheme,
        places=seen.places,
        readings=seen.readings,
        blurred=seen.blurred,
        counts=counts,
        census=census,
        described=bool(toml),
        no_data=seen.no_data,
    )
    findings = [*faults, *class_name_findings(case, names_file, named), *file_findings(case)]
    findings += [*place_findings(case), *band_findings(case)]
    findings += [*folder_findings(case), *mask_findings(case)]
    bad = {pair for finding in findings if finding.leaves_out for pair in finding.pairs}
    given = layout.splits if toml else _without(layout.splits, bad)
    splits, seed = (dict(given), None) if toml else _divided(given, counts)
    pixels = {name: _sum(counts, given, name, files) for name, files in splits.items()}
    holders = np.sum([count[:-1] > 0 for count in counts.values()], axis=0)
    findings += class_findings(case, pixels, holders, proposed=seed is not None)
    findings.sort(key=lambda finding: finding.severity == "note")
    return Diagnosis(
        folder=layout.folder,
        layout=layout,
        scheme=seen.scheme,
        readings=seen.readings,
        findings=findings,
        splits=splits,
        pixels=pixels,
        names_file=names_file if {e.name for e in named} & {*seen.scheme.classes} else "",
        seed=seed,
        toml=toml or describe(layout.folder, seen.scheme, splits, _remarks(len(bad), seed)),
    )


def _without(splits: Mapping[str, Files], bad: set[Pair]) -> dict[str, Files]:
    """The splits less the bad pairs; a split of which nothing is left goes."""
    out = {(pair.split, pair.key) for pair in bad}
    kept = {
        name: replace(files, keys=tuple(key for key in files.keys if (name, key) not in out))
        for name, files in splits.items()
    }
    return {name: files for name, files in kept.items() if files.keys}


def _divided(
    splits: Mapping[str, Files], counts: Mapping[Pair, NDArray[np.int64]]
) -> tuple[dict[str, Files], int | None]:
    """Propose train and val where there are no splits, or no val; the seed, if that was done."""
    whole = UNDIVIDED if UNDIVIDED in splits else "train"
    if whole not in splits or "val" in splits:
        return dict(splits), None
    files = splits[whole]
    present = {pair.key: count[:-1] > 0 for pair, count in counts.items() if pair.split == whole}
    train, val, seed = divide(files.keys, np.stack([present[key] for key in files.keys]))
    sides = {"train": replace(files, keys=tuple(train)), "val": replace(files, keys=tuple(val))}
    others = {name: kept for name, kept in splits.items() if name != whole}
    return {name: kept for name, kept in {**sides, **others}.items() if kept.keys}, seed


def _sum(
    counts: Mapping[Pair, NDArray[np.int64]], given: Mapping[str, Files], name: str, files: Files
) -> NDArray[np.int64]:
    """The pixels of each class in a split, (K + 1,); a proposed one is part of a given one."""
    sources = [name] if name in given else [UNDIVIDED, "train"]
    keys = set(files.keys)
    chosen = [c for pair, c in counts.items() if pair.split in sources and pair.key in keys]
    return np.asarray(np.sum(chosen, axis=0), np.int64)


def _remarks(num_bad: int, seed: int | None) -> list[str]:
    remarks = ["Written by `atrous data doctor`; docs/datasets.md describes this file."]
    if num_bad:
        remarks.append(
            f"The lists leave out {num_bad} faulty pairs: `atrous data doctor` says why."
        )
    if seed is not None:
        share = round(100 * VAL_SHARE)
        remarks.append(f"{share} % of the images were set aside as val, by chance (seed {seed}).")
    return remarks
