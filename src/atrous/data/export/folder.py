"""Labelled images as a folder for an annotation tool: their files, and labels in its format.

Images are copied to OUT/images/SPLIT. With COCO's, LabelMe's and YOLO's labels comes a
dataset.toml, so that the folder is a data set of ours, after the corrections as well.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Literal, get_args

from atrous.data.export import coco, cvat, label_studio, labelme, yolo
from atrous.data.export.labelled import Labelled
from atrous.data.patterns import with_suffixes
from atrous.data.schema import ClassEntry, Description, Labels, SplitFiles, to_toml
from atrous.data.shards.read import check_key
from atrous.errors import InputError
from atrous.files import new_folder, write_text
from atrous.taxonomy import Taxonomy

Format = Literal["coco", "labelme", "yolo", "label-studio", "cvat"]
FORMATS: tuple[Format, ...] = get_args(Format)
OUTLINED: tuple[Format, ...] = ("coco", "labelme", "yolo")
"""Formats of outlines, which can be simplified."""

_WRITERS = {
    "coco": coco.write_split,
    "labelme": labelme.write_split,
    "yolo": yolo.write_split,
    "label-studio": label_studio.write_split,
    "cvat": cvat.write_split,
}


def export(
    splits: Mapping[str, Iterable[Labelled]],
    taxonomy: Taxonomy,
    out: Path,
    form: Format,
    tolerance: float = 0,
    described: Description | None = None,
) -> dict[str, int]:
    """Write images and labels into the new folder `out`.

    Args:
        splits: the images of each split, in order; each is taken once.
        taxonomy: what the labels mean.
        out: the folder; it must be empty if it exists.
        form: the format of the labels.
        tolerance: by which outlines are simplified, in pixels.
        described: the data set that the images are from, whose name, licence and bands are kept.

    Returns:
        The number of images in each split.
    """
    counts = dict.fromkeys(splits, 0)
    suffixes: dict[str, set[str]] = {split: set() for split in splits}

    def copied(split: str, folder: Path) -> Iterator[Labelled]:
        for image in splits[split]:
            check_key(image.key, image.image)
            copy = folder / image.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image.image, copy)
            suffixes[split].add(image.image.suffix)
            counts[split] += 1
            yield image

    for split in splits:
        if not re.fullmatch(r"[\w-]+", split, re.ASCII):
            raise InputError(f"split {short(split)}: cannot name a folder; use letters and -")
    with new_folder(out) as folder:
        for split in splits:
            images = copied(split, folder / "images" / split)
            _WRITERS[form](folder, split, images, taxonomy, tolerance)
        if not any(counts.values()):
            raise InputError(f"{out}: there is no image to write; see the lines above")
        if form == "yolo":
            yolo.write_names(folder, list(splits), taxonomy)
        elif form == "label-studio":
            label_studio.write_names(folder, taxonomy)
        elif form == "cvat":
            cvat.write_names(folder, taxonomy)
        if form in OUTLINED:
            text = to_toml(_description(form, taxonomy, suffixes, described))
            write_text(folder / "dataset.toml", text)
    return counts


def _description(
    form: Format,
    taxonomy: Taxonomy,
    suffixes: Mapping[str, Iterable[str]],
    described: Description | None,
) -> Description:
    """Describe the exported folder, whose uncovered pixels are ignored."""
    files = {}
    for split, ends in suffixes.items():
        images = with_suffixes(f"images/{split}/{{key}}", sorted(ends) or [".png"])
        if form == "coco":
            annotations = f"annotations/instances_{split}.json"
            files[split] = SplitFiles(images=images, annotations=annotations)
        else:
            place = "images" if form == "labelme" else "labels"
            end = ".json" if form == "labelme" else ".txt"
            files[split] = SplitFiles(images=images, labels=f"{place}/{split}/{{key}}{end}")
    classes = tuple(
        ClassEntry(
            name=name,
            color=taxonomy.colors[i],
            thing=i in taxonomy.things,
            group=taxonomy.groups[i] if taxonomy.groups else None,
        )
        for i, name in enumerate(taxonomy.classes)
    )
    labels = Labels(encoding="polygons", classes=classes)
    if form == "coco":
        ids = {str(i + 1): i for i in range(len(classes))}
        labels = Labels(encoding="coco-json", classes=classes, map=ids)
    return Description(
        name=taxonomy.name if described is None else described.name,
        licence="" if described is None else described.licence,
        source="" if described is None else described.source,
        bands=() if described is None else described.bands,
        range=None if described is None else described.range,
        alpha=None if described is None else described.alpha,
        labels=labels,
        splits=files,
    )
