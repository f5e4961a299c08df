"""What is wrong with the names of files, and with the lists that hold such names."""

from collections.abc import Iterator, Sequence

from atrous.doctor.findings import Finding, Severity, many, some
from atrous.doctor.splits import Layout


def name_findings(layout: Layout) -> Iterator[Finding]:
    """What is wrong with names and lists, and what was guessed of them."""
    rows: list[tuple[str, Severity, Sequence[str], str, str]] = [
        (
            "odd-name",
            "problem",
            layout.odd_names,
            f"{many(len(layout.odd_names), 'file')} with a name that no list can hold",
            "rename them: no line breaks or control characters; --write leaves them out",
        ),
        (
            "same-key",
            "problem",
            layout.same_key,
            f"{many(len(layout.same_key), 'name')} with several suffixes",
            "keep one file of each; here the first is read, or none where suffixes are mixed",
        ),
        (
            "unread-image",
            "problem",
            layout.unread,
            f"{many(len(layout.unread), 'file')} passed over: images whose format is not read",
            "convert them to JPEG or PNG, or name them after what they are",
        ),
        (
            "missing-image",
            "problem",
            layout.missing,
            f"{many(len(layout.missing), 'listed name')} of nothing that is here",
            "add the files or correct the list; --write leaves these names out",
        ),
        (
            "crossed-list",
            "problem",
            layout.crossed,
            f"{many(len(layout.crossed), 'line')} of lists with the mask of another image",
            "name masks as their images are; pairs go by name, so --write leaves these out",
        ),
        (
            "unused-list",
            "problem",
            layout.unused_lists,
            f"{many(len(layout.unused_lists), 'list')} of a split not used",
            "write names of images into it, one a line, or remove it",
        ),
        (
            "unused-list",
            "note",
            layout.other_lists,
            f"{many(len(layout.other_lists), 'list')} not used: {some(layout.other_lists)}",
            "none needed, if the splits are right",
        ),
        (
            "unlisted",
            "note",
            layout.unlisted,
            f"{many(len(layout.unlisted), 'pair')} in no list, so in no split",
            "add them to a list, to use them",
        ),
        *(
            ("guessed-split", "note", (guess,), guess, "write a list of each split, if it is wrong")
            for guess in layout.guesses
        ),
    ]
    for code, severity, examples, message, fix in rows:
        if examples:
            yield Finding(
                code=code,
                severity=severity,
                count=len(examples),
                message=message,
                examples=tuple(examples),
                mend=fix,
            )
