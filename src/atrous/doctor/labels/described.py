"""The masks of a folder that has a dataset.toml, read as that describes them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.data.dataset import Dataset
from atrous.data.encodings.masks import UNKNOWN, Encoding
from atrous.data.split import Split
from atrous.doctor.findings import Finding, finding
from atrous.doctor.labels.readers import label_reader
from atrous.doctor.layout.files import Files, Layout
from atrous.doctor.scan.blur import mark_blurred
from atrous.doctor.scan.mask_stats import Ids
from atrous.doctor.scan.pairs import Pair, ReadMask, scan_pairs
from atrous.doctor.scan.scan import Scan, pairs_of, value_stats
from atrous.errors import InputError
from atrous.images.label_maps import read_colors, read_label
from atrous.progress import Progress
from atrous.taxonomy import IGNORE_INDEX

_PICTURES = ("index", "palette", "rgb")


def read_described(folder: Path, progress: Progress) -> Scan:
    """Read all that the dataset.toml of a folder describes, and what is wrong with its splits."""
    dataset = Dataset.open(folder)
    splits, notes = _open_splits(dataset)
    files = {
        name: Files(
            s.images,
            s.labels,
            s.keys,
            valid=s.valid,
            places={key: (s.image(key), s.mask(key)) for key in s.keys},
            bands=s.bands,
        )
        for name, s in splits.items()
    }
    encoding, pairs = dataset.encoding, pairs_of(files)
    # Pictures are read as they are, so that unknown ids and blurred edges can be told.
    read_mask = _raw_reader(folder, encoding) or label_reader(splits)
    read = scan_pairs(folder, pairs, read_mask, progress, colors=encoding.name == "rgb")
    if encoding.name in _PICTURES:
        read = mark_blurred(read)
    known = _known(encoding, value_stats(read, encoding.name).values)
    class_of = {value: i for value, i in known.items() if i != IGNORE_INDEX}
    ignored = tuple(value for value, i in known.items() if i == IGNORE_INDEX)
    layout = Layout(folder, files, "dataset.toml")
    return Scan(layout, dataset.description.labels, class_of, ignored, read, notes)


def _open_splits(dataset: Dataset) -> tuple[dict[str, Split], list[Finding]]:
    """Open each split; one that cannot be opened is a finding, unless none can."""
    splits: dict[str, Split] = {}
    errors, missing = [], []
    for name in dataset.splits:
        try:
            split = dataset.split(name)
        except InputError as error:
            errors.append(str(error))
            continue
        if not isinstance(split, Split):
            raise InputError(
                f"{dataset.folder}: holds shards, packed from checked files; examine those instead"
            )
        splits[name] = split
        if split.missing:
            missing.append(f"{name}: {split.missing} listed, {len(split)} here")
    if not splits:
        raise InputError(errors[0] if errors else f"{dataset.folder}: dataset.toml has no splits")
    findings = []
    if errors:
        findings.append(finding("unreadable-split", errors, number=len(errors)))
    if missing:
        count = sum(split.missing for split in splits.values())
        findings.append(finding("listed-images", missing, count=count))
    return splits, findings


def _raw_reader(folder: Path, encoding: Encoding) -> ReadMask | None:
    """What reads the ids or codes of a mask that is a picture."""
    if encoding.name not in _PICTURES:
        return None
    if encoding.name == "rgb":
        clear = encoding.transparency
        return lambda pair: read_colors(folder / pair.mask, transparency=clear)
    if (divisor := encoding.divisor) is None:
        return lambda pair: read_label(folder / pair.mask)

    def read(pair: Pair) -> Ids:
        ids = read_label(folder / pair.mask)
        return np.where(ids < divisor, ids, ids // divisor)

    return read


def _known(encoding: Encoding, values: NDArray[np.int64]) -> dict[int, int]:
    """The train ids of the values that the description knows."""
    if encoding.name in _PICTURES:
        places = np.minimum(values, encoding.table.size - 1)
        train_ids = encoding.table[places]
        if encoding.no_data:
            train_ids = np.where(values < 0, np.int16(IGNORE_INDEX), train_ids)
    else:
        train_ids = values.astype(np.int16)
    both = zip(values.tolist(), train_ids.tolist(), strict=True)
    return {value: i for value, i in both if i != UNKNOWN}
