"""What is to be said of folders of masks: which are not read, and which are read together."""

from collections.abc import Iterator

from atrous.doctor.binary import num_classes_of
from atrous.doctor.findings import Case, Finding, many, some


def folder_findings(case: Case) -> list[Finding]:
    """What is to be said of the folders of masks."""
    judges = (_unused, _passed_over, _by_class, _valid)
    return [finding for judge in judges for finding in judge(case)]


def _unused(case: Case) -> Iterator[Finding]:
    if patterns := case.layout.unused:
        yield Finding(
            code="unused-mask",
            severity="problem",
            count=len(patterns),
            message=f"further masks of some images, which are not read: {_shown(patterns)}",
            examples=patterns,
            mend="draw them into the masks that are read, or move them away",
        )


def _passed_over(case: Case) -> Iterator[Finding]:
    if patterns := case.layout.passed_over:
        yield Finding(
            code="passed-over",
            severity="note",
            count=len(patterns),
            message="masks passed over, as drawings, other forms or another person's of those read:"
            f" {_shown(patterns)}",
            examples=patterns,
            mend="none needed; to read them instead, write a dataset.toml",
        )


def _by_class(case: Case) -> Iterator[Finding]:
    """Say that names of files are taken as classes, and what becomes of masks that overlap."""
    if case.scheme.encoding != "binary-masks" or case.described:
        return
    classes, background = case.scheme.classes, case.scheme.background
    rest = f"{background} where there is none" if background else "ignored where there is none"
    yield Finding(
        code="class-masks",
        severity="note",
        count=len(classes),
        message=f"a binary mask for each class, by its name: {some(classes)}; {rest}",
        examples=classes,
        mend="none needed, if these are classes",
    )
    overlaps = {
        reading.pair: pixels
        for reading in case.readings
        if reading.tally
        and (
            pixels := sum(
                count
                for code, count in zip(
                    reading.tally.values.tolist(), reading.tally.counts.tolist(), strict=True
                )
                if num_classes_of(code) > 1
            )
        )
    }
    if overlaps:
        order = ", ".join(name for name in classes if name != background)
        yield Finding(
            code="overlap",
            severity="note",
            count=len(overlaps),
            message=f"{many(len(overlaps), 'image')} with overlapping masks,"
            f" {many(sum(overlaps.values()), 'pixel')}: a later class covers an earlier one in"
            f" the order {order}",
            examples=tuple(f"{pair.image}: {pixels:,} pixels" for pair, pixels in overlaps.items()),
            mend="none needed, if that is so; else change the order of the classes in dataset.toml",
            pairs=tuple(overlaps),
        )


def _valid(case: Case) -> Iterator[Finding]:
    if patterns := tuple(sorted({f.valid for f in case.layout.splits.values() if f.valid})):
        yield Finding(
            code="valid-mask",
            severity="note",
            count=len(patterns),
            message=f"pixels outside of the field of view are ignored: {_shown(patterns)}",
            examples=patterns,
            mend="none needed; the line `valid` of a split in dataset.toml says so",
        )


def _shown(patterns: tuple[str, ...]) -> str:
    return some(pattern.replace("{key}", "*") for pattern in patterns)
