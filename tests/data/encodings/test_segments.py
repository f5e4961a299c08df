"""Panoptic truth, in train ids."""

from pathlib import Path

import numpy as np
import pytest
from describing import COCO_IDS, SIZES, describe, few, photo, read, save, write_panoptic
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atrous.data.dataset import Dataset
from atrous.errors import InputError


@few
@given(
    SIZES.flatmap(lambda size: arrays(np.int64, size, elements=st.integers(0, 5))),
    st.lists(st.sampled_from([*COCO_IDS, 99]), min_size=6, max_size=6),
    st.integers(1, 3_000_000),
)
def test_coco_panoptic(tmp_path: Path, ids: np.ndarray, categories: list[int], factor: int) -> None:
    there = [int(i) for i in np.unique(ids) if i]
    segments = [
        {"id": i * factor, "category_id": categories[i], "iscrowd": i % 2, "area": 3} for i in there
    ]
    write_panoptic(tmp_path, ids * factor, segments)
    train_ids = [COCO_IDS.index(c) if c != 99 else 255 for c in categories]
    expected = np.array([255, *train_ids[1:]])[ids]
    assert np.array_equal(read(tmp_path), expected)
    panoptic = Dataset.open(tmp_path).split("train").panoptic(0)
    assert np.array_equal(panoptic.ids, np.where(expected == 255, 0, ids * factor))
    assert [dict(segment) for segment in panoptic.segments] == [
        {"id": i * factor, "category_id": train_ids[i], "iscrowd": i % 2, "area": 3}
        for i in there
        if train_ids[i] != 255
    ]


@pytest.mark.parametrize(
    ("ids", "categories", "crowds"),
    [
        (np.array([[0, 1, 1000, 2999, 7, 3]], np.uint16), [0, 1, 1, 2, None, 3], [1]),
        (np.array([[0, 2, 7, 3]], np.uint8), [0, 2, None, 3], [1]),
    ],
)
def test_panoptic_of_instance_ids(
    tmp_path: Path, ids: np.ndarray, categories: list[int | None], crowds: list[int]
) -> None:
    """Things without separate instances are a crowd."""
    describe(tmp_path, 'encoding = "index"\ndivisor = 1000\nignore = [7]')
    photo(tmp_path, ids.shape)
    save(tmp_path / "masks/a.png", ids)
    found, segments = Dataset.open(tmp_path).split("train").panoptic(0)
    of = {segment["id"]: segment for segment in segments}
    assert [of[i]["category_id"] if i else None for i in found[0].tolist()] == categories
    assert [
        place for place, i in enumerate(found[0].tolist()) if of.get(i, {}).get("iscrowd")
    ] == crowds


def test_masks_of_classes_hold_no_segments(tmp_path: Path) -> None:
    describe(tmp_path, 'encoding = "index"')
    photo(tmp_path, (2, 2))
    save(tmp_path / "masks/a.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="holds no segments"):
        Dataset.open(tmp_path).split("train").panoptic(0)


def test_instance_ids_below_0_name_their_file(tmp_path: Path) -> None:
    describe(tmp_path, 'encoding = "index"\ndivisor = 1000', 'labels = "masks/{key}.tif"')
    photo(tmp_path, (1, 2))
    save(tmp_path / "masks/a.tif", np.array([[-1, 5]], np.int32))
    with pytest.raises(InputError, match=r"masks/a\.tif: 2 ids from -1 to 5"):
        Dataset.open(tmp_path).split("train").panoptic(0)
