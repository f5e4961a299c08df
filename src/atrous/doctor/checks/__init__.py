"""What is wrong with a folder.

To add a check: write a function of the scan that yields findings, name it in `CHECKS`, and put its
words into findings.toml and docs/doctor.md.
"""

from collections.abc import Callable, Iterable

from atrous.doctor.checks import classes, files, layout, masks
from atrous.doctor.findings import Finding
from atrous.doctor.scan.scan import Scan

CHECKS: tuple[Callable[[Scan], Iterable[Finding]], ...] = (
    classes.names_file,
    files.unreadable,
    files.exif,
    files.sizes,
    files.duplicates,
    layout.unpaired,
    layout.elsewhere,
    layout.lists,
    files.coordinates,
    files.bands,
    layout.mask_folders,
    layout.class_masks,
    layout.views,
    masks.strays,
    masks.blurred,
    masks.foreground_255,
    masks.numbered_objects,
    masks.empty,
    masks.no_data,
    masks.transparent,
    masks.colors,
)
"""In the order of the report. What is wrong with splits is judged last: `classes.of_splits`."""


def check(scan: Scan) -> list[Finding]:
    """Return all findings of `CHECKS`."""
    return [finding for judge in CHECKS for finding in judge(scan)]
