"""What is to be said of names, lists and folders: what has no other half, or is not read."""

from collections.abc import Iterable, Iterator

from atrous.doctor.findings import Finding, finding, many
from atrous.doctor.labels.binary import num_classes_of
from atrous.doctor.scan.scan import Scan
from atrous.text import some


def unpaired(scan: Scan) -> Iterator[Finding]:
    """Images without masks, and masks without images."""
    layout = scan.layout
    for half, paths in (("image", layout.unpaired_images), ("mask", layout.unpaired_masks)):
        if paths:
            yield finding(f"unpaired-{half}", paths)


def elsewhere(scan: Scan) -> Iterator[Finding]:
    """Images in other folders."""
    if paths := scan.layout.elsewhere:
        paired = scan.layout.pairs_elsewhere
        yield finding("pairs-elsewhere" if paired else "images-elsewhere", paths, paired=paired)


def lists(scan: Scan) -> Iterator[Finding]:
    """What is wrong with names and lists, and what was guessed of them."""
    layout = scan.layout
    for kind, examples in (
        ("odd-name", layout.odd_names),
        ("same-key", layout.same_key),
        ("unread-image", layout.unread),
        ("missing-image", layout.missing),
        ("crossed-list", layout.crossed),
        ("unused-list", layout.unused_lists),
        ("other-list", layout.other_lists),
        ("unlisted", layout.unlisted),
        *(("guessed-split", (guess,)) for guess in layout.guesses),
    ):
        if examples:
            yield finding(kind, examples)


def mask_folders(scan: Scan) -> Iterator[Finding]:
    """Masks that fit and are not read."""
    for kind, patterns in (
        ("unused-mask", scan.layout.unused),
        ("passed-over", scan.layout.passed_over),
    ):
        if patterns:
            yield finding(kind, patterns, patterns=_shown(patterns))


def class_masks(scan: Scan) -> Iterator[Finding]:
    """Names of files that are taken as classes, and what becomes of masks that overlap."""
    if scan.labels.encoding != "binary-masks" or scan.described:
        return
    classes, background = scan.classes, scan.labels.background
    yield finding("class-masks", classes, rest=background or "ignored")
    overlaps = {
        pair: sum(count for code, count in mask.items() if num_classes_of(code) > 1)
        for pair, mask in scan.masks
    }
    overlaps = {pair: pixels for pair, pixels in overlaps.items() if pixels}
    if overlaps:
        yield finding(
            "overlap",
            [f"{pair.image}: {pixels:,} pixels" for pair, pixels in overlaps.items()],
            overlaps,
            pixels=many(sum(overlaps.values()), "pixel"),
            order=", ".join(name for name in classes if name != background),
        )


def views(scan: Scan) -> Iterator[Finding]:
    """Masks of the field of view."""
    if patterns := sorted({files.valid for files in scan.layout.splits.values()} - {""}):
        yield finding("valid-mask", patterns, patterns=_shown(patterns))


def _shown(patterns: Iterable[str]) -> str:
    return some(pattern.replace("{key}", "*") for pattern in patterns)
