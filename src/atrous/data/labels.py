"""Any mask's ids -> train ids, through one look-up table."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.files import InputError
from atrous.taxonomy import IGNORE_INDEX

_UNKNOWN = -1
_IDS = 1 << 16  # a PNG holds no more than 16 bits a pixel


def lookup_table(train_ids: Mapping[int, int], ignore: Iterable[int]) -> NDArray[np.int16]:
    """The train id of each dataset id, (65536,) int16; -1 where the dataset does not say.

    Args:
        train_ids: dataset id -> train id.
        ignore: dataset ids that become `IGNORE_INDEX`; 255 is one of them unless it is a class.
    """
    table = np.full(_IDS, _UNKNOWN, np.int16)
    table[IGNORE_INDEX] = IGNORE_INDEX
    for dataset_id in ignore:
        table[dataset_id] = IGNORE_INDEX
    for dataset_id, train_id in train_ids.items():
        table[dataset_id] = train_id
    return table


def to_train_ids(
    ids: NDArray[np.integer], table: NDArray[np.int16], path: Path
) -> NDArray[np.uint8]:
    """Look each id of a mask up: (H, W) integers -> (H, W) uint8 train ids.

    Raises:
        InputError: an id that the table does not know; the message names `path` and the ids.
    """
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= _IDS:
        raise InputError(f"{path}: ids {ids.min()} to {ids.max()}, where 0 to {_IDS - 1} can be")
    train_ids = table[ids]
    if train_ids.min(initial=0) < 0:
        unknown = np.unique(ids[train_ids < 0])
        named = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise InputError(
            f"{path}: id {named} is neither a class nor ignored; "
            "name it under labels.ignore or labels.map in dataset.toml"
        )
    return np.asarray(train_ids, np.uint8)
