"""What is known about one model, as text of 80 columns (`atrous models NAME`)."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from atrous.metrics.protocols import PROTOCOLS
from atrous.report.tables import WIDTH
from atrous.text import bytes_text, one_line, percent_range, printable

_KINDS = {
    "shipped": "ships with atrous",
    "published": "published by others",
    "hub": "on the Hugging Face hub",
    "bundle": "a bundle",
    "run": "a run folder",
}
_INDENT = 11


@dataclass(frozen=True, kw_only=True)
class Card:
    """One model; what is not known is empty or None."""

    name: str
    """As it is given to --model."""
    kind: Literal["shipped", "published", "hub", "bundle", "run"]
    group: str = ""
    """What a person looks for: a key of `atrous.weights.published.GROUPS`."""
    network: str = ""
    precision: str = ""
    classes: Sequence[str] = ()
    data: str = ""
    """Name of the data set that it was trained on."""
    source: str = ""
    """Publication of the data set."""
    licence: str = ""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Of a bundle's metadata, of a run's scores.json, or `miou` and `protocol` of a publisher."""
    url: str = ""
    sha256: str = ""
    path: str | None = None
    """Where it lies on this machine; None: not fetched."""
    bytes: int | None = None
    """Size of the file."""


def card_text(card: Card) -> str:
    """Return a line for each thing that is known."""
    place = "not fetched yet" if card.path is None else card.path
    size = "" if card.bytes is None else f", {bytes_text(card.bytes)}"
    rows = {
        "shows": card.group,
        "network": ", ".join(filter(None, (card.network, card.precision))),
        "classes": _classes(card),
        "scores": _score(card.scores),
        "data": ": ".join(filter(None, (card.data, card.source))),
        "licence": card.licence,
        "from": card.url,
        "sha256": card.sha256,
        "file": place + size,
        "use": f"atrous segment PHOTO --model {card.name}",
    }
    lines = [_row(name, text) for name, text in rows.items() if text]
    return "\n".join([f"{card.name}: {_KINDS[card.kind]}", *lines])


def _classes(card: Card) -> str:
    """Return the number and the names of the classes, with each one's IoU where it is known."""
    if not card.classes:
        return ""
    ious = card.scores.get("iou")
    shown = ious if isinstance(ious, Mapping) else {}
    scores = {name: _percent(shown.get(name)) for name in card.classes}
    names = ", ".join(f"{name} {score}".rstrip() for name, score in scores.items())
    return f"{len(card.classes)}{', with their IoU' if any(scores.values()) else ''}: {names}"


def _score(scores: Mapping[str, Any]) -> str:
    """Return mIoU with its interval, data and protocol."""
    miou, protocol = _percent(scores.get("miou")), str(scores.get("protocol"))
    if not miou:
        return "none known"
    if "images" not in scores:
        return f"mIoU {miou} ({protocol}), as its publisher states"
    where = " ".join(str(scores[key]) for key in ("data", "split") if scores.get(key))
    rule = f": {PROTOCOLS[protocol]}" if protocol in PROTOCOLS else ""
    on = f"on {where}, {scores['images']} images; protocol {protocol}{rule}"
    reference = scores.get("torch_fp32")
    before = _percent(reference.get("miou")) if isinstance(reference, Mapping) else ""
    reference_text = f"; torch in float32 {before}" if before else ""
    return f"mIoU {miou}{_interval(scores)} {on}{reference_text}"


def _percent(value: object) -> str:
    """Return a fraction in percent; nothing for what is no fraction, such as null."""
    return f"{100 * value:.1f}" if isinstance(value, float) and 0 <= value <= 1 else ""


def _interval(scores: Mapping[str, Any]) -> str:
    """Return the 95 % interval of mIoU; nothing where there is none."""
    intervals = scores.get("intervals")
    ends = intervals.get("miou") if isinstance(intervals, Mapping) else scores.get("interval")
    match ends:
        case (float(low), float(high)):
            return f" ({percent_range(low, high)})"
    return ""


def _row(name: str, text: str) -> str:
    """Return a heading, and a text beside it that is wrapped in its column."""
    return textwrap.fill(
        printable(one_line(text)),  # a stranger's bundle may say anything
        WIDTH,
        initial_indent=f"  {name:<{_INDENT - 2}}",
        subsequent_indent=" " * _INDENT,
        break_on_hyphens=False,
        break_long_words=False,  # an address or a path is copied
    )
