"""Words and numbers of messages: the nearest name, plurals, safe names, percent."""

from collections.abc import Iterable
from difflib import get_close_matches
from math import isnan


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the sentence that ends an error about an unknown `name`.

    Args:
        name: what was given.
        known: what there is.
        otherwise: the sentence where nothing is near; by default all that is known.

    >>> did_you_mean("camvit", ["camvid", "voc2012"])
    'Did you mean camvid?'
    >>> did_you_mean("x", ["camvid", "voc2012"])
    'There are: camvid, voc2012'
    """
    known = list(known)
    near = nearest(name, known)
    return f"Did you mean {near}?" if near else otherwise or f"There are: {', '.join(known)}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that is spelled most like `name`, if any is near."""
    return next(iter(get_close_matches(name, list(known), n=1)), None)


def amount(number: int, one: str, many: str = "") -> str:
    """Return a number of things in words.

    >>> amount(1, "image"), amount(5000, "image"), amount(2, "class")
    ('1 image', '5,000 images', '2 classes')
    """
    plural = many or one + ("es" if one.endswith("s") else "s")
    return f"{number:,} {one if number == 1 else plural}"


def some(names: Iterable[str], most: int = 4) -> str:
    """Name the first few, and say how many more there are.

    >>> some(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def typed(value: object) -> str:
    """Return the value of an option as one types it.

    >>> typed((352, 480)), typed("auto")
    ('352 480', 'auto')
    """
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def one_line(value: object) -> str:
    """Return `value` as text on one line."""
    return " ".join(str(value).split())


def printable(text: str) -> str:
    """Return `text` without what would move a terminal's cursor, such as in a file's name."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def bytes_text(size: int | None) -> str:
    """Return a number of bytes in words.

    >>> bytes_text(2_193_224), bytes_text(3_000_000_000), bytes_text(None)
    ('2.2 MB', '3.0 GB', 'size unknown')
    """
    if size is None:
        return "size unknown"
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def percent(fraction: float) -> str:
    """Return a fraction in percent, five letters wide; NaN is a dash.

    >>> percent(0.6841), percent(float("nan"))
    (' 68.4', '    -')
    """
    return "    -" if isnan(fraction) else f"{100 * fraction:5.1f}"


def percent_share(fraction: float) -> str:
    """Return a part of the pixels in percent, as legends and tables show it.

    >>> percent_share(0.5541), percent_share(0.0007), percent_share(0.0003), percent_share(0.0)
    ('55.4 %', '0.1 %', '< 0.1 %', '0.0 %')
    """
    text = f"{100 * fraction:.1f} %"
    return "< 0.1 %" if fraction > 0 and text == "0.0 %" else text


def percent_range(low: float, high: float) -> str:
    """Return the ends of an interval in percent; nothing where they are NaN.

    >>> percent_range(0.6841, 0.7), percent_range(float("nan"), float("nan"))
    ('68.4 to 70.0', '')
    """
    return "" if isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"


def points(difference: float) -> str:
    """Return a difference of two fractions in points, with its sign; NaN is a dash.

    >>> points(0.0123), points(-0.0), points(float("nan"))
    ('+1.2', '+0.0', '-')
    """
    return "-" if isnan(difference) else f"{100 * difference + 0.0:+.1f}"
