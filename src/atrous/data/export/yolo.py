"""YOLO's text files of polygons: a class and x y x y ..., from 0 to 1, for each region."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from atrous.data.export.labelled import Labelled
from atrous.files import write_text
from atrous.images.outlines import cut_open, regions_of
from atrous.taxonomy import Taxonomy


def write_split(
    folder: Path, split: str, images: Iterable[Labelled], _: Taxonomy, tolerance: float
) -> None:
    """Write FOLDER/labels/SPLIT/KEY.txt of each image."""
    for image in images:
        height, width = image.size
        lines = []
        for train_id, polygon in regions_of(image.labels, tolerance):
            points = cut_open(polygon).centres / (width, height)
            lines.append(" ".join([str(train_id), *(f"{n:.6f}" for n in points.ravel())]) + "\n")
        path = folder / "labels" / split / f"{image.key}.txt"
        write_text(path, "".join(lines), flush=False)


def write_names(folder: Path, splits: Sequence[str], taxonomy: Taxonomy) -> None:
    """Write FOLDER/data.yaml, which names splits and classes."""
    lines = ["path: .", *(f"{split}: images/{split}" for split in splits), "names:"]
    # A text in JSON is one in YAML, whatever is in it.
    lines += [f"  {i}: {json.dumps(name)}" for i, name in enumerate(taxonomy.classes)]
    write_text(folder / "data.yaml", "\n".join(lines) + "\n")
