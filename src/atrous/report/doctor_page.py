"""The page of `atrous data doctor --html`: findings with pictures, in one file.

The pictures are small JPEGs inside the page; it loads nothing and runs no script.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.dataset import Dataset
from atrous.data.train_ids import taxonomy_of
from atrous.doctor import Diagnosis
from atrous.doctor.findings import Finding
from atrous.doctor.labels.readers import label_reader
from atrous.doctor.layout.files import Pair
from atrous.doctor.proposal import open_unwritten
from atrous.doctor.scan.pairs import ReadMask
from atrous.draw import colorize
from atrous.errors import InputError
from atrous.files import write_text
from atrous.images.label_maps import read_colors
from atrous.images.photos import shown
from atrous.images.pixels import read_pixels
from atrous.report import page
from atrous.report.page import css_color, data_uri
from atrous.taxonomy import Taxonomy, distinct_colors
from atrous.text import percent_share

_THUMBNAIL = (224, 168)
"""(width, height) that a picture is fitted into."""
_DARK = 50
_OF_A_FINDING = 6
_OF_A_SPLIT = 12


@dataclass(frozen=True)
class Picture:
    """An image and its mask on the page."""

    caption: str
    image: str
    """Data URI of the image; empty if it cannot be read."""
    mask: str
    """Data URI of the mask, over the image if their sizes agree; empty if it cannot be read."""


def write_page(path: Path, diagnosis: Diagnosis) -> None:
    """Write the page of a diagnosis."""
    write_text(path, render(diagnosis))


def render(diagnosis: Diagnosis) -> str:
    """Return the page as HTML."""
    taxonomy = taxonomy_of(diagnosis.scan.labels, "")
    read = _label_reader(diagnosis)
    by_image = {stats.pair.image: stats.pair for stats in diagnosis.scan.pairs}

    def pictures(pairs: Sequence[Pair]) -> list[Picture]:
        return [_picture(diagnosis.folder, pair, read, taxonomy) for pair in pairs]

    sheets = {
        split: pictures([by_image[files.image(key)] for key in _spread(files.keys, _OF_A_SPLIT)])
        for split, files in diagnosis.splits.items()
    }
    findings = [(f, pictures(f.pairs[:_OF_A_FINDING])) for f in diagnosis.findings]
    findings = [
        (f, _close_ups(diagnosis.folder, f, shown) if f.code == "interpolated" else shown)
        for f, shown in findings
    ]
    values = {"diagnosis": diagnosis, "findings": findings, "sheets": sheets}
    return page.render("doctor.html", values | {"bars": _bars(diagnosis, taxonomy)})


def _label_reader(diagnosis: Diagnosis) -> ReadMask:
    """Return the function that reads a label in train ids, of left-out pairs as well."""
    given = diagnosis.scan.layout.splits
    if diagnosis.described:
        dataset = Dataset.open(diagnosis.folder)
        return label_reader({name: dataset.split(name) for name in given})
    return label_reader(open_unwritten(diagnosis.folder, diagnosis.scan.labels, given))


def _picture(folder: Path, pair: Pair, read: ReadMask, taxonomy: Taxonomy) -> Picture:
    photo, size, image, mask = None, (0, 0), "", ""
    # If one of the two cannot be read, a finding says why, and the page shows the other one.
    with suppress(InputError):
        pixels = shown(read_pixels(folder / pair.image, pair.bands)[0])
        photo, size = Image.fromarray(pixels), pixels.shape[:2]
        photo.thumbnail(_THUMBNAIL)
        image = data_uri(photo)
    with suppress(InputError):
        label = np.asarray(read(pair), np.uint8)
        mask = data_uri(_overlay(photo if size == label.shape else None, label, taxonomy))
    return Picture(pair.image, image, mask)


def _close_ups(folder: Path, finding: Finding, pictures: Sequence[Picture]) -> list[Picture]:
    """Show the overlay, and beside it an enlarged edge of the mask, where blur is visible."""
    both = zip(pictures, finding.pairs, strict=False)
    return [
        Picture(shown.caption, shown.mask, _close_up(folder / pair.mask)) for shown, pair in both
    ]


def _close_up(path: Path) -> str:
    """Return a few enlarged pixels of a mask around three different ones in a row."""
    try:
        codes = read_colors(path)  # (H, W)
    except InputError:
        return ""
    differ = codes[:, 1:] != codes[:, :-1]
    rows, columns = np.nonzero(differ[:, 1:] & differ[:, :-1] & (codes[:, 2:] != codes[:, :-2]))
    if not len(rows):
        return ""
    height, width = codes.shape
    top = max(min(rows[len(rows) // 2] - 9, height - 18), 0)
    left = max(min(columns[len(rows) // 2] - 12, width - 24), 0)
    crop = codes[top : top + 18, left : left + 24]  # (18, 24)
    colors = np.stack([crop & 255, crop >> 8 & 255, crop >> 16], 2).astype(np.uint8)
    if colors.max() < _DARK:  # ids of a grey mask would be nearly black
        colors = np.array(distinct_colors(_DARK), np.uint8)[crop & 255]
    return data_uri(Image.fromarray(colors.repeat(8, 0).repeat(8, 1)))


def _overlay(
    photo: Image.Image | None, label: NDArray[np.uint8], taxonomy: Taxonomy
) -> Image.Image:
    """Return the small colours of a label, over its small photo if one is given."""
    if photo is not None:
        return page.overlay(photo, label, taxonomy)
    small = Image.fromarray(label)
    small.thumbnail(_THUMBNAIL, Image.Resampling.NEAREST)
    return Image.fromarray(colorize(np.asarray(small), taxonomy))


def _spread(keys: Sequence[str], count: int) -> list[str]:
    """Return `count` keys, evenly spaced."""
    places = np.linspace(0, len(keys) - 1, min(count, len(keys))).round().astype(int)
    return [keys[place] for place in places]


def _bars(diagnosis: Diagnosis, taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """Describe the bar of each class: its share of the labelled pixels, and its width in percent.

    Widths are proportional to the square roots of the shares, so that rare classes are seen.
    """
    zero = np.zeros(taxonomy.num_classes + 1, np.int64)
    counts: NDArray[Any] = np.sum([zero, *diagnosis.pixels.values()], axis=0)[:-1]
    shares = counts / max(int(counts.sum()), 1)
    widest = max(float(shares.max()), 1e-9)
    return [
        {
            "name": taxonomy.classes[i],
            "color": css_color(taxonomy.colors[i]),
            "share": percent_share(float(shares[i])),
            "width": round(100 * float(np.sqrt(shares[i] / widest)), 1),
        }
        for i in np.argsort(-shares, kind="stable").tolist()
    ]
