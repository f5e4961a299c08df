"""`atrous data doctor`: what is wrong with a folder of labelled images, and how to fix it."""

import json
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from atrous.cli.options import Flag, Json
from atrous.cli.progress import track
from atrous.doctor import Diagnosis, examine
from atrous.doctor.findings import Finding
from atrous.doctor.proposal import refuse_to_overwrite
from atrous.errors import InputError
from atrous.text import amount

_WIDTH = 80
_LABEL_WIDTH = 11
_MOST_EXAMPLES = 5


def doctor(
    folder: Path,
    /,
    *,
    write: Flag = False,
    json_output: Json = False,
    html: Path | None = None,
) -> None:
    """Say what is wrong with a folder of labelled images, and describe it.

    Masks are found by the names of folders and files; each file is read once. Nothing is changed.

    Args:
        folder: Images and masks; or a folder with a dataset.toml, which is checked against it.
        write: Write FOLDER/dataset.toml and lists of the splits, without the faulty pairs.
        json_output: Print one JSON document instead.
        html: Write a page with pictures of what was found; one file, which needs no network.
    """
    if write:
        refuse_to_overwrite(folder)  # before the work
    with track("images") as progress:
        diagnosis = examine(folder, progress)
    if html is not None:
        from atrous.report.doctor_page import write_page

        write_page(html, diagnosis)
    written, refused = [], None
    if write:
        try:
            written = diagnosis.write()
        except InputError as error:  # raised after the findings, which explain it
            refused = error
    if json_output:
        document = {**diagnosis.to_dict(), "written": [str(path) for path in written]}
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(_lines(diagnosis)))
        if html is not None:
            print(f"wrote {html}")
        if written:
            _print_written(diagnosis, written)
        elif diagnosis.splits and not diagnosis.described and not write:
            print(f"Write {folder}/dataset.toml: atrous data doctor {folder} --write")
    if refused is not None:
        raise refused


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield the report in lines of 80 columns."""
    pairs, layout = diagnosis.scan.pairs, diagnosis.scan.layout
    images = len(pairs) + len(layout.unpaired_images)
    masks = len(pairs) + len(layout.unpaired_masks)
    first = next(iter(layout.splits.values()))
    where = f"{first.images} <-> {first.labels or first.annotations}".replace("{key}", "*")
    counts = f"{amount(images, 'image')}, {amount(masks, 'mask')}, paired by name:"
    yield textwrap.fill(f"{counts} {where}", 80, subsequent_indent="  ", break_long_words=False)
    yield from _labelled("encoding", [diagnosis.encoding])
    yield from _labelled("classes", [_classes(diagnosis)])
    yield from _labelled("splits", [_splits(diagnosis)])
    for title, severity in (("problems", "problem"), ("notes", "note")):
        found = [finding for finding in diagnosis.findings if finding.severity == severity]
        blocks = [line for finding in found for line in _finding(finding)]
        yield from _labelled(title, blocks or (["none"] if severity == "problem" else []))


def _finding(finding: Finding) -> Iterator[str]:
    yield finding.message
    if finding.severity == "problem":
        yield f"  -> {finding.fix}"
        for example in finding.examples[:_MOST_EXAMPLES]:
            yield f"  {example}"
        if (more := len(finding.examples) - _MOST_EXAMPLES) > 0:
            yield f"  and {more:,} more: --json lists all"


def _classes(diagnosis: Diagnosis) -> str:
    names = diagnosis.classes
    some = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    source = f"; names from {diagnosis.names_file}" if diagnosis.names_file else ""
    return f"{len(names)}: {some}{source}"


def _splits(diagnosis: Diagnosis) -> str:
    parts = ", ".join(f"{name} {len(files.keys):,}" for name, files in diagnosis.splits.items())
    if diagnosis.seed is not None:
        parts += f" (proposed: every fifth image for val, by chance, seed {diagnosis.seed})"
    else:
        parts += f" (from {diagnosis.scan.layout.origin})"
    return parts


def _labelled(label: str, blocks: Iterable[str]) -> Iterator[str]:
    """Yield blocks of text beside a label; each is wrapped and keeps its indentation."""
    for block in blocks:
        text = block.lstrip()
        indent = " " * (_LABEL_WIDTH + len(block) - len(text))
        first = label.ljust(_LABEL_WIDTH) if label else indent
        yield from textwrap.wrap(
            text, _WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
        )
        label = ""


def _print_written(diagnosis: Diagnosis, written: Iterable[Path]) -> None:
    print("wrote " + "  ".join(map(str, written)))
    if diagnosis.left_out:
        print(f"left out: {diagnosis.left_out:,} faulty pairs, named above")
    if any(finding.code == "one-class" for finding in diagnosis.findings):
        print("next: give it a second class, as said above; there is nothing to train yet")
    else:
        print(f"next: atrous train --data {diagnosis.folder}")
