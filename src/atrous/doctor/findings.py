"""Findings of the doctor. Their words are in findings.toml."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from atrous.decode import own_toml
from atrous.doctor.layout.files import Pair
from atrous.text import amount, some

Severity = Literal["problem", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of fault, or a remark, and where it was found."""

    code: str
    severity: Severity
    count: int
    """Number of masks, images or classes that the message begins with."""
    message: str
    examples: tuple[str, ...]
    """All cases, one line each."""
    fix: str
    pairs: tuple[Pair, ...] = ()
    """The pairs concerned, for pictures."""
    leaves_out: bool = False
    """Whether `--write` leaves these pairs out."""

    def to_dict(self) -> dict[str, Any]:
        """The form that docs/doctor.md describes."""
        return {
            "code": self.code,
            "severity": self.severity,
            "count": self.count,
            "message": self.message,
            "examples": list(self.examples),
            "mend": self.fix,
        }


class _Kind(msgspec.Struct, forbid_unknown_fields=True):
    """A table of findings.toml."""

    severity: Severity
    message: str
    fix: str
    code: str = ""
    """What `--json` says; by default the name of the table."""
    of: str = ""
    """What is counted."""
    leaves_out: bool = False


_KINDS = own_toml(__file__, "findings.toml", dict[str, _Kind])


def finding(
    kind: str,
    examples: Iterable[str] = (),
    pairs: Iterable[Pair] = (),
    *,
    count: int | None = None,
    severity: Severity | None = None,
    **words: object,
) -> Finding:
    """Make a finding by a table of findings.toml.

    Args:
        kind: the name of the table.
        examples: all cases, one line each.
        pairs: the pairs concerned.
        count: how many; by default the number of examples.
        severity: in place of the usual one.
        words: values of the names in braces in the message and the fix, other than `{count}` and
            `{some}`.
    """
    known, examples = _KINDS[kind], tuple(examples)
    count = len(examples) if count is None else count
    words = {"count": amount(count, known.of), "some": some(examples), **words}
    return Finding(
        code=known.code or kind,
        severity=severity or known.severity,
        count=count,
        message=known.message.format_map(words),
        examples=examples,
        fix=known.fix.format_map(words),
        pairs=tuple(pairs),
        leaves_out=known.leaves_out,
    )


def of_masks(kind: str, pairs: Sequence[Pair], **words: Any) -> Finding:
    """Make a finding of whole masks, whose examples are their paths."""
    return finding(kind, [pair.mask for pair in pairs], pairs, **words)
