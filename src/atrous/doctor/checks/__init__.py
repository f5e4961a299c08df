"""What is wrong with a folder.

To add a check: write a function of the scan that yields findings, name it in `CHECKS`, and put its
words into findings.toml and docs/doctor.md. Findings without a case are dropped.
"""

from collections.abc import Callable, Iterable

from atrous.doctor.checks import files, values
from atrous.doctor.findings import Finding
from atrous.doctor.scan.scan import Scan

CHECKS: tuple[Callable[[Scan], Iterable[Finding]], ...] = (
    values.names_file,
    *(files.unreadable, files.exif, files.sizes, files.duplicates),
    *(files.unpaired, files.elsewhere, files.lists, files.coordinates, files.bands),
    *(files.mask_folders, files.class_masks),
    *(values.strays, values.blurred, values.foreground_255, values.numbered_objects),
    *(values.empty, values.no_data, values.colors),
)
"""In the order of the report. The classes of splits are checked last: `values.of_splits`."""
