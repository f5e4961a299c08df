"""Tables as values: built once, shown as text of 80 columns or as HTML."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from unicodedata import east_asian_width

WIDTH = 80
"""Columns of a terminal that every table fits into."""

_LONGEST_NAME = 36


@dataclass(frozen=True)
class Cell:
    """A cell with a note or a colour on a page."""

    text: str
    note: str = ""
    """Small text below, on a page only."""
    kind: str = ""
    """CSS class, such as "better" or "worse"."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Named rows under the headings of their columns."""

    names: Sequence[str]
    """Names of the N rows."""
    columns: Mapping[str, Sequence[str | Cell]]
    """Heading -> N cells."""
    heading: str = ""
    """Heading of the column of names."""
    left: Collection[str] = ()
    """Headings of columns that are aligned to the left; all others are aligned to the right."""
    numbered: bool = False
    """Whether rows are numbered from 1; on a page each number has a colour."""
    name_width: int | None = None
    """Columns for the names; by default those of the longest name, at most 36."""

    def to_text(self, width: int = WIDTH) -> str:
        """Return lines of at most `width` columns; table columns that do not fit follow below.

        >>> print(Table(names=["cat", "dog"], columns={"IoU": [" 68.4", "    -"]}).to_text())
                 IoU
          cat   68.4
          dog      -
        """
        longest = min(max(map(_width, [self.heading, *self.names])), _LONGEST_NAME)
        names = [fit(name, self.name_width or longest) for name in [self.heading, *self.names]]
        if self.numbered:
            names = [
                f"{number or '':2} {name}"
                for number, name in enumerate(names)  # none before the heading
            ]
        blocks: list[list[str]] = []
        room = 0
        for heading, cells in self.columns.items():
            texts = [heading, *map(_text, cells)]
            breadth = 2 + max(map(len, texts))
            if breadth > room:
                blocks.append([f"  {name}" for name in names])
                room = width - _width(blocks[-1][0])
            room -= breadth
            side = "<" if heading in self.left else ">"
            blocks[-1] = [
                f"{line}  {text:{side}{breadth - 2}}"
                for line, text in zip(blocks[-1], texts, strict=True)
            ]
        return "\n".join(line.rstrip() for block in blocks for line in block)

    def to_html(self) -> str:
        """Return an HTML table; all texts are escaped."""
        headings = "".join(f"<th>{escape(text)}</th>" for text in (self.heading, *self.columns))
        rows = zip(*self.columns.values(), strict=True) if self.columns else [()] * len(self.names)
        body = [
            f"<tr>{self._name_cell(number, name)}{''.join(map(_html_cell, cells))}</tr>"
            for number, (name, cells) in enumerate(zip(self.names, rows, strict=True), start=1)
        ]
        return "\n".join(
            ["<table>", f"<thead><tr>{headings}</tr></thead>", "<tbody>", *body, "</tbody></table>"]
        )

    def _name_cell(self, number: int, name: str) -> str:
        text = escape(name)
        chip = f'<span class="number" style="background: {row_color(number)}">{number}</span> '
        return f'<td title="{text}">{chip if self.numbered else ""}{text}</td>'


def fit(name: str, width: int) -> str:
    """Pad or cut a name to `width` columns of a terminal; a long name loses its beginning.

    >>> fit("cat", 5), fit("indoor/rug", 5), fit("猫と犬と", 5)
    ('cat  ', 'r/rug', '犬と ')
    """
    name = name[-width:]
    while _width(name) > width:
        name = name[1:]
    return name + " " * (width - _width(name))


def row_color(number: int) -> str:
    """Return the CSS colour of a row, numbered from 1: hues are a golden angle apart.

    >>> row_color(1), row_color(2)
    ('hsl(0 60% 42%)', 'hsl(138 60% 42%)')
    """
    return f"hsl({137.5 * (number - 1) % 360:.0f} 60% 42%)"


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell


def _html_cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell.strip())}</td>"
    kind = f' class="{escape(cell.kind)}"' if cell.kind else ""
    note = f"<small>{escape(cell.note)}</small>" if cell.note else ""
    return f"<td{kind}>{escape(cell.text.strip())}{note}</td>"


def _width(text: str) -> int:
    """Return columns of a terminal: Chinese, Japanese and Korean letters take two."""
    return len(text) + sum(east_asian_width(letter) in "WF" for letter in text)
