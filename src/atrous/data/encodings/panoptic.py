"""Panoptic files: COCO's PNG of segment ids with its JSON, and Cityscapes' instance ids.

A COCO panoptic JSON lists the segments of each image; the image's PNG holds their ids, as colours
R + 256 G + 65536 B. Both must hold the same segments.
"""

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from reprlib import repr as short
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from atrous.data.encodings.masks import Encoding
from atrous.decode import read_json
from atrous.errors import InputError, named
from atrous.files import replacing
from atrous.images.label_maps import read_colors
from atrous.images.photos import write_image
from atrous.metrics.panoptic_quality import Panoptic, PanopticQuality
from atrous.metrics.segments import (
    Ids,
    Segments,
    check_categories,
    check_once,
    check_panoptic,
    check_segments,
    runs,
)
from atrous.progress import Progress, silent
from atrous.taxonomy import IGNORE_INDEX

_MAX_ID = (1 << 24) - 1  # three bytes of colour
_FIELDS = ("id", "category_id", "iscrowd", "area")
_MAX_SEGMENTS = 1 << 16  # of one image


class PanopticEntry(msgspec.Struct, frozen=True):
    """One image of a COCO panoptic JSON."""

    image_id: int | str
    file_name: str
    """Path of the PNG, from the folder of PNGs."""
    segments: list[dict[str, Any]] = msgspec.field(name="segments_info")
    """`id`, `category_id`, and `iscrowd` and `area` where the file has them."""

    def __post_init__(self) -> None:
        name = self.file_name.replace("\\", "/")
        path = PurePosixPath(name)
        if not path.name or not name.isprintable() or path.root or ".." in path.parts:
            raise ValueError(
                f"image {short(self.image_id)} has the file_name {short(name)}; "
                "it is the path of a PNG, from the folder of PNGs"
            )
        kept = [{field: s[field] for field in _FIELDS if field in s} for s in self.segments]
        msgspec.structs.force_setattr(self, "file_name", name)
        msgspec.structs.force_setattr(self, "segments", kept)


@dataclass(frozen=True)
class PanopticAnnotations:
    """The content of a COCO panoptic JSON."""

    categories: list[dict[str, Any]]
    """`id`, `name`, `isthing`, and whatever else the file has."""
    images: dict[str, PanopticEntry]
    """By `file_name` without its suffix."""


class _Document(msgspec.Struct):
    annotations: list[PanopticEntry]
    categories: list[dict[str, Any]] = []


def read_annotations(
    path: Path | str, categories: Sequence[Mapping[str, Any]] | None = None
) -> PanopticAnnotations:
    """Read and check a COCO panoptic JSON.

    Args:
        path: the JSON.
        categories: those that its segments may have; None: its own. (A file of predictions need
            not list any.)
    """
    document = read_json(Path(path), _Document, "is it a COCO panoptic JSON?")
    if categories is None:
        categories = document.categories
    with named(path):
        check_categories(categories)
        known = {category["id"] for category in categories}
        for entry in document.annotations:
            with named(entry.file_name):
                check_segments(entry.segments, known)
        check_once("two annotations have the image_id", [e.image_id for e in document.annotations])
        keys = [str(PurePosixPath(e.file_name).with_suffix("")) for e in document.annotations]
        check_once("two annotations have the file_name", keys)
    images = dict(zip(keys, document.annotations, strict=True))
    return PanopticAnnotations([dict(category) for category in categories], images)


def read_panoptic(path: Path | str, segments: Segments) -> Panoptic:
    """Read a PNG of segment ids.

    Args:
        path: the PNG; its ids are R + 256 G + 65536 B, 0 = void.
        segments: what the JSON lists for it, as `read_annotations` gives them.
    """
    panoptic = Panoptic(read_colors(path), segments)
    with named(path):
        check_panoptic(panoptic)
    return panoptic


def read_segments(path: Path, entry: PanopticEntry, encoding: Encoding) -> NDArray[np.uint8]:
    """Read a PNG of segment ids as a label, (H, W) train ids."""
    ids, segments = read_panoptic(path, entry.segments)
    table = np.zeros(1 << 24, np.uint8)  # only the pages that are used take memory
    table[0] = IGNORE_INDEX
    for segment in segments:
        table[segment["id"]] = encoding.train_id(segment["category_id"], str(path))
    return table[ids]


def with_train_ids(truth: Panoptic, encoding: Encoding, path: Path) -> Panoptic:
    """Replace categories by train ids; ignored segments become void."""
    segments, void = [], []
    for segment in truth.segments:
        train_id = encoding.train_id(segment["category_id"], str(path))
        if train_id == IGNORE_INDEX:
            void.append(segment["id"])
        else:
            segments.append({**segment, "category_id": train_id})
    ids = np.where(np.isin(truth.ids, void), 0, truth.ids) if void else truth.ids
    return Panoptic(ids, segments)


def instance_ids_to_panoptic(ids: Ids, divisor: int, things: Set[int]) -> Panoptic:
    """Turn instance ids as Cityscapes has them into segments.

    Args:
        ids: (H, W) category * `divisor` + instance; below `divisor`, the category alone: stuff, or
            a crowd of things.
        divisor: 1000 for Cityscapes.
        things: the categories that are things.

    Returns:
        Segments whose ids are those of the file plus one: 0 may be a category there, and is void
        here.
    """
    (values,), _ = runs([ids.ravel()])
    present = np.unique(values)
    if present.size > _MAX_SEGMENTS or present.min(initial=0) < 0:
        raise InputError(
            f"{present.size} ids from {present[0]} to {present[-1]}; "
            f"instance ids count from 0, and an image has at most {_MAX_SEGMENTS}"
        )
    segments = []
    for value in present.tolist():
        is_group = value < divisor
        category = value if is_group else value // divisor
        crowd = int(is_group and category in things)
        segments.append({"id": value + 1, "category_id": category, "iscrowd": crowd})
    return Panoptic(ids.astype(np.int64) + 1, segments)


def write_panoptic(
    folder: Path | str,
    json_path: Path | str,
    entries: Iterable[tuple[str, int | str, Panoptic]],
    categories: Sequence[Mapping[str, Any]],
) -> None:
    """Write segmentations in COCO's format, one after the other, the JSON last.

    Args:
        folder: where the PNGs go.
        json_path: where the JSON goes.
        entries: stem of the PNG, image id and segmentation of each image.
        categories: `id`, `name`, `isthing` of each.
    """
    check_categories(categories)
    known = {category["id"] for category in categories}
    annotations = []
    for key, image_id, panoptic in entries:
        with named(key):
            check_segments(panoptic.segments, known)
            area = check_panoptic(panoptic).tolist()
            if (largest := panoptic.ids.max(initial=0)) > _MAX_ID:
                raise InputError(f"a segment has the id {largest}; a PNG holds up to {_MAX_ID}")
        segments = [
            {field: int(segment.get(field, 0)) for field in _FIELDS} | {"area": pixels}
            for segment, pixels in zip(panoptic.segments, area, strict=True)
        ]
        colors = np.stack([panoptic.ids >> shift & 255 for shift in (0, 8, 16)], axis=-1)  # (H,W,3)
        write_image(Path(folder) / f"{key}.png", colors.astype(np.uint8))
        annotations.append(
            {"image_id": image_id, "file_name": f"{key}.png", "segments_info": segments}
        )
    content = {"annotations": annotations, "categories": [dict(each) for each in categories]}
    with replacing(json_path) as temporary:
        temporary.write_text(json.dumps(content), "utf-8")


def evaluate_panoptic_files(
    truth_json: Path | str,
    truth_folder: Path | str,
    prediction_json: Path | str,
    prediction_folder: Path | str,
    progress: Progress = silent,
) -> PanopticQuality:
    """Score predicted files against true ones; one image is in memory at a time.

    Images are paired by their `image_id`; predictions without truth are left out.
    """
    truth = read_annotations(truth_json)
    predictions = {
        entry.image_id: entry
        for entry in read_annotations(prediction_json, truth.categories).images.values()
    }
    for entry in truth.images.values():
        if entry.image_id not in predictions:
            raise InputError(
                f"{prediction_json}: no prediction for image {short(entry.image_id)}, "
                "which the truth has; predict every image"
            )
    quality = PanopticQuality(truth.categories)
    for done, entry in enumerate(truth.images.values(), start=1):
        predicted = predictions[entry.image_id]
        path = Path(prediction_folder) / predicted.file_name
        prediction = read_panoptic(path, predicted.segments)
        true = read_panoptic(Path(truth_folder) / entry.file_name, entry.segments)
        with named(path):
            quality.update(prediction, true)
        progress(done, len(truth.images))
    return quality
